"""Batches of any size through a network: in chunks, smaller ones where the device runs out of memory."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


def in_chunks(
    function: Callable[..., tuple[Tensor, ...]],
    inputs: tuple[Tensor, ...],
    chunk_size: int,
    device: torch.device,
) -> tuple[Tensor, ...]:
    """``function`` of inputs [N, ...] on ``device``, ``chunk_size`` rows at a time; its results in one.

    function: rows in, tensors of as many rows out, wherever the whole of them shall lie. An empty batch
    is passed once. Where a chunk does not fit into the device's memory, it and all that follow are halved.
    Raises torch.OutOfMemoryError if a single row does not fit.
    """
    total, first = len(inputs[0]), 0
    results: list[tuple[Tensor, ...]] = []
    while first < total or not results:
        rows = [tensor[first : first + chunk_size].to(device) for tensor in inputs]
        try:
            results.append(function(*rows))
        except torch.OutOfMemoryError:
            if chunk_size == 1 or total == 0:
                raise
            chunk_size = max(1, min(chunk_size, len(rows[0])) // 2)
            logger.warning("out of memory: going on with %d at a time", chunk_size)
            del rows
            if device.type == "cuda":
                torch.cuda.empty_cache()
            continue
        first += chunk_size
    return tuple(torch.cat(parts) for parts in zip(*results, strict=True))
