"""Statistics of batch norm from a run's pictures: measured, kept beside the checkpoint, and forgotten."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from dist_dsvae.building import writer
from dist_dsvae.config import (
    CGANConfig,
    ClassifierConfig,
    CVAEConfig,
    CVAEGANConfig,
    DataConfig,
    DSVAEConfig,
    EvaluationConfig,
    ExperimentConfig,
    MethodConfig,
    ModelConfig,
    TrainConfig,
)
from dist_dsvae.config.reading import to_json
from dist_dsvae.core.noise import Draw, permutation
from dist_dsvae.core.types import Batch
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.stream import one_pass
from dist_dsvae.data.transforms import to_device_batch
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.engine.reporting import visuals
from dist_dsvae.engine.reporting.visuals import Visuals
from dist_dsvae.models.norm_statistics import Moments, Statistics, batch_norms
from dist_dsvae.runs import measure_statistics, statistics_file
from dist_dsvae.runs.measure_statistics import Measured, adopt, for_samples, measure, using
from dist_dsvae.runs.statistics_file import measured_of_checkpoint
from dist_dsvae.sampling import statistics_codes as sampling_statistics
from tests.unit.engine.making import write_images
from tests.unit.methods.making import SHAPES, make_any, make_method
from tests.unit.sampling.test_statistics import by_hand

CLASSES = ("a", "b", "c", "d", "e")


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return write_images(tmp_path_factory.mktemp("data") / "split", CLASSES, 12, SHAPES["small32"])


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes enough for all of the pictures."""
    monkeypatch.setattr(measure_statistics, "NUM_CODES", 64)
    monkeypatch.setattr(visuals, "FEW_CODES", 64)


def make_config(split: Manifest) -> ExperimentConfig:
    return ExperimentConfig(
        data=DataConfig(train=str(split.directory)),
        model=ModelConfig(architecture="small32", zs_dim=6, zu_dim=4),
        train=TrainConfig(double_precision=True),
    )


def drawing_of(method: nn.Module, split: Manifest, train: Manifest) -> Visuals:
    runtime = Runtime(TrainConfig(double_precision=True))
    return Visuals(method, split, train, make_config(split), runtime)


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
    return all(
        ours.keys() == theirs.keys()
        and all(
            torch.equal(x, y)
            for name in ours
            for moments in zip(ours[name], theirs[name], strict=True)
            for x, y in zip(*moments, strict=True)
        )
        for ours, theirs in ((a.decoder, b.decoder), (a.encoders, b.encoders))
    )


def assert_close(ours: Statistics, theirs: Sequence[Moments]) -> None:
    assert len(ours) > 2
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.mean, b.mean, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(a.variance, b.variance, rtol=1e-10, atol=1e-12)


