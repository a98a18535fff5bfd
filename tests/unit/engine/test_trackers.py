"""Trackers with their own libraries, offline: one curve over a resume; failures cost nothing else."""

from __future__ import annotations

import importlib
import json
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from accelerate import PartialState
from PIL import Image

from dist_dsvae.commands.train import train
from dist_dsvae.config import DataConfig, ExperimentConfig, ModelConfig, TrainConfig
from dist_dsvae.config.reading import load_config
from dist_dsvae.config.training import TrackerName
from dist_dsvae.core.types import ImageShape
from dist_dsvae.engine.reporting import tracker_kinds, trackers, visuals
from dist_dsvae.engine.reporting.tracker_kinds import is_installed
from dist_dsvae.engine.reporting.trackers import TrackerError, Trackers, check_trackers
from tests.distributed.launching import epochs_of, metrics, write_config
from tests.unit.engine.making import write_images
from tests.unit.engine.tracked import told

NAMES: tuple[TrackerName, ...] = ("tensorboard", "wandb", "mlflow", "trackio")


@pytest.fixture(scope="module", autouse=True)
def _offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For the whole module, as trackio looks at its folder when it is imported."""
    folder = tmp_path_factory.mktemp("trackers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_CONFIG_DIR", str(folder))
        patch.setenv("WANDB_CACHE_DIR", str(folder))
        patch.setenv("TRACKIO_DIR", str(folder))
        for name in ("WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
            patch.delenv(name, raising=False)
        assert "trackio" not in sys.modules
        PartialState()
        yield


def config_of(name: TrackerName, project: str = "faces", **train: object) -> ExperimentConfig:
    settings = TrainConfig(trackers=(name,), tracker_project=project, **train)  # type: ignore[arg-type]
    model = ModelConfig(architecture="mlp2d")
    return ExperimentConfig(data=DataConfig(train="shards/none"), model=model, train=settings)


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_goes_on_in_one_curve(name: TrackerName, tmp_path: Path) -> None:
    """Killed after 12 samples with a checkpoint at 8, its point at 12 comes again, with another value."""
    pytest.importorskip(name)
    run_dir, image = tmp_path / "run", tmp_path / "step-00000008.png"
    run_dir.mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(image)
    project = f"faces-{name}"

    first = Trackers(config_of(name, project), run_dir, 0)
    for step in (4, 8, 12):
        first.log({"kl": float(step), "learning_rate/weights": 0.5}, step)
        if step == 8:
            first.show("samples", image, step)
            first.log({"evaluation/fid": 3.0}, step)
    first.log({"evaluation/late": 2.0}, 8)  # as after a resume, of a checkpoint before the curves' end
    first.close()
    again = Trackers(config_of(name, project, epochs=7.0), run_dir, 8)  # which may change
    again.log({"evaluation/fid": 3.0}, 8)  # as a run that is at its end logs them at each start
    again.show("samples", image, 8)
    for step in (12, 16):
        again.log({"kl": 10.0 * step}, step)
    again.close()

    found = told(name, run_dir, project)
    twelfth = 120.0 if name == "tensorboard" else 12.0  # what was there can be dropped, or stays alone
    assert found.curves["kl"] == [(4, 4.0), (8, 8.0), (12, twelfth), (16, 160.0)]
    assert found.curves["evaluation/fid"] == [(8, 3.0)]
    assert found.curves["evaluation/late"] == [(8, 2.0)]
    assert found.images == [8]
    assert found.runs == 1
    assert found.settings["model.architecture"] == "mlp2d"
    assert found.settings["train.trackers"] == json.dumps([name])


@pytest.mark.parametrize("name", NAMES[1:])
def test_the_id_of_the_run_stays_in_its_directory(name: TrackerName, tmp_path: Path) -> None:
    pytest.importorskip(name)
    ids = set()
    for step in (4, 8):
        session = Trackers(config_of(name, f"ids-{name}"), tmp_path, 0)
        session.log({"kl": 1.0}, step)
        session.close()
        ids.add(json.loads((tmp_path / "trackers.json").read_text())[name]["id"])
    assert len(ids) == 1
    assert told(name, tmp_path, f"ids-{name}").runs == 1


def test_a_tracker_that_is_not_installed_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "is_installed", lambda name: name != "wandb")
    check_trackers(TrainConfig(trackers=("tensorboard",)))
    with pytest.raises(TrackerError, match=r"names wandb, not installed here: pip install .*\[trackers\]"):
        check_trackers(TrainConfig(trackers=("wandb", "tensorboard")))


def test_training_goes_on_without_tensorboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trackers, "is_installed", lambda name: name != "tensorboard")
    config = config_of("tensorboard")
    check_trackers(config.train)
    board = Trackers(config, tmp_path, 0)
    board.log({"kl": 1.0}, 4)
    board.close()
    (warning,) = caplog.messages
    assert warning.startswith("tensorboard is not installed, so there are no curves for it")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_its_name_is_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made_up").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert not is_installed("made_up")  # type: ignore[arg-type]
    assert is_installed("tensorboard")


class Unreliable:
    """A tracker whose network fails between two steps."""

    id = "a run"

    def __init__(self) -> None:
        self.attempts = 0
        self.failing = False
        self.steps: list[int] = []

    def log(self, values: object, step: int) -> None:
        self.attempts += 1
        if self.failing:
            raise ConnectionError("no route to host\nTraceback and more")
        self.steps.append(step)

    def show(self, name: str, image: Path, step: int) -> None:
        raise ValueError("not this picture")

    def finish(self) -> None:
        raise TimeoutError


def test_a_network_that_fails_costs_points_and_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried again after a while, not at every tick, as each attempt may block for long."""
    tracker, now = Unreliable(), [0.0]
    monkeypatch.setattr(trackers, "start", lambda name, run: tracker)
    monkeypatch.setattr(trackers.time, "monotonic", lambda: now[0])
    told_of = Trackers(config_of("wandb"), tmp_path, 0)
    told_of.log({"kl": 1.0}, 1)
    tracker.failing = True
    with caplog.at_level(logging.WARNING):
        for step in range(2, 12):
            told_of.log({"kl": 1.0}, step)
        assert tracker.attempts == 2
        now[0] += 31  # the first pause
        told_of.log({"kl": 1.0}, 12)
        now[0] += 31  # the next one is longer
        told_of.log({"kl": 1.0}, 13)
        assert tracker.attempts == 3
        assert caplog.messages == [
            "wandb cannot be written (no route to host); training goes on without, and tries again."
        ]
        tracker.failing = False
        now[0] += 31
        told_of.log({"kl": 1.0}, 14)
        assert tracker.steps == [1, 14]
        assert caplog.messages[1:] == ["wandb is written again."]
        told_of.show("samples", tmp_path / "any.png", 14)
        told_of.close()
    assert len(caplog.messages) == 3


