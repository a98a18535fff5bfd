"""Metrics on a disk that fails: a refused line is lost whole."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from dist_dsvae.engine.reporting.outputs import MetricsFile


class Full(io.FileIO):
    """Takes some bytes of what is written, then has no room."""

    def write(self, data: Any) -> int:
        super().write(bytes(data)[:7])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_line_that_was_torn_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path, 0)
    metrics.append({"samples_seen": 1})
    with monkeypatch.context() as full, caplog.at_level(logging.WARNING):
        full.setattr(Path, "open", lambda path, mode: Full(path, mode))
        metrics.append({"samples_seen": 2})
        assert path.read_bytes().endswith(b'{"sampl')
        metrics.append({"samples_seen": 3})
    assert len(caplog.messages) == 1
    metrics.append({"samples_seen": 4})
    assert [json.loads(line)["samples_seen"] for line in path.read_text().splitlines()] == [1, 4]
    path.unlink()  # by a person
    metrics.append({"samples_seen": 5})
    assert path.read_text() == '{"samples_seen": 5}\n'


def test_lines_that_could_not_be_dropped_at_first_do_not_stand_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"samples_seen": 1}\n{"samples_seen": 2}\n')

    def fail(*_: object, **__: object) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr(Path, "read_text", fail)
        metrics = MetricsFile(path, 1)
        metrics.append({"samples_seen": 2})
    metrics.append({"samples_seen": 3})
    assert [json.loads(line)["samples_seen"] for line in path.read_text().splitlines()] == [1, 3]
