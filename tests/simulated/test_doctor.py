"""The doctor's checks of a GPU on the simulated one: what works is found to work, and faults are found."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dist_dsvae.config import TrainConfig
from dist_dsvae.engine.doctor import machine, trial
from dist_dsvae.engine.doctor.examination import examine
from dist_dsvae.engine.doctor.finding import Finding, State
from dist_dsvae.engine.doctor.trial import Trial
from dist_dsvae.engine.iteration.guard import Guard
from dist_dsvae.engine.iteration.iteration import Iteration
from dist_dsvae.engine.processes.runtime import Runtime
from tests.simulated.cuda import simulated_cuda
from tests.unit.engine.making import make_inputs, make_iteration


def make_trial(runtime: Runtime) -> Trial:
    config = TrainConfig(mixed_precision=runtime.mixed_precision)
    iteration = make_iteration(train=config, architecture="mlp2d")
    return Trial(iteration, make_inputs(iteration, first=0, architecture="mlp2d"))


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_graph_that_equals_eager(precision: str) -> None:
    with simulated_cuda() as device:
        finding = trial.graph(Runtime(TrainConfig(mixed_precision=precision)), make_trial)
        assert device.num_replays > 3
    assert finding.state is State.OK, finding.text
    assert "equal to eager over 3 iterations" in finding.text


def test_a_graph_that_froze_a_number_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    run_iteration = Iteration.__call__

    def with_a_counter(self: Iteration, *inputs: Tensor) -> None:
        self.calls = getattr(self, "calls", 0) + 1
        run_iteration(self, *inputs)
        with torch.no_grad():
            next(self.method.parameters()).add_(0.01 * self.calls)

    monkeypatch.setattr(Iteration, "__call__", with_a_counter)
    with simulated_cuda():
        finding = trial.graph(Runtime(TrainConfig()), make_trial)
    assert finding.state is State.FAILED
    assert "tensors of the training state differ" in finding.text
    assert finding.remedy is not None
    assert "train.cuda_graph=off" in finding.remedy


def test_a_capture_that_fails_ends_the_examination(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Guard.record

    def read_on_the_host(self: Guard, bad_anywhere: Tensor) -> None:
        if not torch.isnan(bad_anywhere).item():
            record(self, bad_anywhere)

    monkeypatch.setattr(Guard, "record", read_on_the_host)
    said: list[Finding] = []
    with simulated_cuda():
        examine(said.append, make_trial, disk_directory=Path(), only=("iteration", "graph"))
    assert [(f.name, f.state) for f in said] == [
        ("processes", State.OK),
        ("iteration", State.OK),
        ("graph", State.FAILED),
    ]
    assert "could not be captured" in said[-1].text
    assert said[-1].remedy is not None
    assert "train.cuda_graph=off" in said[-1].remedy


def test_copies_and_the_gpu_itself() -> None:
    with simulated_cuda():
        copies = trial.pinned_copies(Runtime(TrainConfig()))
        gpus = machine.gpus()
    assert copies.figures.keys() == {"pinned_gb_per_second", "pageable_gb_per_second"}
    assert min(copies.figures.values()) > 0
    assert gpus.state is State.OK
    assert "8 GPUs, 0 is simulated, 16 GiB" in gpus.text


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "8")
    with simulated_cuda():
        finding = machine.gpus()
    assert finding.state is State.FAILED
    assert "process 8 of this machine has no GPU of its own: there are 8" in finding.text
