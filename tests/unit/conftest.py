"""Fixtures that several rooms share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.data.making import run_build


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, bytes]]:
    """What the hub, which takes everything, is sent: at each push the files by their names."""
    pushes: list[dict[str, bytes]] = []

    class Api:
        def __init__(self, **options: object) -> None: ...

        def create_repo(self, repo_id: str, **options: object) -> object:
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, folder_path: Path, **options: object) -> str:
            pushes.append({path.name: path.read_bytes() for path in folder_path.iterdir()})
            return "done"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    return pushes


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Runs shards/build.py in this process, in an empty folder; returns the exit status."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: run_build(monkeypatch, *arguments)
