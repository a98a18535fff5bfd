"""One job at a time in a run directory, on one machine and on several."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from dist_dsvae.runs import run_lock
from dist_dsvae.runs.marker import CheckpointError
from dist_dsvae.runs.run_lock import LOCK_FILE, LockPace, RunLock, holding
from tests.distributed.launching import REPOSITORY, write_config

QUICK = LockPace(beat=0.1, stale=0.8, grace=0.3, settle=0.2)


def lock_of(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_dir / LOCK_FILE).read_text())
    return found


def leave_lock(run_dir: Path, **changes: object) -> dict[str, Any]:
    """A lock as a job that was killed leaves it."""
    lock = RunLock(run_dir / "scratch", QUICK)
    left = lock_of(run_dir / "scratch") | changes
    lock.release()
    (run_dir / LOCK_FILE).write_text(json.dumps(left))
    return left


def test_a_second_job_is_refused_and_named(tmp_path: Path) -> None:
    with holding(tmp_path / "run", QUICK):
        before = lock_of(tmp_path / "run")
        with pytest.raises(
            CheckpointError, match=rf"run is in use: process {os.getpid()} on .* trains there"
        ):
            RunLock(tmp_path / "run", QUICK)
        assert lock_of(tmp_path / "run")["token"] == before["token"]
    assert not (tmp_path / "run").exists()  # nothing came of it


def test_a_killed_job_of_this_machine_is_known_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    leave_lock(tmp_path, pid=gone.pid)
    begin = time.monotonic()
    with caplog.at_level(logging.WARNING), holding(tmp_path, LockPace()):
        assert time.monotonic() - begin < LockPace().stale
        assert lock_of(tmp_path)["pid"] == os.getpid()
    assert f"taken over: process {gone.pid} on" in caplog.text
    assert not (tmp_path / LOCK_FILE).exists()


def test_another_process_of_the_same_number_is_not_the_holder(tmp_path: Path) -> None:
    leave_lock(tmp_path, pid=os.getppid(), started_at_tick=1)
    RunLock(tmp_path, QUICK).release()


def test_a_job_of_another_machine_lives_while_it_counts(tmp_path: Path) -> None:
    left = leave_lock(tmp_path, machine="another", host="node-7", job="4711")
    stop = threading.Event()

    def count() -> None:
        while not stop.wait(0.1):
            left["beats"] = f"{int(left['beats']) + 1:012d}"
            (tmp_path / LOCK_FILE).write_text(json.dumps(left))

    thread = threading.Thread(target=count)
    thread.start()
    try:
        with pytest.raises(CheckpointError, match=r"process \d+ on node-7, job 4711 trains there"):
            RunLock(tmp_path, QUICK)
    finally:
        stop.set()
        thread.join()
    begin = time.monotonic()
    RunLock(tmp_path, QUICK).release()  # now it stands still
    assert time.monotonic() - begin >= QUICK.stale


def test_a_lock_that_was_never_written_is_taken_over_after_a_while(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).touch()
    RunLock(tmp_path, QUICK).release()


@pytest.mark.parametrize("content", ["mine", "[]", '{"name": "a package"}'])
def test_somebody_elses_file_of_that_name_stays(tmp_path: Path, content: str) -> None:
    (tmp_path / LOCK_FILE).write_text(content)
    with pytest.raises(CheckpointError, match=r"lock\.json is no lock of this program's"):
        RunLock(tmp_path, QUICK)
    assert (tmp_path / LOCK_FILE).read_text() == content


def test_of_many_jobs_one_gets_it(tmp_path: Path) -> None:
    leave_lock(tmp_path, machine="another")
    got, lost, refused = list[RunLock](), list[str](), list[str]()

    def start() -> None:
        try:
            got.append(RunLock(tmp_path, QUICK, lost=lost.append))
        except CheckpointError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    time.sleep(5 * QUICK.beat)  # a machine that stands still for long lets two believe it, and one give way
    assert len(got) - len(lost) == 1
    assert len(got) + len(refused) == 8
    assert lock_of(tmp_path)["pid"] == os.getpid()
    for lock in got:
        lock.release()
    assert not (tmp_path / LOCK_FILE).exists()
    assert not list(tmp_path.glob(".lock*"))


def test_a_beat_goes_to_no_other_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is late, after another job has taken the lock over."""
    lost: list[str] = []
    lock = RunLock(tmp_path, QUICK, lost=lost.append)
    own = lock_of(tmp_path)
    theirs = json.dumps(own | {"token": "another"})
    with monkeypatch.context() as late:
        late.setattr(run_lock, "_read", lambda path: own)  # what it read before
        (tmp_path / "theirs").write_text(theirs)
        (tmp_path / "theirs").rename(tmp_path / LOCK_FILE)
        time.sleep(5 * QUICK.beat)
        assert (tmp_path / LOCK_FILE).read_text() == theirs
    time.sleep(5 * QUICK.beat)
    assert len(lost) == 1
    lock.release()
    assert (tmp_path / LOCK_FILE).read_text() == theirs


def test_a_moved_directory_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lock = RunLock(tmp_path / "run", QUICK)
    (tmp_path / "run").rename(tmp_path / "moved")
    time.sleep(0.5)
    lock.release()
    assert caplog.text.count("was moved or removed") == 1
    assert (tmp_path / "moved" / LOCK_FILE).exists()


def test_who_was_taken_over_ends_without_writing(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from dist_dsvae.runs.run_lock import LockPace, RunLock\n"
        "RunLock(Path(sys.argv[1]), LockPace(0.1, 1, 1, 0.1)); print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    left = lock_of(tmp_path) | {"token": "another", "host": "node-8"}
    (tmp_path / LOCK_FILE).write_text(json.dumps(left))
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "on node-8 has taken over" in said
    assert lock_of(tmp_path) == left


def test_two_trainings_in_one_directory(tmp_path: Path) -> None:
    """The second is refused before it touches anything of the first."""
    config = write_config(tmp_path / "c.json", train={"epochs": 0.0048, "evaluate_at_end": False})
    command = [sys.executable, "launch/train.py", "--config", str(config), "--run-dir", str(tmp_path / "run")]
    with holding(tmp_path / "run"):
        (tmp_path / "run/metrics.jsonl").write_text('{"samples_seen": 999}\n')
        refused = subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, timeout=200, check=False
        )
        assert refused.returncode == 1
        assert "is in use: process" in refused.stderr
        names = {path.name for path in (tmp_path / "run").iterdir()}
        assert names == {LOCK_FILE, "metrics.jsonl"}
        assert (tmp_path / "run/metrics.jsonl").read_text() == '{"samples_seen": 999}\n'


def test_a_lock_that_cannot_be_written_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space left"):
            RunLock(tmp_path, QUICK)
    assert not (tmp_path / LOCK_FILE).exists()
    lock = RunLock(tmp_path, QUICK)
    (tmp_path / LOCK_FILE).write_text('{"tok')  # what a failing disk makes of it
    lock.release()
    assert not (tmp_path / LOCK_FILE).exists()


def test_a_folder_that_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("mine", "new"):
        RunLock(tmp_path / name, QUICK).release()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
