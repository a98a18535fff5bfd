"""Two processes save when rank 0's clock says so; killed and resumed equals undisturbed, bit for bit."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

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

ITERATIONS = 12
BY_THE_CLOCK = ("--set", "train.checkpoint_every_minutes=0.005")


def saved_steps(run_dir: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in (run_dir / "checkpoints").glob("step-*"))


def test_saved_by_the_clock_killed_and_resumed(tmp_path: Path) -> None:
    # float64 losses: their sums are rounded, so it would show if saving touched them
    schedule = {"epochs": epochs_of(ITERATIONS), "log_every_steps": 5, "keep_checkpoints": 100}
    schedule |= {"double_precision": True, "evaluate_at_end": False}
    config = write_config(tmp_path / "c.json", train=schedule)
    undisturbed, run_dir = tmp_path / "undisturbed", tmp_path / "killed"
    train(2, undisturbed, config)
    assert saved_steps(undisturbed) == [ITERATIONS]

    with subprocess.Popen(
        command(2, run_dir, config, *BY_THE_CLOCK),
        cwd=REPOSITORY,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        deadline = time.monotonic() + 120
        while not any(step % 5 for step in saved_steps(run_dir)):
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        kill_job(process)
    assert saved_steps(run_dir)[-1] < ITERATIONS

    output = train(2, run_dir, config, *BY_THE_CLOCK)
    assert "Resumed" in output
    assert len(saved_steps(run_dir)) > 2
    assert metrics(run_dir) == metrics(undisturbed)
    assert differing_tensors(run_dir, undisturbed, ITERATIONS) == []
