"""On a CUDA device: an iteration as a graph computes what the eager one computes, at one launch.

Two eager runs of the same iteration agree bit for bit with cuDNN's deterministic kernels, so the
tolerance here only allows for a kernel that is chosen differently while capturing.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from dist_dsvae.config import OptimizerConfig, TrainConfig
from dist_dsvae.data.feed import copied_ahead
from dist_dsvae.data.stream import Inputs
from dist_dsvae.engine.cuda_graph import Graphed
from dist_dsvae.engine.iteration import Iteration
from tests.distributed.launching import REPOSITORY, environment, epochs_of, metrics, train, write_config
from tests.unit.engine.making import make_inputs, make_iteration

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    yield
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


def make(**settings: object) -> Iteration:
    return make_iteration(
        OptimizerConfig(clip_gradient_norm=1.0), train=TrainConfig(mixed_precision="no"), **settings
    )


@pytest.mark.parametrize(
    ("architecture", "unlabelled", "augmentation"),
    [("small32", 0, "off"), ("small", 2, "off"), ("small", 2, "on"), ("mlp2d", 0, "off")],
)
def test_200_iterations_graphed_equal_eager(architecture: str, unlabelled: int, augmentation: str) -> None:
    """Every tenth iteration's losses, then every weight, buffer, moment, sum and average."""
    settings = {"unlabelled_steps": unlabelled, "augmentation": augmentation}
    eager, captured = (make(architecture=architecture, **settings) for _ in range(2))
    graphed = Graphed(captured, captured.state)
    for number in range(200):
        inputs = make_inputs(eager, first=eager.num_samples * number, architecture=architecture)
        for iteration, run in ((eager, eager), (captured, graphed)):
            iteration.set_rates(number / 50, number)
            run(*inputs)
            iteration.meter.num_iterations += 1
        if number % 10 == 9:
            expected = eager.meter.read()
            got = captured.meter.read()
            assert got == pytest.approx(expected, rel=1e-5, abs=1e-6), f"after {number + 1} iterations"
    for ours, theirs in zip(captured.state(), eager.state(), strict=True):
        torch.testing.assert_close(ours, theirs, **TOLERANCE)
    graphed.release()


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
    graphed._prepare(tuple(make_inputs(iteration, first=0)))
    assert graphed.is_graphed
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
        train(1, run_dir, config, *arguments, "--set", f"train.epochs={epochs_of(20)}")
        output = train(1, run_dir, config, *arguments, "--set", f"train.epochs={epochs_of(40)}")
        assert "without CUDA graphs" not in output
        lines[setting] = metrics(run_dir)
    # no deterministic kernels here: rounding differs, and adversarial training amplifies it
    for graphed, eager in zip(lines["on"][:5], lines["off"][:5], strict=True):
        assert graphed == pytest.approx(eager, rel=2e-2, abs=1e-3)
    assert len(lines["on"]) == 40
    assert lines["on"][-1]["gm"] < lines["on"][0]["gm"]


def test_capture_under_nccl(tmp_path: Path) -> None:
    """One process is enough to have NCCL's collectives and DistributedDataParallel in the graph."""
    config = write_config(tmp_path / "c.json", train={"cuda_graph": "on", "epochs": epochs_of(30)})
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
    command += ["launch/train.py", "--config", str(config), "--run-dir", str(tmp_path / "run")]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "without CUDA graphs" not in done.stdout + done.stderr
    assert len(metrics(tmp_path / "run")) == 30


def test_fp16_goes_on_eagerly_with_one_warning(tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.json", train={"epochs": epochs_of(5)})
    output = train(1, tmp_path / "run", config, "--mixed_precision", "fp16")
    assert output.count("training without CUDA graphs") == 1
