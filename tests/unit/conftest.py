"""Fixtures that several rooms share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.data.making import run_build


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Runs shards/build.py in this process, in an empty folder; returns the exit status."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: run_build(monkeypatch, *arguments)
