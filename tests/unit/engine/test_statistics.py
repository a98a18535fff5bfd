"""Statistics of batch norm from a run's pictures: measured, kept beside the checkpoint, and forgotten."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dist_dsvae.config import DataConfig, ExperimentConfig, ModelConfig, TrainConfig
from dist_dsvae.config_io import to_json
from dist_dsvae.data.manifest import Manifest
from dist_dsvae.data.stream import one_pass
from dist_dsvae.data.transforms import to_device_batch
from dist_dsvae.engine import statistics, statistics_file, visuals
from dist_dsvae.engine.runtime import Runtime
from dist_dsvae.engine.statistics import Measured, measure, using
from dist_dsvae.engine.statistics_file import measured_of_checkpoint
from dist_dsvae.engine.visuals import Visuals
from dist_dsvae.models.statistics import batch_sums, statistics_of
from dist_dsvae.sampling.statistics import image_codes
from tests.unit.engine.making import write_pictures
from tests.unit.methods.making import SHAPES, make_method

CLASSES = ("a", "b", "c", "d", "e")


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return write_pictures(tmp_path_factory.mktemp("data") / "split", CLASSES, 12, SHAPES["small32"])


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes enough for all of the pictures."""
    monkeypatch.setattr(statistics, "NUM_CODES", 64)
    monkeypatch.setattr(visuals, "FEW_CODES", 64)


def make_config(split: Manifest) -> ExperimentConfig:
    return ExperimentConfig(
        data=DataConfig(train=str(split.directory)),
        model=ModelConfig(architecture="small32", zs_dim=6, zu_dim=4),
        train=TrainConfig(double_precision=True),
    )


@pytest.fixture
def checkpoint(split: Manifest, tmp_path: Path) -> Path:
    """What a run leaves that statistics depend on."""
    (tmp_path / "config.json").write_text(to_json(make_config(split)))
    dataset = {"shape": split.shape._asdict(), "classes": split.classes, "fingerprint": split.fingerprint}
    (tmp_path / "dataset.json").write_text(json.dumps(dataset))
    folder = tmp_path / "checkpoints/step-00000004"
    folder.mkdir(parents=True)
    (folder / "checkpoint.json").write_text("{}")
    return folder


def same(a: Measured, b: Measured) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(x, y)
        for kind in a
        for ours, theirs in zip(a[kind], b[kind], strict=True)
        for x, y in zip(ours, theirs, strict=True)
    )


def test_image_statistics_are_those_of_the_training_pictures(split: Manifest) -> None:
    method = make_method().eval()
    (host,) = one_pass(split, 60)
    codes = image_codes(method, to_device_batch(host, torch.device("cpu"), torch.float64))
    expected = statistics_of(method.decoder, batch_sums(method.decoder, codes))  # one batch holds all 60
    measured = measure(method, split, skip_corrupt=False)
    for ours, theirs in zip(measured["images"], expected, strict=True):
        torch.testing.assert_close(ours.mean, theirs.mean, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(ours.variance, theirs.variance, rtol=1e-10, atol=1e-12)
    assert measure(method, None, skip_corrupt=False, num_codes=8).keys() == {"prior"}
    few = measure(method, split, skip_corrupt=False, num_codes=8, kinds=["images"])
    assert few.keys() == {"images"}  # from one shard of two
    assert not same(few, {"images": measured["images"]})


def test_drawing_leaves_training_as_it_was(split: Manifest, tmp_path: Path) -> None:
    method = make_method()
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    drawing = Visuals(method, split, split, make_config(split), Runtime(TrainConfig(double_precision=True)))
    assert len(drawing.draw(tmp_path, "step-1")) == 2
    after = method.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert method.training


def test_pictures_that_cannot_be_read_stop_no_drawing(
    split: Manifest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = dataclasses.replace(split, directory=tmp_path / "gone")
    drawing = Visuals(
        make_method(), split, gone, make_config(split), Runtime(TrainConfig(double_precision=True))
    )
    assert len(drawing.draw(tmp_path, "step-1")) == 2
    (record,) = caplog.records
    assert "decoded with the running statistics of training" in record.message


def test_using_gives_back_what_was_there(split: Manifest) -> None:
    method = make_method().eval()
    first = measure(method, None, skip_corrupt=False, num_codes=8)
    method.decoder.set_statistics("prior", first["prior"])
    names = list(method.state_dict())
    with using(method, measure(method, split, skip_corrupt=False, num_codes=16)):
        assert method.decoder.statistics_of("images") is not None
        assert not same({"prior": method.decoder.statistics_of("prior")}, first)
    assert same({"prior": method.decoder.statistics_of("prior")}, first)
    assert list(method.state_dict()) == names


def test_the_kept_file(checkpoint: Path, split: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    method = make_method().eval()
    path = checkpoint.parent.parent / "statistics/step-00000004-ema.safetensors"
    times = []

    def counted(*arguments: object, **options: object) -> Measured:
        times.append(1)
        return measure(*arguments, num_codes=20, alone=True, skip_corrupt=False)  # type: ignore[arg-type]

    def unread(method: object, train: object, **options: object) -> Measured:
        return counted(method, split)

    monkeypatch.setattr(statistics_file, "measure_or_warn", unread)
    first = measured_of_checkpoint(checkpoint, method, "ema")
    assert same(measured_of_checkpoint(checkpoint, method, "ema"), first)
    assert len(times) == 1
    assert first.keys() == {"images", "prior"}
    assert load_file(path)["images.mean_0"].dtype == torch.float64
    assert [p.name for p in checkpoint.iterdir()] == ["checkpoint.json"]
    # all ranks of an evaluation find the same
    found = statistics_file.measured_for_evaluation(checkpoint, method, "ema", split, skip_corrupt=False)
    assert same(found, first)
    measured_of_checkpoint(checkpoint, method, "raw")
    assert len(times) == 2

    path.write_bytes(path.read_bytes()[:-50])  # damaged, but ours
    assert same(measured_of_checkpoint(checkpoint, method, "ema"), first)
    assert len(times) == 3
    assert "images.mean_0" in load_file(path)
    (checkpoint / "checkpoint.json").write_text('{"trained": "anew"}')
    measured_of_checkpoint(checkpoint, method, "ema")
    assert len(times) == 4

    path.write_bytes(b"something of someone else's")
    for number in (5, 6):
        assert same(measured_of_checkpoint(checkpoint, method, "ema"), first)
        assert len(times) == number
    assert path.read_bytes() == b"something of someone else's"
    path.unlink()
    path.parent.joinpath("step-00000004-raw.safetensors").unlink()
    path.parent.rmdir()
    path.parent.write_text("not a folder")  # nothing can be kept
    assert same(measured_of_checkpoint(checkpoint, method, "ema"), first)


def test_without_the_training_pictures(
    checkpoint: Path, split: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    method = make_method().eval()
    dataset = checkpoint.parent.parent / "dataset.json"
    right = dataset.read_text()
    dataset.write_text(right.replace(split.fingerprint, "of other shards"))
    assert measured_of_checkpoint(checkpoint, method, "raw").keys() == {"prior"}
    (record,) = caplog.records
    assert "are not those that" in record.message
    dataset.write_text(right)  # they are back
    assert measured_of_checkpoint(checkpoint, method, "raw").keys() == {"images", "prior"}
