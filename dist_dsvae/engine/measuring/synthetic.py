"""The trainer's own iteration on made-up images, to measure and to try out."""

from __future__ import annotations

import torch
from torch import Tensor

from dist_dsvae.config import DSVAEConfig, OptimizerConfig, TrainConfig
from dist_dsvae.data.transforms import to_batch
from dist_dsvae.engine.iteration.batch_norm import place
from dist_dsvae.engine.iteration.iteration import Iteration, ToBatch, build_iteration
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
    return build_iteration(
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
    generator = torch.Generator().manual_seed(0)
    shape = FAMILIES[architecture].shape
    inputs: list[Tensor] = []
    for number in range(num_batches):
        if shape.is_image:
            size = (batch_size, shape.height, shape.width, shape.channels)
            images = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
        else:
            images = torch.randn(batch_size, shape.channels, generator=generator)
        labels = torch.randint(num_classes, (batch_size,), generator=generator)
        inputs += [images, labels, torch.arange(batch_size) + number * batch_size]
    return [tensor.to(device) for tensor in inputs]
