"""Law 8: between two log ticks no step reads a tensor on the host."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dist_dsvae.config import OptimizerConfig
from tests.unit.engine.making import make_inputs, make_iteration
from tests.unit.methods.making import BEYOND


class NoHostReads(TorchDispatchMode):
    """Raises where a value would have to travel from the device to the host."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal.default")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if any(name in str(func) for name in self.FORBIDDEN):
            raise AssertionError(f"{func} reads a tensor on the host")
        return func(*args, **(kwargs or {}))


def test_the_test_can_fail() -> None:
    with NoHostReads(), pytest.raises(AssertionError, match="reads a tensor on the host"):
        torch.ones(3).sum().item()


@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize(("flip", "settings"), [(False, {}), (True, BEYOND | {"augmentation": "on"})])
def test_an_iteration_does_not_read(clip: float, flip: bool, settings: dict[str, object]) -> None:
    config = OptimizerConfig(clip_gradient_norm=clip)
    iteration = make_iteration(config, flip=flip, unlabelled_updates=1, **settings)
    inputs = make_inputs(iteration, first=0)
    with NoHostReads():
        iteration(*inputs)
        iteration.set_rates(3.0, 7)
        iteration(*inputs)
    iteration.meter.num_iterations = 2
    assert iteration.meter.read()["kl"] > 0
