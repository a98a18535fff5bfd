"""Iterations to measure: the trainer's own, on made-up images, and the plain transcription."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dist_dsvae.config import DSVAEConfig, ModelConfig, OptimizerConfig
from dist_dsvae.core.types import ImageShape
from dist_dsvae.data.transforms import to_batch
from dist_dsvae.engine.iteration.batch_norm import synchronise
from dist_dsvae.engine.iteration.guard import Guard
from dist_dsvae.engine.iteration.iteration import Iteration, ToBatch
from dist_dsvae.engine.iteration.zero import step_optimizers
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.engine.reporting.telemetry import LossMeter
from dist_dsvae.methods.dsvae import DSVAE


class Family(NamedTuple):
    """The networks of one experiment at the paper's code sizes."""

    shape: ImageShape
    zs_dim: int
    zu_dim: int


FAMILIES = {
    "vgg64": Family(ImageShape(3, 64, 64), 512, 512),
    "conv32": Family(ImageShape(3, 32, 32), 100, 200),
    "small": Family(ImageShape(1, 32, 32), 16, 12),
    "small32": Family(ImageShape(1, 32, 32), 32, 16),
    "mlp2d": Family(ImageShape(2, 0, 0), 2, 2),
}


def make_method(architecture: str, num_classes: int) -> DSVAE:
    torch.manual_seed(0)
    shape, zs_dim, zu_dim = FAMILIES[architecture]
    model = ModelConfig(architecture=architecture, zs_dim=zs_dim, zu_dim=zu_dim)
    return DSVAE(DSVAEConfig(), model, shape, num_classes)


def make_iteration(
    method: DSVAE, runtime: Runtime, global_batch_size: int, to_batch_: ToBatch | None = None
) -> Iteration:
    """The iteration as ``engine.trainer`` sets it up."""
    if runtime.world_size > 1:
        synchronise(method)
    method.to(runtime.device)
    method.to(memory_format=torch.channels_last)
    optimizers = step_optimizers(method, OptimizerConfig(), runtime, global_batch_size)
    return Iteration(
        method,
        optimizers,
        Guard(method.steps, runtime.device),
        LossMeter(method.steps, runtime.device),
        None,
        runtime,
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


def plain_iteration(method: DSVAE, device: torch.device, inputs: list[Tensor]) -> Callable[[], None]:
    """The peer: the tests' literal transcription of Algorithm 1, float32, one Adam per network."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.algorithm1 import PlainTrainer

    if device.type == "cuda":  # what a competent researcher switches on
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    plain = PlainTrainer(copy.deepcopy(method).to(device))
    batches = [to_batch(*inputs[i : i + 3], flips=None) for i in range(0, len(inputs), 3)]
    batches = [batch._replace(images=batch.images.contiguous()) for batch in batches]

    def normal(_: str, size: int) -> Tensor:
        return torch.randn(len(batches[0].labels), size, device=device)

    def iterate() -> None:
        for batch in batches[:-1]:
            plain.gm_step(batch, normal)
        plain.joint_step(batches[-1], normal)

    return iterate
