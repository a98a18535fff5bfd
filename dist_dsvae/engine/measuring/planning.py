"""An iteration as a run would make it, before there is a run: without shards, and if asked for without work.

Fake tensors have shapes and types, and no content: an iteration of them computes nothing, whatever its batch
size, and takes the memory of no GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dist_dsvae.config import ExperimentConfig
from dist_dsvae.core.noise import Noise
from dist_dsvae.core.types import Batch, ImageShape
from dist_dsvae.data.transforms import to_batch
from dist_dsvae.engine.iteration.batch_norm import place
from dist_dsvae.engine.iteration.iteration import Iteration
from dist_dsvae.engine.iteration.streams import splits_drawn
from dist_dsvae.engine.measuring.roofline import Work, work_of
from dist_dsvae.engine.measuring.synthetic import made_up
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.methods.choose import make_method
from dist_dsvae.methods.update import Method, constants


class Planned(NamedTuple):
    """An iteration and the inputs of its batches, made up; all tensors fakes of ``fake`` where given."""

    iteration: Iteration
    inputs: list[Tensor]
    fake: FakeTensorMode | None

    def run(self) -> None:
        self.iteration(*self.inputs)

    def work(self) -> Work:
        """What the iteration asks of a device."""
        if self.fake is None:
            return work_of(self.run, held=self.iteration.state())
        constants.cache_clear()  # no real one may meet a fake, nor a fake one stay
        try:
            with self.fake:
                return work_of(self.run, held=self.iteration.state())
        finally:
            constants.cache_clear()


def plan(
    config: ExperimentConfig, shape: ImageShape, num_classes: int, runtime: Runtime, *, fake: bool
) -> Planned:
    """The iteration of ``config`` as ``trainer`` sets it up, for samples of this shape, on one process.

    config: with ``method.augmentation`` decided; this process has all of data.batch_size.
    Raises ValueError where the architecture does not fit the shape.
    """
    mode = FakeTensorMode() if fake else None
    torch.manual_seed(config.seed)
    method = make_method(config.method, config.model, shape, num_classes).to(runtime.dtype)
    assert isinstance(method, Method)
    place(method, runtime, sync_batch_norm=False)
    if mode is not None:
        _make_fake(method, mode)
    batch_size = config.data.batch_size
    splits = splits_drawn(method)

    def batch_of(tensors: Sequence[Tensor], noise: Noise) -> Batch:
        return to_batch(*tensors, flips=noise if config.data.flip else None, dtype=runtime.dtype)

    with mode or nullcontext():
        iteration = Iteration(
            method,
            runtime,
            config.optimizer,
            config.train,
            dict.fromkeys(splits, batch_of),
            seed=config.seed,
            global_batch_size=batch_size,
        )
        inputs = [
            tensor.to(runtime.device)
            for number in range(len(splits))
            for tensor in made_up(shape, num_classes, batch_size, number)
        ]
    return Planned(iteration, inputs, mode)


def _make_fake(method: nn.Module, fake: FakeTensorMode) -> None:
    """Replace parameters and buffers by fakes: torch cannot change a fake module's memory format."""
    for module in method.modules():
        for name, parameter in module.named_parameters(recurse=False):
            replaced = fake.from_tensor(parameter.detach())
            setattr(module, name, nn.Parameter(replaced, requires_grad=parameter.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, fake.from_tensor(buffer))
