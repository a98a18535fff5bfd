"""Law 5 under fire: a 2-process job whose ranks are killed again and again ends as if nothing had been.

`accelerate launch --max_restarts` starts the job anew each time. The kills come at random instants, or
aimed: while a checkpoint is written, between its marker and its renaming, right after it, while
pictures are drawn, while the job starts.

The long storm:  pytest -m storm tests/distributed/test_storm.py -s
"""

from __future__ import annotations

import collections
import random
import subprocess
import time
from collections.abc import Callable
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

AIMS = ("any moment", "writing", "renaming", "just saved", "drawing", "starting")


def undisturbed_run(folder: Path, iterations: int) -> tuple[Path, Path]:
    """A configuration, and a run of it that nothing disturbed."""
    config = write_config(
        folder / "c.json",
        data={"num_workers": 1},
        train={
            "epochs": epochs_of(iterations),
            "checkpoint_every_steps": 3,
            "sample_every_steps": 10,
            "ema_half_life_updates": 4.0,
            "ema_ramp_up": 0.5,
            "collective_timeout_seconds": 60,
            "evaluate_at_end": False,
        },
    )
    train(2, folder / "undisturbed", config)
    return config, folder / "undisturbed"


def newest(run_dir: Path, pattern: str) -> list[Path]:
    return sorted(run_dir.glob(pattern))[-1:]


def wait_for(condition: Callable[[], bool], launcher: subprocess.Popen[bytes], seconds: float = 60) -> bool:
    """Whether the condition came true before the job ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        if launcher.poll() is not None:
            return False
        time.sleep(0.001)
    raise AssertionError(f"nothing happened for {seconds:g} s: the job hangs")


def aimed(aim: str, run_dir: Path, launcher: subprocess.Popen[bytes], chance: random.Random) -> bool:
    """Wait for the moment; False if the job ended before."""
    log = run_dir / "metrics.jsonl"
    before = log.stat().st_mtime_ns if log.exists() else 0
    if aim == "starting":
        time.sleep(chance.uniform(1.0, 6.0))
        return launcher.poll() is None
    # the restarted job trains
    if not wait_for(lambda: log.exists() and log.stat().st_mtime_ns > before, launcher):
        return False
    saved, drawn = newest(run_dir, "checkpoints/step-*"), newest(run_dir, "samples/*.png")
    moments: dict[str, Callable[[], bool]] = {
        "writing": lambda: bool(newest(run_dir, "checkpoints/.step-*.partial")),
        "renaming": lambda: bool(newest(run_dir, "checkpoints/.step-*.partial/checkpoint.json")),
        "just saved": lambda: newest(run_dir, "checkpoints/step-*") != saved,
        "drawing": lambda: newest(run_dir, "samples/*.png") != drawn,
    }
    if aim in moments:
        return wait_for(moments[aim], launcher)
    time.sleep(chance.uniform(0.0, 2.0))
    return launcher.poll() is None


def storm(config: Path, run_dir: Path, num_kills: int, chance: random.Random) -> collections.Counter[str]:
    """One run to its end with up to ``num_kills`` kills on the way; how many kills of each aim it took."""
    start = command(2, run_dir, config)
    position = start.index("--num_processes")
    start[position:position] = ["--max_restarts", "1000"]
    kills: collections.Counter[str] = collections.Counter()
    with (run_dir.parent / f"{run_dir.name}.log").open("wb") as log:
        launcher = subprocess.Popen(start, cwd=REPOSITORY, env=environment(), stdout=log, stderr=log)
    try:
        watched = psutil.Process(launcher.pid)
        while kills.total() < num_kills:
            aim = chance.choice(AIMS)
            if not wait_for(lambda: len(ranks_of(watched)) == 2, launcher):
                break
            if not aimed(aim, run_dir, launcher, chance):
                break
            victims = ranks_of(watched)
            if not victims:
                continue
            victim = chance.choice(victims)
            victim.kill()
            kills[aim] += 1
            wait_for(lambda gone=victim: not gone.is_running() or gone.status() == "zombie", launcher)
        assert launcher.wait(timeout=240) == 0
    finally:
        kill_job(launcher)
    return kills


def assert_same(run_dir: Path, undisturbed: Path, iterations: int) -> None:
    """Weights, moments and averages bit for bit; every logged line once and the same."""
    assert differing_tensors(run_dir, undisturbed, iterations) == []
    assert metrics(run_dir) == metrics(undisturbed)


@pytest.mark.timeout(600)  # many starts of real processes, on whatever machine
def test_a_few_kills(tmp_path: Path) -> None:
    config, undisturbed = undisturbed_run(tmp_path, 40)
    kills = storm(config, tmp_path / "run", 2, random.Random(0))
    assert kills.total() == 2
    assert_same(tmp_path / "run", undisturbed, 40)


@pytest.mark.storm
@pytest.mark.timeout(3600)
def test_thirty_kills(tmp_path: Path) -> None:
    config, undisturbed = undisturbed_run(tmp_path, 120)
    kills: collections.Counter[str] = collections.Counter()
    runs = 0
    while kills.total() < 30:
        runs += 1
        kills += storm(config, tmp_path / f"run-{runs}", 30 - kills.total(), random.Random(runs))
        assert_same(tmp_path / f"run-{runs}", undisturbed, 120)
    print(f"\n{kills.total()} kills in {runs} runs, all survived: {dict(kills)}")
