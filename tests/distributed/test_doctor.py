"""The doctor among two processes: it measures their collectives, and one that fails alone hangs nobody."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.distributed.launching import REPOSITORY, environment, launcher_words
from tests.forking import launch_program

LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
ONE_FAILS = """
import os
from pathlib import Path

from dist_dsvae.engine.doctor import examination, together
from dist_dsvae.engine.doctor.findings_report import line_of

examination.TIMEOUT_SECONDS = 4.0
measure = together.collectives

def fails_on_rank_1(runtime):
    if runtime.rank == 1:
        raise RuntimeError("the link is down")
    return measure(runtime)

together.collectives = fails_on_rank_1
examination.examine(
    lambda finding: print(line_of(finding), flush=True),
    None,
    disk_directory=Path.cwd(),
    mixed_precision="no",
    only=("clocks", "collectives", "bf16"),
)
"""


def run(*program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*LAUNCHER, *program],
        cwd=REPOSITORY,
        env=environment() | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_two_processes(tmp_path: Path) -> None:
    words = ["launch/doctor.py", "--json", "--disk", str(tmp_path), "--batch-size", "4"]
    done = launch_program(*launcher_words(2), *words, environment=environment())
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    by_name = {finding["name"]: finding for finding in document["findings"]}
    assert "2 processes" in by_name["processes"]["text"]
    assert 0 <= by_name["clocks"]["figures"]["seconds"] < 1
    assert by_name["collectives"]["text"].startswith("2 processes by gloo")
    assert by_name["collectives"]["figures"]["all_reduce_gb_per_second"] > 0
    assert by_name["bf16"]["state"] == by_name["iteration"]["state"] == "ok"


def test_a_check_that_fails_on_one_process_ends_it_for_all(tmp_path: Path) -> None:
    script = tmp_path / "one_fails.py"
    script.write_text(ONE_FAILS)
    done = run(str(script))
    lines = done.stdout
    assert "ok       clocks: " in lines, done.stderr
    assert "failed   collectives: " in lines  # rank 0 waited in vain
    assert "failed   collectives [rank 1 on " in lines
    assert "the link is down" in lines
    assert "skipped  bf16: left out, because collectives failed" in lines