def test_a_server_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with caplog.at_level(logging.WARNING, logger="dist_dsvae"):
        unheard = Trackers(config_of("mlflow"), tmp_path, 0)
        unheard.log({"kl": 1.0}, 1)
        unheard.close()
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("dist_dsvae")]
    assert len(ours) == 1
    assert ours[0].startswith("mlflow cannot be written (")


@pytest.mark.parametrize(
    "record",
    ["[1", '{"wandb": 3}', '{"wandb": {"logged": {}}}', '{"wandb": {"id": 1, "logged": {"a": "b"}}}'],
)
def test_a_damaged_record_begins_a_new_run(
    record: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "trackers.json").write_text(record)
    with caplog.at_level(logging.WARNING):
        Trackers(config_of("tensorboard"), tmp_path, 0).close()
    assert "trackers begin new runs" in caplog.text


def test_tensorboard_keeps_what_was_there_before_its_disk_was_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = Trackers(config_of("tensorboard"), tmp_path, 0)
    board.log({"kl": 1.0}, 4)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tracker_kinds.TensorBoardTracker, "log", full)
        board.log({"kl": 2.0}, 8)
    board.log({"kl": 3.0}, 12)
    board.close()
    assert told("tensorboard", tmp_path, "").curves["kl"] == [(4, 1.0), (12, 3.0)]


def test_curves_that_cannot_be_written_cost_one_warning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """TensorBoard writes in a thread of its own, whose death is no traceback."""
    board = Trackers(config_of("tensorboard"), tmp_path, 0)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr("tensorboard.compat.tensorflow_stub.io.gfile.LocalFileSystem._write", full)
        for step in range(1, 7):
            board.log({"kl": float(step)}, step)
    time.sleep(1.1)  # TensorBoard reads its files in the order of the seconds in their names
    board.log({"kl": 9.0}, 9)
    board.close()
    assert [("cannot be written" in message) for message in caplog.messages].count(True) == 1
    assert "Traceback" not in capfd.readouterr().err
    assert told("tensorboard", tmp_path, "").curves["kl"] == [(9, 9.0)]


def test_a_run_tells_all_its_trackers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Losses as in metrics.jsonl, and what people look at when a run does badly; over a resume."""
    monkeypatch.setattr(visuals, "FEW_CODES", 16)
    names = [name for name in ("tensorboard", "mlflow", "trackio") if is_installed(name)]
    run_dir, project = tmp_path / "run", "a run"
    write_images(tmp_path / "train", ("a", "b", "c"), 8, ImageShape(1, 32, 32))
    for iterations in (2, 3):
        path = write_config(
            tmp_path / "config.json",
            data={"train": str(tmp_path / "train")},
            optimizer={"clip_gradient_norm": 1.0, "decay_epochs": 100.0},
            train={
                "epochs": epochs_of(iterations, num_samples=24),
                "evaluate_at_end": False,
                "trackers": names,
                "tracker_project": project,
            },
        )
        assert train(load_config(path), run_dir, "auto", None) == 0
    assert "Traceback" not in capsys.readouterr().err
    losses = {"gm", "reconstruction", "likelihood", "kl", "generator", "discriminator"}
    for name in names:
        found = told(name, run_dir, project)  # type: ignore[arg-type]
        signs = {"learning_rate/weights", "gradient_norm/gm", "gradient_norm/joint"}
        assert found.curves.keys() >= losses | signs | {"images_per_second", "peak_memory_gib"}
        for curve in ("kl", "reconstruction"):
            expected = [(line["samples_seen"], line[curve]) for line in metrics(run_dir)]
            assert found.curves[curve] == [(step, pytest.approx(value)) for step, value in expected]
        rates = [value for _, value in found.curves["learning_rate/weights"]]
        assert sorted(set(rates), reverse=True) == rates
        assert all(value > 0 for _, value in found.curves["gradient_norm/joint"])
        assert 0.05 < found.curves["peak_memory_gib"][-1][1] < 100
        assert len(found.images) == 2
        assert found.runs == 1


def test_the_older_key_of_tensorboard() -> None:
    """Records of older runs, and people's files, say train.tensorboard."""
    assert TrainConfig(tensorboard=False).trackers == ()
    assert TrainConfig(tensorboard=True, trackers=("wandb",)).trackers == ("tensorboard", "wandb")
    assert TrainConfig(tensorboard=False, trackers=("tensorboard", "mlflow")).trackers == ("mlflow",)
    assert TrainConfig(tensorboard=True).tensorboard is None
