"""A request to stop is agreed, saved and left; a silent rank is named (2 processes, the real thing)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.distributed.launching import (
    REPOSITORY,
    command,
    differing_tensors,
    environment,
    epochs_of,
    kill_job,
    metrics,
    ranks_of,
    train,
    write_config,
)

ITERATIONS = 60


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(
        tmp_path_factory.mktemp("preemption") / "c.json",
        data={"num_workers": 1},
        train={"epochs": epochs_of(ITERATIONS), "evaluate_at_end": False, "collective_timeout_seconds": 60},
    )


@pytest.fixture(scope="module")
def undisturbed(config: Path) -> Path:
    run_dir = config.parent / "undisturbed"
    train(2, run_dir, config)
    return run_dir


class Job:
    """`accelerate launch` with two ranks, its output in a file."""

    def __init__(self, run_dir: Path, config: Path, *arguments: str) -> None:
        self.run_dir = run_dir
        self._log = run_dir.parent / f"{run_dir.name}.log"
        with self._log.open("wb") as log:
            start = command(2, run_dir, config, *arguments)
            self.launcher = subprocess.Popen(start, cwd=REPOSITORY, env=environment(), stdout=log, stderr=log)

    def wait_for_lines(self, count: int) -> None:
        log = self.run_dir / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while not log.exists() or log.read_bytes().count(b"\n") < count:
            assert self.launcher.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.02)

    def ranks(self) -> list[psutil.Process]:
        """In the order of their ranks."""
        found = ranks_of(psutil.Process(self.launcher.pid))
        return sorted(found, key=lambda process: int(process.environ()["RANK"]))

    def output(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        kill_job(self.launcher)


def assert_saved(run_dir: Path, reason: str) -> None:
    """The run has left word of what stopped it, and the checkpoint of that step."""
    stopped = json.loads((run_dir / "stopped-early.json").read_text())
    assert stopped["reason"] == reason
    assert (run_dir / f"checkpoints/step-{stopped['step']:08d}").is_dir()


@pytest.fixture
def jobs() -> Iterator[list[Job]]:
    started: list[Job] = []
    yield started
    for job in started:
        job.kill()


def test_one_rank_s_sigterm_stops_all_after_the_same_iteration(
    config: Path, undisturbed: Path, tmp_path: Path, jobs: list[Job]
) -> None:
    """Twice stopped, by a signal to one rank and by the file; then as if it had never been."""
    run_dir = tmp_path / "run"
    jobs.append(Job(run_dir, config))
    jobs[-1].wait_for_lines(5)
    jobs[-1].ranks()[1].send_signal(signal.SIGTERM)
    assert jobs[-1].launcher.wait(60) == 0, jobs[-1].output()
    first = json.loads((run_dir / "stopped-early.json").read_text())
    assert first["reason"] == "SIGTERM"
    assert 5 <= first["step"] < ITERATIONS
    assert (run_dir / f"checkpoints/step-{first['step']:08d}").is_dir()
    assert f"Stopped by SIGTERM at step {first['step']}" in jobs[-1].output()

    jobs.append(Job(run_dir, config))
    jobs[-1].wait_for_lines(first["step"] + 3)
    assert not (run_dir / "stopped-early.json").exists()
    (run_dir / "stop-request").touch()
    assert jobs[-1].launcher.wait(60) == 0, jobs[-1].output()
    second = json.loads((run_dir / "stopped-early.json").read_text())
    assert second["reason"] == "stop-request"
    assert second["step"] > first["step"]
    assert not (run_dir / "stop-request").exists()

    train(2, run_dir, config)
    assert metrics(run_dir) == metrics(undisturbed)
    assert differing_tensors(run_dir, undisturbed, ITERATIONS) == []


def test_ranks_whose_launcher_was_killed_save_and_end(config: Path, tmp_path: Path, jobs: list[Job]) -> None:
    run_dir = tmp_path / "run"
    jobs.append(Job(run_dir, config))
    jobs[-1].wait_for_lines(5)
    ranks = jobs[-1].ranks()
    jobs[-1].launcher.kill()
    jobs[-1].launcher.wait()
    _, alive = psutil.wait_procs(ranks, timeout=60)
    for process in alive:
        process.kill()
    assert not alive, jobs[-1].output()
    assert_saved(run_dir, "the end of its launcher")
    assert not (run_dir / "lock.json").exists()


def test_a_launcher_of_one_process_that_ends_alone_ends_the_run(config: Path, tmp_path: Path) -> None:
    """accelerate passes no signal on where it starts one process."""
    run_dir = tmp_path / "run"
    launcher = subprocess.Popen(command(1, run_dir, config), cwd=REPOSITORY, env=environment())
    try:
        while not (run_dir / "metrics.jsonl").exists():
            assert launcher.poll() is None
            time.sleep(0.05)
        (trainer,) = psutil.Process(launcher.pid).children()
        launcher.terminate()
        assert launcher.wait(60) == -signal.SIGTERM
        _, alive = psutil.wait_procs([trainer], timeout=60)
        for process in alive:
            process.kill()
        assert not alive
    finally:
        kill_job(launcher)
    assert_saved(run_dir, "the end of its launcher")


def test_without_a_launcher_the_exit_code_asks_for_another_try(config: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    start = [sys.executable, "launch/train.py", "--config", str(config), "--run-dir", str(run_dir)]
    process = subprocess.Popen(start, cwd=REPOSITORY, env=environment())
    try:
        while not (run_dir / "metrics.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 75
    finally:
        process.kill()
    assert json.loads((run_dir / "stopped-early.json").read_text())["reason"] == "SIGTERM"


def test_a_terminal_that_is_closed_loses_nothing(config: Path, tmp_path: Path) -> None:
    """Its processes get SIGHUP, readers too, and what they print goes nowhere."""
    run_dir = tmp_path / "run"
    ours, theirs = os.openpty()
    os.set_blocking(ours, False)
    start = ["setsid", "--ctty", *command(1, run_dir, config)]
    launcher = subprocess.Popen(
        start, cwd=REPOSITORY, env=environment(), stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    try:
        while not (run_dir / "metrics.jsonl").exists():
            with suppress(BlockingIOError):
                shown += os.read(ours, 65536)
            assert launcher.poll() is None, shown.decode()
            time.sleep(0.05)
        trainer_and_reader = psutil.Process(launcher.pid).children(recursive=True)
        assert len(trainer_and_reader) >= 2
        os.close(ours)
        _, alive = psutil.wait_procs(trainer_and_reader, timeout=60)
        assert not alive
    finally:
        kill_job(launcher)
    assert_saved(run_dir, "the end of its terminal")


def test_a_silent_rank_is_named(config: Path, tmp_path: Path, jobs: list[Job]) -> None:
    jobs.append(Job(tmp_path / "run", config, "--set", "train.collective_timeout_seconds=5"))
    jobs[-1].wait_for_lines(3)
    silent = jobs[-1].ranks()[1]
    silent.suspend()
    deadline = time.monotonic() + 60
    sentence = "Rank 0 waited in vain for the others in iteration"
    while sentence not in jobs[-1].output():
        assert time.monotonic() < deadline, jobs[-1].output()
        time.sleep(0.2)
    assert f"rank 1 (process {silent.pid} on {os.uname().nodename}) was last heard of" in jobs[-1].output()
    silent.kill()
