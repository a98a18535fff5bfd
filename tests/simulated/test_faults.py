"""The simulated device finds what would go wrong on a GPU: faults are put in, and have to be caught."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from dist_dsvae.config import OptimizerConfig, TrainConfig
from dist_dsvae.core import noise
from dist_dsvae.core.noise import Noise
from dist_dsvae.engine.iteration import optimizer
from dist_dsvae.engine.iteration.cuda_graph import CaptureError, Graphed
from dist_dsvae.engine.iteration.ema import ExponentialMovingAverage
from dist_dsvae.engine.iteration.guard import Guard
from dist_dsvae.engine.iteration.iteration import Iteration
from dist_dsvae.engine.iteration.optimizer import UpdateOptimizer
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.engine.reporting.telemetry import LossMeter
from dist_dsvae.methods.update import weights_of
from tests.simulated.comparing import compare
from tests.simulated.cuda import simulated_cuda
from tests.simulated.memory import DeviceError
from tests.unit.engine.making import make_iteration
from tests.unit.methods.making import BEYOND

run_iteration = Iteration.__call__


def numbers_of_the_host(self: Noise, draw: int, size: int) -> Tensor:
    key = noise.hash_words(self.seed, int(draw), self.positions)
    bits = noise.hash_words(key[:, None], torch.arange(size, dtype=torch.int64))
    return noise.normal(noise.top_bits(bits)).to(self.dtype)


def a_decision_on_the_host(self: Guard, bad_anywhere: Tensor) -> None:
    if torch.isnan(bad_anywhere):
        self.tripped.fill_(1.0)


def a_number_of_the_host(self: Guard, bad_anywhere: Tensor) -> None:
    self.tripped.copy_(torch.maximum(self.tripped * torch.tensor(1.0), torch.isnan(bad_anywhere).float()))


def a_mask(self: LossMeter, step: str, values: Tensor) -> None:
    finite = torch.isfinite(values)
    self.sums[step][finite] += values[finite]


def a_constant_copied_anew(self: LossMeter, step: str, values: Tensor) -> None:
    self.sums[step] += values * torch.tensor([1.0] * len(values), device=values.device)


def rates_in_python(self: UpdateOptimizer, epoch: float) -> None:
    for group in self.adam.param_groups:
        group["lr"] = optimizer.learning_rate(self.config, epoch, variances=group["name"] == "variances")


def rates_in_new_tensors(self: UpdateOptimizer, epoch: float) -> None:
    for group in self.adam.param_groups:
        rate = optimizer.learning_rate(self.config, epoch, variances=group["name"] == "variances")
        group["lr"] = torch.full_like(group["lr"], rate)


@torch.no_grad()
def an_average_in_new_tensors(self: ExponentialMovingAverage) -> None:
    for name, live in weights_of(self.method, self.networks).items():
        self.averaged[name] = torch.lerp(self.averaged[name], live, 0.5) if live.is_floating_point() else live


def a_counter_in_python(self: Iteration, *inputs: Tensor) -> None:
    self.count = getattr(self, "count", 0) + 1
    run_iteration(self, *inputs)
    self.meter.sums["joint"].mul_(self.count)


class FirstBatchForEver(Graphed):
    def __call__(self, *inputs: Tensor) -> None:
        replay = self.replay or self.prepare(*inputs)
        replay()


class InputsLetGo(Graphed):
    def prepare(self, *inputs: Tensor) -> Callable[[], None]:
        replay = super().prepare(*inputs)
        self.inputs = tuple(tensor.clone() for tensor in self.inputs)
        return replay


def statistics_not_restored(iteration: Iteration) -> Graphed:
    buffers = {buffer.data_ptr() for buffer in iteration.method.buffers()}
    return Graphed(iteration, lambda: (t for t in iteration.state() if t.data_ptr() not in buffers))


class Fault(NamedTuple):
    """owner.name is exchanged for ``broken``. caught: what shows it: an error, or "differs"."""

    owner: Any
    name: str
    broken: Callable[..., Any]
    caught: str


FAULTS = {
    "a tensor made on the host": Fault(Noise, "normal", numbers_of_the_host, "same device"),
    "a decision on the host": Fault(Guard, "record", a_decision_on_the_host, "_local_scalar_dense"),
    "a number of the host in a kernel": Fault(Guard, "record", a_number_of_the_host, "a number of the host"),
    "a size that depends on values": Fault(LossMeter, "add", a_mask, "by a mask"),
    "a constant copied anew": Fault(LossMeter, "add", a_constant_copied_anew, r"tensor \(transfer\)"),
    "learning rates in Python": Fault(UpdateOptimizer, "set_rates", rates_in_python, "differs"),
    "learning rates in new tensors": Fault(UpdateOptimizer, "set_rates", rates_in_new_tensors, "freed"),
    "an average in new tensors": Fault(
        ExponentialMovingAverage, "update", an_average_in_new_tensors, "freed"
    ),
    "a counter in Python": Fault(Iteration, "__call__", a_counter_in_python, "differs"),
    "the loss scale forgotten": Fault(Runtime, "scale_state", lambda self: iter(()), "differs"),
}
# A graph that is wrong of an iteration that is right, and what shows it
WRONG_GRAPHS: dict[str, tuple[Callable[[Iteration], Graphed], str]] = {
    "batches not copied into the graph's": (lambda made: FirstBatchForEver(made, made.state), "differs"),
    "the graph's inputs let go": (lambda made: InputsLetGo(made, made.state), "freed"),
    "warm-up leaves a trace": (lambda made: Graphed(made, lambda: []), "differs"),
    "warm-up moves batch norm's statistics": (statistics_not_restored, "differs"),
}


def make(name: str) -> tuple[Callable[[], Iteration], str]:
    """An iteration that shows the fault, as small as can be."""
    config = OptimizerConfig(decay_epochs=4.0)
    if "loss scale" in name:
        fp16 = TrainConfig(mixed_precision="fp16")
        return lambda: make_iteration(config, architecture="mlp2d", train=fp16), "mlp2d"
    if "statistics" in name:
        return lambda: make_iteration(config), "small32"
    return lambda: make_iteration(config, architecture="mlp2d", **BEYOND), "mlp2d"


def is_caught(caught: str, name: str, **options: Any) -> bool:
    iteration, architecture = make(name)
    with simulated_cuda() as device:
        if caught == "differs":
            return bool(compare(device, iteration, architecture, **options).differing)
        with pytest.raises((DeviceError, CaptureError), match=caught):
            compare(device, iteration, architecture, **options)
        return True


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = FAULTS[name]
    monkeypatch.setattr(fault.owner, fault.name, fault.broken)
    assert is_caught(fault.caught, name)


@pytest.mark.parametrize("name", WRONG_GRAPHS)
def test_a_wrong_graph_is_caught(name: str) -> None:
    graph, caught = WRONG_GRAPHS[name]
    assert is_caught(caught, name, graph=graph)


# What happens between iterations, on streams and in pinned memory


def pinned_and_moving() -> tuple[Tensor, Tensor]:
    """A pinned tensor of ones, and its copy on the device, which is still under way."""
    host = torch.ones(4).pin_memory()
    with torch.cuda.stream(torch.cuda.Stream()):
        return host, host.to("cuda", non_blocking=True)


def test_a_copy_for_which_no_stream_waited() -> None:
    with simulated_cuda():
        _, moving = pinned_and_moving()
        with pytest.raises(DeviceError, match="add reads what a copy has yet to bring"):
            moving + 1


def test_a_pinned_buffer_overwritten_too_early() -> None:
    with simulated_cuda():
        host, _ = pinned_and_moving()
        with pytest.raises(DeviceError, match="fill_ changes what a copy still reads"):
            host.fill_(2.0)


def test_a_pinned_buffer_read_too_early() -> None:
    with simulated_cuda():
        there = torch.ones(4, device="cuda")
        here = torch.empty_like(there, device="cpu", pin_memory=True).copy_(there, non_blocking=True)
        with pytest.raises(DeviceError, match="reads what a copy has yet to bring"):
            here.sum()
        event = torch.cuda.Event()
        event.record()
        assert event.query()
        assert here.sum().item() == 4.0


def test_a_copy_that_was_waited_for() -> None:
    with simulated_cuda() as device:
        copying = torch.cuda.Stream()
        host = torch.ones(4).pin_memory()
        with torch.cuda.stream(copying):
            moving = host.to("cuda", non_blocking=True)
            copied = copying.record_event()
        torch.cuda.current_stream().wait_event(copied)
        assert device.log == []
        assert (moving + 1).tolist() == [2.0] * 4
        assert [wait.kind for wait in device.log] == ["sync"]


def test_a_graph_does_not_wait_for_other_streams_either() -> None:
    with simulated_cuda():
        torch.cuda.set_stream(torch.cuda.Stream())
        graphed = Graphed(lambda x: x.mul_(2), lambda: [])
        replay = graphed.prepare(torch.ones(4, device="cuda"))
        host = torch.ones(4).pin_memory()
        with torch.cuda.stream(torch.cuda.Stream()):
            graphed.inputs[0].copy_(host, non_blocking=True)
        with pytest.raises(DeviceError, match="a graph reads what a copy has yet to bring"):
            replay()


@pytest.mark.parametrize("side", ["cuda", "cpu"])
def test_devices_are_told_apart(side: str) -> None:
    with simulated_cuda() as device:
        x = torch.zeros(2, 3, device=side)
        kin: Sequence[Tensor] = (x.T, x[0], x + 1, torch.ones_like(x), x.new_zeros(2), x.to(torch.float64))
        assert {tensor.device.type for tensor in kin} == {side}
        assert x.to("cpu").device.type == "cpu"
        assert x.cuda().is_cuda
        assert len(device.log) == 1  # the one that had to travel
