"""Laws 4 and 5: killed at an arbitrary step and resumed = never interrupted, bit for bit."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import torch

from tests.distributed.launching import (
    REPOSITORY,
    command,
    differing_tensors,
    environment,
    epochs_of,
    kill_job,
    metrics,
    train,
    write_config,
)
from tests.unit.methods.making import BEYOND

ITERATIONS = 24


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    return write_config(
        folder / "c.json",
        data={"num_workers": 1},
        method=BEYOND,
        train={
            "epochs": epochs_of(ITERATIONS),
            "checkpoint_every_steps": 5,
            # not a divisor of the checkpoints' cadence: loss sums must survive the kill
            "log_every_steps": 4,
            "sample_every_steps": 7,
            "ema_half_life_updates": 4.0,
            "ema_ramp_up": 0.5,
            "ema_networks": "all",
        },
    )


@pytest.fixture(scope="module")
def undisturbed(config: Path) -> Path:
    run_dir = config.parent / "undisturbed"
    train(2, run_dir, config)
    return run_dir


def kill_after(run_dir: Path, config: Path, num_processes: int, lines: int) -> None:
    """Start, wait for so many metric lines and a random moment more, then SIGKILL every process."""
    with subprocess.Popen(
        command(num_processes, run_dir, config),
        cwd=REPOSITORY,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        path, deadline = run_dir / "metrics.jsonl", time.monotonic() + 120
        while not path.is_file() or len(path.read_text().splitlines()) < lines:
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.3))
        kill_job(process)


def test_killed_and_resumed_equals_undisturbed(config: Path, undisturbed: Path) -> None:
    run_dir = config.parent / "killed"
    kill_after(run_dir, config, 2, lines=3)  # after step 12: beyond the checkpoint of step 10
    output = train(2, run_dir, config)
    assert "Resumed" in output
    assert differing_tensors(run_dir, undisturbed, ITERATIONS) == []
    assert metrics(run_dir) == metrics(undisturbed)


def test_resume_on_another_number_of_processes(config: Path, undisturbed: Path) -> None:
    """The same samples and noise; losses to float32's tolerance."""
    run_dir = config.parent / "elastic"
    train(2, run_dir, config, "--set", f"train.epochs={epochs_of(15)}")
    output = train(3, run_dir, config)
    assert "after 720 samples" in output
    for got, expected in zip(metrics(run_dir), metrics(undisturbed), strict=True):
        # float32 and Adam with beta1 = 0: rounding grows along the trajectory
        assert got == pytest.approx(expected, rel=0.1, abs=0.05)


def test_three_processes_too(tmp_path: Path) -> None:
    """A sum of three is rounded by the order in which it is made, and gloo's depends on where in a bucket."""
    config = write_config(tmp_path / "c.json", method={"gm_updates": 1}, train={"epochs": 6 * 24 / 10_000})
    train(3, tmp_path / "undisturbed", config)
    train(3, tmp_path / "stopped", config, "--set", f"train.epochs={3 * 24 / 10_000}")
    output = train(3, tmp_path / "stopped", config)
    assert "after 72 samples" in output
    assert differing_tensors(tmp_path / "stopped", tmp_path / "undisturbed", 6) == []
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "undisturbed")


def test_a_finished_run_does_nothing_more(config: Path, undisturbed: Path) -> None:
    before = metrics(undisturbed)
    output = train(2, undisturbed, config)
    assert f"Resumed {undisturbed}/checkpoints/step-{ITERATIONS:08d}" in output
    assert metrics(undisturbed) == before


def test_another_config_is_refused_by_key(config: Path, undisturbed: Path) -> None:
    output = train(1, undisturbed, config, "--set", "optimizer.beta2=0.99", "--set", "seed=4", check=False)
    assert "was started with another configuration: seed (0 -> 4); optimizer.beta2 (0.9 -> 0.99)" in output


def test_resume_choices(config: Path, undisturbed: Path) -> None:
    output = train(1, undisturbed, config, "--resume", "never", check=False)
    assert "--resume never was given, but" in output
    output = train(1, undisturbed, config, "--resume", "/nowhere", check=False)
    assert "error: --resume /nowhere: there is no complete checkpoint" in output


def test_setting_a_run_back(config: Path, undisturbed: Path) -> None:
    """A resume from an older step moves the later ones aside, and ends where the run ended."""
    run_dir = config.parent / "set_back"
    shutil.copytree(undisturbed, run_dir)
    older = run_dir / "checkpoints/step-00000015"
    output = train(2, run_dir, config, "--resume", str(older))
    assert f"Resumed {older}" in output
    names = sorted(path.name for path in (run_dir / "checkpoints").iterdir())
    assert names[:2] == ["abandoned-step-00000020", "abandoned-step-00000024"]
    assert differing_tensors(run_dir, undisturbed, ITERATIONS) == []
    foreign = train(1, run_dir, config, "--resume", str(undisturbed), check=False)
    assert "is another run's. Go on from its own with --resume auto" in foreign


def test_run_directory(undisturbed: Path) -> None:
    names = {path.name for path in undisturbed.iterdir()}
    assert {"config.json", "environment.json", "checkpoints", "samples", "metrics.jsonl"} <= names
    kept = sorted(path.name for path in (undisturbed / "checkpoints").iterdir())
    assert kept == ["step-00000015", "step-00000020", "step-00000024"]  # keep_checkpoints = 3
    images = sorted(path.name for path in (undisturbed / "samples").iterdir())
    names = ["step-00000001-swap.png", "step-00000001.png", "step-00000007-swap.png", "step-00000007.png"]
    assert images[:4] == names
    start = json.loads((undisturbed / "environment.json").read_text())[0]
    assert start["world_size"] == 2
    assert start["packages"]["torch"] == torch.__version__.split("+")[0]
