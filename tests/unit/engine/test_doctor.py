"""The doctor: what is as it should be is found so, and what is wrong is named with its remedy."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dist_dsvae.config import TrainConfig
from dist_dsvae.engine.doctor import disk, examination, machine, packages, together, trial
from dist_dsvae.engine.doctor.examination import examine, worth_saying
from dist_dsvae.engine.doctor.finding import Finding, State, failed, found_by, ok, skipped, warning
from dist_dsvae.engine.doctor.findings_report import Findings, line_of
from dist_dsvae.engine.doctor.trial import Trial
from dist_dsvae.engine.processes.runtime import Runtime
from tests.unit.engine.making import make_inputs, make_iteration

REPOSITORY = Path(__file__).parents[3]


def make_trial(runtime: Runtime) -> Trial:
    iteration = make_iteration()
    return Trial(iteration, make_inputs(iteration, first=0))


def assert_wrong(finding: Finding, state: State, text: str, remedy: str) -> None:
    assert finding.state is state
    assert text in finding.text
    assert finding.remedy is not None
    assert remedy in finding.remedy


# Packages


def test_the_supported_versions_are_those_of_the_project() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert [f"{name}{bounds}" for name, bounds in packages.SUPPORTED.items()] == project["dependencies"]
    assert project["requires-python"] == f">={packages.PYTHON[0]}.{packages.PYTHON[1]}"


def test_versions_here() -> None:
    assert packages.missing() == []
    assert packages.versions().figures["torch"] == torch.__version__.partition("+")[0]


@pytest.mark.parametrize(
    ("version", "bounds", "too_low", "too_high"),
    [
        ("2.11.0+cu130", ">=2.11", False, False),
        ("2.9.1", ">=2.11", True, False),
        ("2.11", ">=2.11.0", False, False),
        ("1.9", ">=1.10,<2", True, False),
        ("2.0.0rc1", ">=1.10,<2", False, True),
    ],
)
def test_bounds(version: str, bounds: str, too_low: bool, too_high: bool) -> None:
    assert (packages.below(version, bounds), packages.beyond(version, bounds)) == (too_low, too_high)


@pytest.mark.parametrize(
    ("name", "version", "state", "text"),
    [
        ("webdataset", None, State.FAILED, "webdataset is not installed"),
        (
            "simplejpeg",
            None,
            State.WARNING,
            "simplejpeg is not installed, so Pillow decodes JPEGs, more slow",
        ),
        ("tensorboard", None, State.WARNING, "tensorboard is not installed, so there are no curves for"),
        ("torch", "2.9.1", State.FAILED, "torch 2.9.1 is too old (>=2.11)"),
        ("accelerate", "2.1", State.WARNING, "accelerate 2.1 is newer than any that was tried"),
    ],
)
def test_a_package_that_is_not_supported(name: str, version: str | None, state: State, text: str) -> None:
    found = dict.fromkeys(packages.SUPPORTED, "99") | {
        "accelerate": "1.15.0",
        "webdataset": "1.0.2",
        "huggingface_hub": "2.4.0",
    }
    assert packages.judged(found, (3, 12)).state is State.OK
    remedy = f'pip install "{name}{packages.SUPPORTED[name]}"'
    assert_wrong(packages.judged(found | {name: version}, (3, 12)), state, text, remedy)


def test_an_old_python() -> None:
    assert_wrong(packages.judged({}, (3, 10)), State.FAILED, "Python is 3.10, but 3.11", "newer Python")


# The machine


@pytest.mark.parametrize(
    ("driver", "built_for", "visible", "state", "remedy"),
    [
        (None, "13.0", None, State.SKIPPED, None),
        ("580.1", "13.0", "", State.WARNING, "unset CUDA_VISIBLE_DEVICES"),
        ("580.1", None, None, State.FAILED, "Install a torch with CUDA"),
        ("470.1", "13.0", None, State.FAILED, "Update the driver"),
    ],
)
def test_no_gpu(
    driver: str | None, built_for: str | None, visible: str | None, state: State, remedy: str | None
) -> None:
    finding = machine.no_gpu(driver, built_for, visible)
    assert finding.state is state
    assert (remedy or "") in (finding.remedy or "")


def test_little_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=64 * 2**20))
    assert_wrong(machine.shared_memory(tmp_path), State.WARNING, "64 MiB free", "--shm-size=8g")
    assert machine.shared_memory(tmp_path / "none").state is State.SKIPPED


def test_few_file_descriptors() -> None:
    assert_wrong(machine.file_descriptors(1024), State.WARNING, "may open 1024 files", "ulimit -n")
    assert machine.file_descriptors(2**16).state is State.OK


SLURM = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_CPUS_PER_TASK": "8", "SLURM_GPUS_ON_NODE": "4"}


def test_slurm() -> None:
    assert machine.slurm({}).state is State.SKIPPED
    assert machine.slurm(SLURM, num_gpus=4).state is State.OK
    alone = SLURM | {"SLURM_STEP_ID": "0"}
    assert_wrong(machine.slurm(alone, num_gpus=4), State.FAILED, "each of which", "train.sbatch")
    assert machine.slurm(alone | {"WORLD_SIZE": "8"}, num_gpus=4).state is State.OK
    assert_wrong(machine.slurm(SLURM, num_gpus=1), State.WARNING, "torch sees 1", "nvidia-smi")
    few = {key: value for key, value in SLURM.items() if key != "SLURM_CPUS_PER_TASK"}
    assert_wrong(machine.slurm(few, num_gpus=4), State.WARNING, "no --cpus-per-task", "Add --cpus-per-task")


def test_disk(tmp_path: Path) -> None:
    finding = disk.disk(tmp_path)
    assert finding.figures["write_mib_per_second"] > 0
    assert finding.figures["fsync_ms"] > 0
    assert list(tmp_path.iterdir()) == []
    assert_wrong(disk.disk(tmp_path / "none"), State.FAILED, "is no folder", "mkdir -p")
    assert_wrong(disk.judged(tmp_path, 2**30, 500, 1e-3), State.WARNING, "1.0 GiB free", "Make room")
    assert_wrong(disk.judged(tmp_path, 2**40, 500, 0.5), State.WARNING, "500.0 ms", "faster disk")
    assert disk.judged(tmp_path, 2**40, 500, 1e-3).state is State.OK


# What processes do together


def test_clocks_and_collectives_are_judged() -> None:
    assert together.judged_clocks(0.01).state is State.OK
    assert_wrong(together.judged_clocks(60), State.WARNING, "60000.0 ms", "chronyd")
    assert together.judged_collectives("nccl", 8, 3e-5, 4e-5, 200.0).state is State.OK
    slow = together.judged_collectives("nccl", 8, 3e-5, 4e-5, 0.1)
    assert_wrong(slow, State.WARNING, "0.10 GB/s", "NCCL_SOCKET_IFNAME")
    late = together.judged_collectives("gloo", 2, 0.5, 4e-5, 1.0)
    assert_wrong(late, State.WARNING, "500000 us", "GLOO_SOCKET_IFNAME")


# The iteration


def test_bf16_rounds_and_agrees() -> None:
    finding = trial.bf16(Runtime(TrainConfig()), make_trial)
    assert finding.state is State.OK
    # 8 bits of mantissa: a step of 2^-8 at each layer, and never none at all
    assert 1e-5 < finding.figures["loss_difference"] < 0.1
    assert 0.95 < finding.figures["gradient_cosine"] < 0.99999


@pytest.mark.parametrize("cosine", [0.5, math.nan])
def test_bf16_that_computes_something_else(cosine: float) -> None:
    assert_wrong(trial.judged_bf16(0.3, cosine), State.WARNING, "cosine of", "--mixed_precision no")


def test_an_iteration_without_finite_losses() -> None:
    def broken(runtime: Runtime) -> Trial:
        made = make_trial(runtime)
        with torch.no_grad():
            next(made.iteration.method.get_submodule("decoder").parameters()).fill_(math.nan)
        return made

    finding = found_by("iteration", lambda: trial.iteration(Runtime(TrainConfig()), broken), "Do this.")
    assert_wrong(finding, State.FAILED, "became infinite or NaN", "Do this.")
    assert trial.iteration(Runtime(TrainConfig()), make_trial).state is State.OK


# The examination


def test_what_fails_for_all_ends_the_examination(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def break_down(*_: object) -> Finding:
        raise RuntimeError("an operator broke down\nand more")

    monkeypatch.setattr(examination.trial, "bf16", break_down)
    said: list[Finding] = []
    only = ("disk", "bf16", "iteration")
    nowhere = tmp_path / "none"
    examine(said.append, make_trial, disk_directory=nowhere, mixed_precision="no", only=only)
    by_name = {finding.name: finding for finding in said}
    assert list(by_name) == ["disk", "processes", "bf16", "iteration"]
    assert_wrong(by_name["disk"], State.FAILED, "is no folder", "mkdir")
    assert_wrong(by_name["bf16"], State.FAILED, "an operator broke down", "--mixed_precision no")
    assert by_name["iteration"].state is State.SKIPPED
    assert "left out, because bf16 failed" in by_name["iteration"].text


def test_a_process_without_a_gpu_says_so_before_it_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first process cannot say it: this one does not join."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "3")
    said: list[Finding] = []
    only = ("host", "gpus", "iteration")
    assert not examine(said.append, make_trial, disk_directory=tmp_path, mixed_precision="no", only=only)
    assert [finding.name for finding in said] == ["gpus", "processes"]
    assert_wrong(
        said[0], State.FAILED, "process 3 of this machine has no GPU", "Start at most 1 processes here"
    )
    assert_wrong(said[1], State.FAILED, "Process 3 of this machine has no GPU", "docs/clusters.md")


def test_other_ranks_are_heard_where_something_is_wrong() -> None:
    others = [ok("disk", "fast"), warning("disk", "slow", "buy"), warning("disk", "slow", "buy")]
    assert worth_saying([ok("disk", "fast"), *others]) == [ok("disk", "fast"), others[1]]
    (first, second) = worth_saying([ok("versions", "a", torch="2.14"), ok("versions", "b", torch="2.11")])
    assert first.state is State.OK
    assert_wrong(second, State.WARNING, "torch is 2.11 here and 2.14 at rank 0", "same environment")


@pytest.mark.parametrize(
    ("findings", "state", "verdict"),
    [
        ([ok("a", "x"), skipped("b", "y")], "ok", "Fit to train: 1 ok, 1 skipped."),
        ([ok("a", "x"), warning("b", "y", "z")], "warning", "Fit to train, with warnings: 1 ok, 1 warning."),
        ([failed("a", "x", "z"), warning("b", "y", "z")], "failed", "Not fit to train: 1 warning, 1 failed."),
    ],
)
def test_report(findings: list[Finding], state: str, verdict: str) -> None:
    stream = io.StringIO()
    report = Findings(stream)
    for finding in findings:
        report.add(finding)
    report.conclude()
    lines = stream.getvalue().splitlines()
    assert lines[-1] == verdict
    assert ("         -> z" in lines) == (state != "ok")
    document = json.loads(report.as_json(1.0))
    assert document["state"] == state
    assert [found["state"] for found in document["findings"]] == [str(f.state) for f in findings]


def test_another_rank_is_named() -> None:
    finding = Finding(name="disk", state=State.OK, text="fast", rank=3, host="node-7")
    assert line_of(finding) == "ok       disk [rank 3 on node-7]: fast"


# The command


def run(*arguments: str, python: tuple[str, ...] = ()) -> tuple[int, dict[str, Any], str]:
    dropped = ("WORLD_SIZE", "RANK", "LOCAL_RANK")
    environment = {key: value for key, value in os.environ.items() if key not in dropped}
    done = subprocess.run(
        [sys.executable, *python, "launch/doctor.py", "--json", *arguments],
        cwd=REPOSITORY,
        env=environment | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_the_command_reports_a_failed_check_with_its_remedy(tmp_path: Path) -> None:
    code, document, lines = run("--disk", str(tmp_path / "none"))
    assert code == 1
    assert document["state"] == "failed"
    assert document["seconds"] < 60
    by_name = {finding["name"]: finding for finding in document["findings"]}
    assert by_name.keys() == {*examination.NAMES, "processes"}
    assert by_name["disk"]["remedy"].startswith("mkdir -p ")
    assert by_name["iteration"]["state"] == "ok"
    assert "CUDA device" in by_name["graph"]["text"]
    assert "failed   disk: " in lines
    assert "Not fit to train: " in lines


def test_the_command_without_any_package() -> None:
    code, document, lines = run(python=("-S",))  # no site-packages
    assert code == 1
    (finding,) = document["findings"]
    assert "torch is not installed" in finding["text"]
    assert '"torch>=2.11"' in finding["remedy"]
    assert "Traceback" not in lines
