"""The plain transcription of an iteration, to measure against."""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dist_dsvae.data.transforms import to_batch
from dist_dsvae.methods.dsvae import DSVAE


def plain_iteration(method: DSVAE, device: torch.device, inputs: list[Tensor]) -> Callable[[], None]:
    """The peer: the tests' literal transcription of Algorithm 1, float32, one Adam per network."""
    clone = Path(__file__).parents[3]
    if not (clone / "tests/algorithm1.py").is_file():
        raise ValueError("The plain transcription is among the tests of a clone. Start this in one.")
    sys.path.insert(0, str(clone))
    plain_trainer: Any = importlib.import_module("tests.algorithm1").PlainTrainer

    if device.type == "cuda":  # what a competent researcher switches on
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    plain = plain_trainer(copy.deepcopy(method).to(device))
    batches = [to_batch(*inputs[i : i + 3], flips=None) for i in range(0, len(inputs), 3)]
    batches = [batch._replace(images=batch.images.contiguous()) for batch in batches]

    def normal(_: str, size: int) -> Tensor:
        return torch.randn(len(batches[0].labels), size, device=device)

    def iterate() -> None:
        for batch in batches[:-1]:
            plain.gm_step(batch, normal)
        plain.joint_step(batches[-1], normal)

    return iterate