@pytest.fixture(scope="module")
def sorted_split(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Class after class, as other tools may write one."""

    def by_class(count: int, *words: int) -> Tensor:
        return (torch.arange(count) % len(CLASSES)).argsort(stable=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "permutation", by_class)
        return write_images(tmp_path_factory.mktemp("data") / "sorted", CLASSES, 12, SHAPES["small32"])


def read(split: Manifest) -> Batch:
    (host,) = one_pass(split, 60)
    return to_device_batch(host, torch.device("cpu"), torch.float64)


@pytest.mark.parametrize("config", [DSVAEConfig(), CVAEConfig(), CVAEGANConfig()], ids=lambda c: c.name)
def test_statistics_of_images_are_those_by_hand(
    config: MethodConfig, split: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of encoders on mixed batches of pictures, and of the decoder on the means that they then make."""
    monkeypatch.setattr(sampling_statistics, "BATCH_SIZE", 16)
    method, twin = make_any(config).eval(), make_any(config).eval()
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    measured = measure(method, split, skip_corrupt=False, kinds=["images"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in method.state_dict().items())
    assert measured.encoders.keys() == (
        {"encoder_s", "encoder_u"} if config.name == "dsvae" else {"encoder_u"}
    )

    order = permutation(60, 0, Draw.POSTERIOR_ZU)
    images, labels = (rows[order][:48].split(16) for rows in read(split)[:2])
    inputs = list(images)
    if config.name != "dsvae":
        planes = [F.one_hot(y, len(CLASSES))[:, :, None, None].expand(-1, -1, 32, 32) for y in labels]
        inputs = [torch.cat(both, 1) for both in zip(images, planes, strict=True)]
    for name, ours in measured.encoders.items():
        encoder = twin.get_submodule(name)
        expected = by_hand(encoder, inputs)
        assert_close(ours, expected)
        for norm, moments in zip(batch_norms(encoder), expected, strict=True):
            norm.running_mean, norm.running_var = moments
    with torch.no_grad():
        found = [twin.encode(x, y) for x, y in zip(images, labels, strict=True)]
    codes = [torch.cat([code.zs, code.zu.mean], 1) for code in found]
    assert_close(measured.decoder["images"], by_hand(twin.decoder.layers, codes))


def test_what_is_measured(split: Manifest) -> None:
    method = make_method().eval()
    prior_alone = measure(method, None, skip_corrupt=False, num_codes=8)
    assert (prior_alone.decoder.keys(), prior_alone.encoders) == ({"prior"}, {})
    few = measure(method, split, skip_corrupt=False, num_codes=8, kinds=["images"])  # from one shard of two
    assert (few.decoder.keys(), few.encoders.keys()) == ({"images"}, {"encoder_s", "encoder_u"})
    assert not same(few, measure(method, split, skip_corrupt=False, kinds=["images"]))
    gan = make_any(CGANConfig()).eval()
    assert measure(gan, split, skip_corrupt=False).encoders == {}
    assert measure(make_any(ClassifierConfig(), "resnet32").eval(), split, skip_corrupt=False) == Measured()


def test_batches_of_a_split_sorted_by_class_are_mixed(
    sorted_split: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read(sorted_split).labels.diff().min() == 0  # it is sorted
    monkeypatch.setattr(sampling_statistics, "BATCH_SIZE", 15)
    method = make_any(CVAEConfig()).eval()
    seen: list[Tensor] = []
    given = method.encoding_input

    def noting(images: Tensor, labels: Tensor) -> Tensor:
        seen.append(labels)
        return given(images, labels)

    monkeypatch.setattr(method, "encoding_input", noting)
    measure(method, sorted_split, skip_corrupt=False, kinds=["images"])
    # the encoder's statistics, then the decoder's of the codes that the encoder gives it
    assert [len(labels) for labels in seen] == [15] * 8
    assert [len(labels.unique()) for labels in seen] == [5] * 8
    assert torch.cat(seen).bincount().tolist() == [24] * 5


def test_statistics_for_good(split: Manifest) -> None:
    """A model that is published has the encoders' under the names that running ones always had."""
    method = make_method().eval()
    names = list(method.state_dict())
    images, labels, _ = read(split)
    with torch.no_grad():
        measured = measure(method, split, skip_corrupt=False)
        with using(method, measured):
            inside = method.encode(images, labels)
        outside = method.encode(images, labels)
        adopt(method, measured)
        adopted = method.encode(images, labels)
    assert torch.equal(adopted.zs, inside.zs)
    assert torch.equal(adopted.zu.mean, inside.zu.mean)
    assert (inside.zs - outside.zs).abs().max() > 0.01
    assert [name for name in method.state_dict() if "decoder.statistics." not in name] == names
    # centred again: what a batch norm gives has mean 0 over the pictures that it was measured on
    given: list[Tensor] = []
    first = batch_norms(method.encoder_u)[0]
    first.register_forward_hook(lambda module, inputs, output: given.append(output.clone()))
    with torch.no_grad():
        method.encode(images, labels)
    torch.testing.assert_close(given[0].mean((0, 2, 3)), first.bias.detach(), rtol=0, atol=1e-10)


def test_drawing_leaves_training_as_it_was(split: Manifest, tmp_path: Path) -> None:
    method = make_method()
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    drawing = drawing_of(method, split, split)
    assert len(drawing.draw(tmp_path, "step-1")) == 2
    after = method.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert method.training


def test_pictures_that_cannot_be_read_stop_no_drawing(
    split: Manifest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = dataclasses.replace(split, directory=tmp_path / "gone")
    drawing = drawing_of(make_method(), split, gone)
    assert len(drawing.draw(tmp_path, "step-1")) == 2
    (record,) = caplog.records
    assert "encoded and decoded with the running statistics of training" in record.message


def test_using_gives_back_what_was_there(split: Manifest) -> None:
    method = make_method().eval()
    first = measure(method, None, skip_corrupt=False, num_codes=8).decoder["prior"]
    method.decoder.set_statistics("prior", first)
    before = method.state_dict()
    kept = {name: tensor.clone() for name, tensor in before.items()}
    measured = measure(method, split, skip_corrupt=False, num_codes=16)

    def fail() -> None:
        with using(method, measured):
            assert method.decoder.statistics_of("images") is not None
            assert not torch.equal(method.decoder.statistics_of("prior")[0].mean, first[0].mean)
            for name, statistics in measured.encoders.items():
                norms = batch_norms(method.get_submodule(name))
                assert [norm.running_mean for norm in norms] == [moments.mean for moments in statistics]
                assert [norm.running_var for norm in norms] == [moments.variance for moments in statistics]
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    after = method.state_dict()
    assert list(after) == list(before)
    for name, tensor in after.items():
        assert torch.equal(tensor, kept[name]), name
        if name.startswith("encoder"):  # a captured graph knows them by their addresses
            assert tensor.data_ptr() == before[name].data_ptr()


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
    assert first.decoder.keys() == {"images", "prior"}
    assert first.encoders.keys() == {"encoder_s", "encoder_u"}
    assert load_file(path)["images.mean_0"].dtype == torch.float64
    assert [p.name for p in checkpoint.iterdir()] == ["checkpoint.json"]
    # all ranks of an evaluation find the same
    found = statistics_file.measured_for_evaluation(checkpoint, method, "ema", split, skip_corrupt=False)
    assert same(found, first)
    measured_of_checkpoint(checkpoint, method, "raw")
    assert len(times) == 2

    with safe_open(path, framework="pt") as opened:
        metadata = opened.metadata()
    older = {name: tensor for name, tensor in load_file(path).items() if not name.startswith("encoder_s")}
    save_file(older, path, metadata)  # one of before encoders were measured
    assert same(measured_of_checkpoint(checkpoint, method, "ema"), first)
    assert len(times) == 3
    assert "encoder_s.mean_0" in load_file(path)

    path.write_bytes(path.read_bytes()[:-50])  # damaged, but ours
    assert same(measured_of_checkpoint(checkpoint, method, "ema"), first)
    assert len(times) == 4
    assert "images.mean_0" in load_file(path)
    (checkpoint / "checkpoint.json").write_text('{"trained": "anew"}')
    measured_of_checkpoint(checkpoint, method, "ema")
    assert len(times) == 5

    path.write_bytes(b"something of someone else's")
    for number in (6, 7):
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
    found = measured_of_checkpoint(checkpoint, method, "raw")
    assert (found.decoder.keys(), found.encoders) == ({"prior"}, {})
    (record,) = caplog.records
    assert "are not those that" in record.message
    dataset.write_text(right)  # they are back
    found = measured_of_checkpoint(checkpoint, method, "raw")
    assert found.decoder.keys() == {"images", "prior"}
    assert found.encoders.keys() == {"encoder_s", "encoder_u"}


def test_samples_as_images(
    checkpoint: Path,
    split: Manifest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """``evaluation.batch_norm: "images"``: by one set of statistics, in what is drawn and in the grids."""
    method, config = make_method().eval(), make_config(split)
    own = measured_of_checkpoint(checkpoint, method, "raw")
    assert not torch.equal(own.decoder["prior"][0].mean, own.decoder["images"][0].mean)
    as_images = dataclasses.replace(config, evaluation=EvaluationConfig(batch_norm="images"))
    (checkpoint.parent.parent / "config.json").write_text(to_json(as_images))
    found = measured_of_checkpoint(checkpoint, method, "raw")
    assert found.decoder["prior"] is found.decoder["images"]
    assert torch.equal(found.decoder["images"][0].mean, own.decoder["images"][0].mean)
    prior_alone = Measured({"prior": own.decoder["prior"]})
    assert for_samples(prior_alone, as_images=True) == prior_alone  # there is nothing else
    assert "statistics of the prior" not in caplog.text
    dataset = checkpoint.parent.parent / "dataset.json"
    dataset.write_text(dataset.read_text().replace(split.fingerprint, "of other shards"))
    assert measured_of_checkpoint(checkpoint, method, "ema").decoder.keys() == {"prior"}
    assert "So samples are decoded with the statistics of the prior" in caplog.text

    drawn_by: list[Measured] = []
    monkeypatch.setattr(visuals, "using", lambda method, measured: drawn_by.append(measured) or nullcontext())
    dataclasses.replace(drawing_of(method, split, split), config=as_images).draw(tmp_path, "step-1")
    assert drawn_by[0].decoder["prior"] is drawn_by[0].decoder["images"]
