"""What a training may go on with, or write over, in its directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dist_dsvae.config.reading import load_config, to_json
from dist_dsvae.core.shipped import config_file
from dist_dsvae.runs.marker import CheckpointError
from dist_dsvae.runs.run_directory import checkpoint_to_resume

PERSONS = {"data": {"train": "shards/mine/train"}, "model": {"architecture": "small"}, "train": {"epochs": 7}}


def test_a_person_s_config_beside_nothing_of_a_run_stays(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(PERSONS))
    with pytest.raises(CheckpointError, match=r"config\.json that no run wrote.*--run-dir"):
        checkpoint_to_resume(tmp_path, "auto")


def test_a_run_goes_on_that_was_killed_after_its_first_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(to_json(load_config(config_file("quickstart"))))
    assert checkpoint_to_resume(tmp_path, "auto") is None


@pytest.mark.parametrize("beside", ["dataset.json", "environment.json", "checkpoints/"])
def test_an_older_run_s_record_may_lack_what_was_not_yet_an_option(tmp_path: Path, beside: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(PERSONS))
    if beside.endswith("/"):
        (tmp_path / beside).mkdir()
    else:
        (tmp_path / beside).write_text("{}")
    assert checkpoint_to_resume(tmp_path, "auto") is None
