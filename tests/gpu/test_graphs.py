"""On a CUDA device: an iteration as a graph computes what the eager one computes, at one launch.

Two eager runs of the same iteration agree bit for bit with cuDNN's deterministic kernels, so the
tolerance here only allows for a kernel that is chosen differently while capturing.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
import torch.multiprocessing as mp
from torch.profiler import ProfilerActivity, profile

from dist_dsvae.config import OptimizerConfig, TrainConfig
from dist_dsvae.core import distributed
from dist_dsvae.data.feed import copied_ahead
from dist_dsvae.data.stream import Inputs
from dist_dsvae.engine.iteration.batch_norm import convert_sync_batch_norm
from dist_dsvae.engine.iteration.cuda_graph import Graphed
from dist_dsvae.engine.iteration.iteration import Iteration
from dist_dsvae.engine.processes.runtime import Runtime
from tests.distributed.launching import (
    REPOSITORY,
    environment,
    epochs_of,
    kill_job,
    metrics,
    ranks_of,
    train_anew,
    write_config,
)
from tests.unit.engine.making import make_inputs, make_iteration
from tests.unit.methods.making import make_method

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

TWO_GPUS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    yield
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


def make(precision: str = "no", **settings: object) -> Iteration:
    train = TrainConfig(mixed_precision=precision)
    return make_iteration(OptimizerConfig(clip_gradient_norm=1.0), train=train, **settings)


CASES = pytest.mark.parametrize(
    ("architecture", "unlabelled", "augmentation"),
    [("small32", 0, "off"), ("small", 2, "off"), ("small", 2, "on"), ("mlp2d", 0, "off")],
)
PRECISIONS = pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])


@PRECISIONS
@CASES
def test_three_iterations_graphed_equal_eager(
    architecture: str, unlabelled: int, augmentation: str, precision: str
) -> None:
    """Every weight, buffer, moment, sum, average and scale, each time from the same state."""
    settings = {"unlabelled_updates": unlabelled, "augmentation": augmentation}
    eager, captured = (make(architecture=architecture, precision=precision, **settings) for _ in range(2))
    graphed = Graphed(captured, captured.state)
    for number in range(3):
        inputs = make_inputs(eager, first=eager.num_samples * number, architecture=architecture)
        for iteration, run in ((eager, eager), (captured, graphed)):
            iteration.set_rates(number / 2, number)
            run(*inputs)
        for ours, theirs in zip(captured.state(), eager.state(), strict=True):
            torch.testing.assert_close(ours, theirs, **TOLERANCE)
            ours.detach().copy_(theirs)  # what rounding did is not carried on
    graphed.release()


@CASES
def test_200_iterations_graphed_learn_as_eager_ones(
    architecture: str, unlabelled: int, augmentation: str
) -> None:
    """Means of the losses over the last hundred: a kernel chosen differently only changes their rounding."""
    settings = {"unlabelled_updates": unlabelled, "augmentation": augmentation}
    means = {}
    for kind in ("eager", "graphed"):
        iteration = make(architecture=architecture, **settings)
        run = iteration if kind == "eager" else Graphed(iteration, iteration.state)
        for number in range(200):
            inputs = make_inputs(iteration, first=iteration.num_samples * number, architecture=architecture)
            iteration.set_rates(number / 50, number)
            run(*inputs)
            iteration.meter.num_iterations += 1
            if number == 99:
                iteration.meter.read()
        means[kind] = iteration.meter.read()
        iteration.guard.raise_if_tripped()
        if isinstance(run, Graphed):
            run.release()
    assert means["graphed"] == pytest.approx(means["eager"], rel=0.05, abs=0.02)


def test_one_launch_per_iteration() -> None:
    iteration = make()
    graphed = Graphed(iteration, iteration.state)
    inputs = make_inputs(iteration, first=0)
    graphed(*inputs)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        graphed(*inputs)
        torch.cuda.synchronize()
    launching = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")
    launches = [event.name for event in profiler.events() if event.name.startswith(launching)]
    assert len(launches) <= 4, launches
    assert any(name.startswith("cudaGraphLaunch") for name in launches)
    graphed.release()


def test_preparing_leaves_no_trace() -> None:
    iteration = make()
    before = [tensor.clone() for tensor in iteration.state()]
    random_state = torch.cuda.get_rng_state()
    graphed = Graphed(iteration, iteration.state)
    graphed.prepare(*make_inputs(iteration, first=0))
    for now, then in zip(iteration.state(), before, strict=True):
        assert torch.equal(now, then)
    assert torch.equal(torch.cuda.get_rng_state(), random_state)
    graphed.release()


def test_inputs_copied_ahead_arrive_unchanged() -> None:
    device = torch.device("cuda")
    host = [
        Inputs((torch.full((64, 64, 64, 3), i, dtype=torch.uint8), torch.tensor([i])), i) for i in range(9)
    ]
    arrived = list(copied_ahead(iter(host), device, 4))
    assert len(arrived) == 5  # the last four are still under way
    for i, inputs in enumerate(arrived):
        assert inputs.num_replaced == i
        assert all(tensor.is_cuda and bool((tensor == i).all()) for tensor in inputs.tensors)


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("source", ["stream", "resident"])
def test_a_run_with_graphs_equals_one_without(tmp_path: Path, precision: str, source: str) -> None:
    """The trainer's own set-up: data, schedules, average, sampling and a resume in between."""
    config = write_config(
        tmp_path / "c.json",
        data={"num_workers": 2, "source": source},
        train={
            "checkpoint_every_steps": 10,
            "sample_every_steps": 15,
            "ema_half_life_updates": 10.0,
            "ema_networks": "all",
            "mixed_precision": precision,
        },
    )
    lines = {}
    for setting in ("on", "off"):
        run_dir = tmp_path / setting
        arguments = ("--set", f"train.cuda_graph={setting}")
        for iterations in (20, 40):
            epochs = ("--set", f"train.epochs={epochs_of(iterations)}")
            output = train_anew(run_dir, config, *arguments, *epochs)
        assert "without CUDA graphs" not in output
        lines[setting] = metrics(run_dir)
    # no deterministic kernels here: rounding differs, and adversarial training amplifies it
    for graphed, eager in zip(lines["on"][:5], lines["off"][:5], strict=True):
        assert graphed == pytest.approx(eager, rel=2e-2, abs=1e-3)
    assert len(lines["on"]) == 40
    assert lines["on"][-1]["gm"] < lines["on"][0]["gm"]


