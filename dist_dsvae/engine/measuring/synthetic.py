"""The trainer's own iteration on made-up images, to measure and to try out."""

from __future__ import annotations

import torch
from torch import Tensor

from dist_dsvae.config import DSVAEConfig, OptimizerConfig, TrainConfig
from dist_dsvae.core.types import ImageShape
from dist_dsvae.data.transforms import to_batch
from dist_dsvae.engine.iteration.batch_norm import place
from dist_dsvae.engine.iteration.iteration import Iteration
from dist_dsvae.engine.iteration.streams import ToBatch
from dist_dsvae.engine.measuring.families import FAMILIES, model_of
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.methods.dsvae import DSVAE


def make_method(architecture: str, num_classes: int) -> DSVAE:
    torch.manual_seed(0)
    return DSVAE(DSVAEConfig(), model_of(architecture), FAMILIES[architecture].shape, num_classes)


def make_iteration(
    method: DSVAE, runtime: Runtime, global_batch_size: int, to_batch_: ToBatch | None = None
) -> Iteration:
    """The iteration as ``engine.trainer`` sets it up."""
    place(method, runtime, sync_batch_norm=True)
    return Iteration(
        method,
        runtime,
        OptimizerConfig(),
        TrainConfig(),
        {"train": to_batch_ or (lambda tensors, noise: to_batch(*tensors, flips=noise))},
        seed=0,
        global_batch_size=global_batch_size,
    )


def make_inputs(
    architecture: str, num_classes: int, batch_size: int, num_batches: int, device: torch.device
) -> list[Tensor]:
    """Images (bytes; points as floats), labels and positions of an iteration, on the device."""
    shape = FAMILIES[architecture].shape
    torch.manual_seed(0)
    return [
        tensor.to(device)
        for number in range(num_batches)
        for tensor in made_up(shape, num_classes, batch_size, number)
    ]


def made_up(shape: ImageShape, num_classes: int, batch_size: int, number: int) -> list[Tensor]:
    """Images (bytes; points as floats), labels and positions of one batch, by the process's generator."""
    if shape.is_image:
        size = (batch_size, shape.height, shape.width, shape.channels)
        images = torch.randint(0, 256, size, dtype=torch.uint8)
    else:
        images = torch.randn(batch_size, shape.channels)
    labels = torch.randint(num_classes, (batch_size,))
    return [images, labels, torch.arange(batch_size) + number * batch_size]
