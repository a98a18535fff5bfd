"""A training goes on where its terminal is gone, and ends with its own status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import REPOSITORY

SPEAKS = """
import sys
from pathlib import Path
from dist_dsvae.engine.reporting.telemetry import Telemetry
sys.stdin.readline()  # until the reader is gone
telemetry = Telemetry(Path(sys.argv[1]), total_steps=9, samples_seen=0, step=0, trackers=None)
for step in range(3):
    telemetry.say("Saved a checkpoint.")
    telemetry.line(96, step, {"gm": 1.0})
print("went on", file=sys.stderr)
sys.exit(75)
"""


@pytest.mark.parametrize("where", ["a pipe without a reader", "/dev/full"])
def test_what_cannot_be_written_ends_no_training(tmp_path: Path, where: str) -> None:
    if where == "/dev/full":
        output = os.open(where, os.O_WRONLY)
    else:
        reader, output = os.pipe()
        os.close(reader)
    command = [sys.executable, "-c", SPEAKS, str(tmp_path)]
    done = subprocess.run(
        command, cwd=REPOSITORY, input="\n", stdout=output, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(output)
    assert "went on" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 75
