"""What a training may go on with, or write over, in its directory."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from dist_dsvae.config.reading import load_config, to_json
from dist_dsvae.core.shipped import config_file, root
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.runs import run_directory
from dist_dsvae.runs.marker import CheckpointError
from dist_dsvae.runs.run_directory import checkpoint_to_resume, record_start

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


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_that_of_a_checkout_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed into an ignored folder of another project's repository, a run is none of that project's."""
    checkout, installed = (tmp_path / folder / "run_directory.py" for folder in ("source", ".venv"))
    for file in (checkout, installed):
        file.parent.mkdir()
        file.touch()
    (tmp_path / ".gitignore").write_text(".venv\n")

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init")
    git("add", ".")
    git("commit", "-m", "A commit")
    train = Manifest.load(root() / "shards/fashion-mnist-mini/train")
    config = load_config(config_file("quickstart"))
    for file in (checkout, installed):
        monkeypatch.setattr(run_directory, "__file__", str(file))
        record_start(tmp_path / ".venv/run", config, train, {}, 0, None)
    starts = json.loads((tmp_path / ".venv/run/environment.json").read_text())
    assert [start["git"] for start in starts] == [git("rev-parse", "--short=12", "HEAD"), None]
