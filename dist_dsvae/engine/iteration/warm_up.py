"""Warm-up: runs before those that count, for what they leave in libraries, without a trace in the state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def without_trace(state: Callable[[], Iterable[Tensor]], inputs: Iterable[Tensor]) -> Iterator[None]:
    """What happens to the tensors of ``state`` inside is undone after it; so is what is drawn at random.

    state: the tensors, live, the same ones before and after. Their values wait on the host, as what happens
    inside needs the device's memory.
    inputs: of what runs inside; the generators of their devices are put back, and the CPU's.
    """
    before = [tensor.detach().to("cpu", copy=True) for tensor in state()]
    devices = {tensor.device.index for tensor in inputs if tensor.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)):
        yield
    with torch.no_grad():
        for tensor, value in zip(state(), before, strict=True):
            tensor.copy_(value)
