"""Metrics on a disk that fails: a refused line is lost whole."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dist_dsvae.config import DataConfig, EvaluationConfig, ExperimentConfig, ModelConfig, TrainConfig
from dist_dsvae.core.types import ImageShape
from dist_dsvae.engine.evaluating import evaluate
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.engine.reporting.outputs import MetricsFile
from dist_dsvae.engine.reporting.visuals import Visuals
from tests.unit.engine.making import write_images
from tests.unit.methods.making import make_method

CONFIG = ExperimentConfig(data=DataConfig(train="train"), model=ModelConfig(architecture="small32"))


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


def test_what_is_no_text_is_no_line(tmp_path: Path) -> None:
    """A disk's fault in a file that nothing depends on."""
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"samples_seen": 1}\n\xff\xfe\n{"samples_seen": 2, "x": "\xff"}\n')
    MetricsFile(path, 1).append({"samples_seen": 3})
    assert path.read_text() == '{"samples_seen": 1}\n{"samples_seen": 3}\n'


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


def test_pictures_that_cannot_be_written_cost_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shape = ImageShape(1, 32, 32)
    split = write_images(tmp_path / "train", ("a", "b"), 3, shape)
    runtime = Runtime(TrainConfig(double_precision=True))
    drawing = Visuals(make_method(), split, split, CONFIG, runtime)
    place = tmp_path / "samples"
    place.write_text("in the way")
    assert drawing.draw(place, "step-1") == drawing.draw(place, "step-2") == []
    assert [m for m in caplog.messages if "cannot be written" in m] == [
        "The grid of samples cannot be written (File exists); training goes on without, and tries again."
    ]
    place.unlink()
    assert len(drawing.draw(place, "step-3")) == 2
    assert caplog.messages[-1] == "The grid of samples is written again."
    assert drawing.method.training


def test_an_evaluation_whose_file_cannot_be_written_is_not_lost_for_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(evaluate, "record", lambda *_: {})
    (tmp_path / "evaluation").write_text("in the way")

    class Scored:
        inputs = SimpleNamespace(config=EvaluationConfig())

        def __call__(self, *_: object) -> tuple[dict[str, float], dict[str, float]]:
            return {"fid": 3.0}, {}

    moment = ("step-00000007", 70, 1.0)
    made = evaluate.evaluate_in_training(tmp_path, Scored(), make_method(), None, CONFIG, moment)  # type: ignore[arg-type]
    assert made == {"fid": 3.0}
    (message,) = caplog.messages
    assert "step-00000007.json cannot be written" in message
    assert (tmp_path / "evaluation").read_text() == "in the way"
