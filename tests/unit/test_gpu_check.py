"""launch/gpu_check.sh: every part runs, here at toy size on the CPU, and a part that fails is seen."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PARTS = ["doctor", "graphs", "tests", "step", "best-batch", "sigterm", "training"]
SIGNS = {
    "doctor": "Fit to train",
    "graphs": "no CUDA graphs here",
    "tests": " skipped in ",
    "step": '"benchmark": "step"',
    "best-batch": '"benchmark": "step"',
    "sigterm": "ended with status 75",
    "training": "evaluation/scores.json",
}


def run(*arguments: object, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "launch/gpu_check.sh", *map(str, arguments)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHON": python},
        capture_output=True,
        text=True,
        check=False,
    )


def summary(folder: Path) -> dict[str, int]:
    """Status by part."""
    lines = (folder / "summary.txt").read_text().splitlines()
    found = [re.fullmatch(r"([\w-]+) +rc=(\d+) +\d+ s", line) for line in lines]
    return {match[1]: int(match[2]) for match in found if match}


@pytest.mark.timeout(600)
def test_every_part_reports(tmp_path: Path) -> None:
    out = tmp_path / "new/out"
    done = run(out, "--dry-run")
    files = {path.stem: path.read_text() for path in out.iterdir()}
    assert files.keys() == {*PARTS, "summary"}
    assert summary(out) == dict.fromkeys(PARTS, 0), "\n".join(files.values())
    assert done.returncode == 0
    assert [part for part, sign in SIGNS.items() if sign not in files[part]] == []


def test_parts_that_fail_are_seen(tmp_path: Path) -> None:
    done = run(tmp_path, "--dry-run", python="false")
    assert done.returncode == 1
    assert summary(tmp_path) == dict.fromkeys(PARTS, 1)
    assert run(tmp_path, "--dry-run", python="false").returncode == 1  # its own OUT is written again


def test_a_persons_files_stay(tmp_path: Path) -> None:
    (tmp_path / "summary.txt").write_text("of my summer")
    (tmp_path / "doctor.txt").write_text("Monday at ten")
    done = run(tmp_path, "--dry-run", python="false")
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {tmp_path} holds files that this check has not written: give another folder as OUT.\n"
    )
    assert (tmp_path / "summary.txt").read_text() == "of my summer"
    assert (tmp_path / "doctor.txt").read_text() == "Monday at ten"


@pytest.mark.parametrize("arguments", [(), ("--dry-run",), ("out", "--fast"), ("out", "--dry-run", "more")])
def test_other_arguments_are_refused(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr == "error: bash launch/gpu_check.sh OUT [--dry-run]\n"
