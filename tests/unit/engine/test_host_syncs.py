"""Law 8: between two log ticks no step reads a tensor on the host."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dist_dsvae.config import OptimizerConfig, TrainConfig
from dist_dsvae.engine.ema import ExponentialMovingAverage
from dist_dsvae.engine.gm_step import FlatStep
from dist_dsvae.engine.guard import Guard
from dist_dsvae.engine.joint_step import OverlappedStep
from dist_dsvae.engine.optimizer import StepOptimizer
from dist_dsvae.engine.runtime import Runtime
from dist_dsvae.engine.telemetry import LossMeter
from tests.unit.methods.making import SHAPES, make_batch, make_method, noise_for


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
def test_steps_do_not_read(clip: float) -> None:
    method = make_method("small32")
    runtime = Runtime(TrainConfig(double_precision=True))
    guard, meter = Guard(runtime.device), LossMeter(method.steps, runtime.device)
    average = ExponentialMovingAverage(method.decoder, 100.0)
    config = OptimizerConfig(clip_gradient_norm=clip)
    batch = make_batch(SHAPES["small32"])
    with NoHostReads():
        for step in method.steps:
            optimizer = StepOptimizer(config, method.parameter_groups(step))
            common = (step, optimizer, guard, runtime)
            run = FlatStep(method, *common) if step.name == "gm" else OverlappedStep(method, method, *common)
            meter.add(step.name, run(batch, noise_for(batch), 0.0))
        average.update(6)
    assert meter.read()["kl"] > 0
