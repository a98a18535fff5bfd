"""How a run was started the last time, as a card says it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dist_dsvae.runs.run_directory import last_command


@pytest.mark.parametrize(
    ("command", "world_size", "typed"),
    [
        (["dsvae train", "toy", "--run-dir", "my run"], 1, "dsvae train toy --run-dir 'my run'"),
        (["dsvae train", "toy"], 2, "accelerate launch --num_processes 2 --no_python dsvae train toy"),
        (
            ["launch/train.py", "--set", "train.trackers=[]"],
            1,
            "accelerate launch launch/train.py --set 'train.trackers=[]'",
        ),
        (["launch/train.py"], 8, "accelerate launch --num_processes 8 launch/train.py"),
    ],
)
def test_it_can_be_typed_again(tmp_path: Path, command: list[str], world_size: int, typed: str) -> None:
    starts = [{"command": ["another"], "world_size": 1}, {"command": command, "world_size": world_size}]
    (tmp_path / "environment.json").write_text(json.dumps(starts))
    assert last_command(tmp_path) == typed


@pytest.mark.parametrize("starts", [None, [], [{}], {}, [{"command": [], "world_size": 1}], "?"])
def test_a_run_that_does_not_say(tmp_path: Path, starts: Any) -> None:
    assert last_command(tmp_path) is None
    (tmp_path / "environment.json").write_text(json.dumps(starts))
    assert last_command(tmp_path) is None