def run_under_nccl(num_processes: int, config: Path, run_dir: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={num_processes}", "launch/train.py"]
    command += ["--config", str(config), "--run-dir", str(run_dir)]
    return subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=environment(with_gpus=True),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("num_processes", [1, pytest.param(2, marks=TWO_GPUS)])
def test_capture_under_nccl(tmp_path: Path, num_processes: int) -> None:
    """One process alone leaves the flat all-reduce and synchronised batch norm out; two have them."""
    config = write_config(tmp_path / "c.json", train={"cuda_graph": "on", "epochs": epochs_of(30)})
    job = run_under_nccl(num_processes, config, tmp_path / "run")
    output, _ = job.communicate(timeout=280)
    assert job.returncode == 0, output
    assert "without CUDA graphs" not in output
    assert len(metrics(tmp_path / "run")) == 30


class NotAlone(int):
    """1 as a number, but more than 1 to whoever asks whether collectives can be left out."""

    def __eq__(self, other: object) -> bool:
        return False

    def __gt__(self, other: int) -> bool:
        return True

    __hash__ = int.__hash__


def one_rank_with_every_collective(rank: int, port: int) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="1", LOCAL_WORLD_SIZE="1")
    os.environ.update(RANK="0", LOCAL_RANK="0")
    torch.backends.cudnn.deterministic = True
    Runtime(TrainConfig())  # the process group comes first: batch norm asks for it
    distributed.world_size = lambda: NotAlone(1)
    eager, captured = (make(method=convert_sync_batch_norm(make_method("small32"))) for _ in range(2))
    graphed = Graphed(captured, captured.state)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        eager(*make_inputs(eager, first=0))
    calls = [event.name for event in profiler.events()]
    assert calls.count("c10d::allreduce_") > 5, "flat all-reduces, and batch norm's backward"
    assert calls.count("c10d::_allgather_base_") > 5, "batch norm's forward"
    graphed(*make_inputs(captured, first=0))
    for ours, theirs in zip(captured.state(), eager.state(), strict=True):
        torch.testing.assert_close(ours, theirs, **TOLERANCE)
    graphed.release()
    torch.distributed.destroy_process_group()


def test_every_collective_can_be_captured() -> None:
    """Also those that one process alone would leave out, by NCCL among one rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(one_rank_with_every_collective, (port,), nprocs=1)


@TWO_GPUS
@pytest.mark.parametrize("setting", ["on", "off"])
@pytest.mark.parametrize("told_to_end", [False, True])
def test_a_missing_rank_is_named(tmp_path: Path, setting: str, told_to_end: bool) -> None:
    """Rank 1 is stopped; rank 0 says so after the timeout, or some seconds after SIGTERM."""
    seconds = 600 if told_to_end else 20
    settings = {"cuda_graph": setting, "epochs": 100.0, "collective_timeout_seconds": seconds}
    config = write_config(tmp_path / "c.json", train=settings)
    job = run_under_nccl(2, config, tmp_path / "run")
    try:
        deadline = time.monotonic() + 180
        log = tmp_path / "run/metrics.jsonl"
        while not log.exists() or log.read_bytes().count(b"\n") < 20:
            assert job.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        ranks = {p.environ()["RANK"]: p for p in ranks_of(psutil.Process(job.pid))}
        ranks["1"].suspend()
        if told_to_end:
            time.sleep(2)
            ranks["0"].send_signal(signal.SIGTERM)
        ranks["0"].wait(60)
        ranks["1"].kill()
        output, _ = job.communicate(timeout=60)
        assert "Rank 0 waited in vain for the others" in output
        assert f"rank 1 (process {ranks['1'].pid} on" in output
    finally:
        kill_job(job)
