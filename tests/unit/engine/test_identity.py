"""The stage that measures identity: which figures a method gets, on which split, stopped and resumed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dist_dsvae.config import DataConfig, EvaluationConfig, TrainConfig
from dist_dsvae.config.reading import ConfigError
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.noise import Noise
from dist_dsvae.core.types import Codes, Gaussian, ImageShape
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.stream import one_pass
from dist_dsvae.data.transforms import to_device_batch
from dist_dsvae.engine.evaluating.evaluate import evaluation_of, with_changes
from dist_dsvae.engine.evaluating.evaluator import Candidate, EvaluationInputs
from dist_dsvae.engine.evaluating.progress import Progress
from dist_dsvae.engine.evaluating.resemblance import Identity
from dist_dsvae.engine.evaluating.swapping import SwapScores
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.evaluation.judging.judge import Judge
from tests.unit.engine.making import write_images

SHAPE = ImageShape(1, 4, 4)
CLASSIFIER = Path(__file__).parents[3] / "shards/fashion-mnist-mini/classifier"
KNOWN, UNKNOWN = ("ann", "bob", "cy"), ("dan", "eve", "flo", "gus")


class Pixels(nn.Module):
    """Features: the pixels. Counts the images it sees."""

    num_seen = 0

    def forward(self, rgb: Tensor) -> tuple[None, Tensor]:
        self.num_seen += len(rgb)
        return None, rgb[:, 0].flatten(1)


class Logits(nn.Module):
    """Of three classes, by three pixels."""

    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        return rgb[:, 0].flatten(1)[:, :3], rgb[:, 0].flatten(1)


class Generator(nn.Module):
    """Draws for every class a picture of its own, the same whatever the noise."""

    num_classes, zu_dim = len(KNOWN), 16

    def prior_codes(self, labels: Tensor, zs_noise: Noise, zu_noise: Noise) -> Tensor:
        # checks of as many stripes as the label says, in both halves of the code
        stripes = torch.arange(16.0).expand(len(labels), 16) % (2 + labels[:, None]) / 4
        return torch.cat([stripes, stripes], dim=1)

    def decode(self, codes: Tensor, kind: str) -> Tensor:
        return codes[:, :16].view(-1, *SHAPE)

    def decoding_network(self) -> nn.Module:
        return nn.Identity()  # without statistics


class Conditional(Generator):
    """zs is the picture itself, and all that the decoder looks at; with a label that was trained on."""

    def encode(self, images: Tensor, labels: Tensor) -> Codes:
        assert int(labels.max()) < self.num_classes
        flat = images.flatten(1)
        return Codes(flat, Gaussian(flat, flat))

    def encoding_networks(self) -> dict[str, nn.Module]:
        return {}

    def encoding_input(self, images: Tensor, labels: Tensor) -> Tensor:
        return images

    def draw_codes(self, images: Tensor, labels: Tensor, noise: Noise) -> Tensor:
        raise AssertionError  # whom pictures resemble is asked of the means


class Perfect(Conditional):
    """The same without a label."""

    def encode_unlabelled(self, images: Tensor) -> Codes:
        return self.encode(images, torch.zeros(len(images), dtype=torch.int64))


class Half(Perfect):
    """Decodes pictures of half the contrast."""

    def decode(self, codes: Tensor, kind: str) -> Tensor:
        return codes[:, :16].view(-1, *SHAPE) / 2


@pytest.fixture
def splits(tmp_path: Path) -> dict[str, Manifest]:
    """45 pictures of each known and 20 of each unknown person."""
    return {
        "test": write_images(tmp_path / "test", KNOWN, 45, SHAPE),
        "held_out": write_images(tmp_path / "held-out", UNKNOWN, 20, SHAPE),
    }


def stage(splits: dict[str, Manifest], **settings: object) -> Identity:
    config = EvaluationConfig(samples_per_class=10, **settings)  # type: ignore[arg-type]
    data = DataConfig(train="x")
    found = Identity(EvaluationInputs(config, data, splits["test"], splits["test"], Runtime(TrainConfig())))
    found.network = Judge("pixels", "0" * 64, None, 16, Pixels())
    return found


def read(split: Manifest) -> tuple[torch.Tensor, torch.Tensor]:
    """All images, float32 in [-1, 1], and their labels."""
    batches = [to_device_batch(host, torch.device("cpu"), torch.float32) for host in one_pass(split, 9)]
    return torch.cat([batch.images for batch in batches]), torch.cat([batch.labels for batch in batches])


def measured(
    identity: Identity, method: Generator, progress: Progress | None = None
) -> tuple[dict[str, float], dict[str, float]]:
    found = identity(Candidate(method, identity.inputs, progress or Progress()))
    return found.figures, found.real


SWAPS = {"swap_to_zs", "swap_to_zu", "swaps", "reconstruction"}
PAIRS = {"same_person", "other_person"}
SAMPLES = {"sample_to_class", "sample_to_others"}


@pytest.mark.parametrize(
    ("method", "known", "unknown"),
    [
        (Generator(), PAIRS | SAMPLES, set()),
        (Conditional(), PAIRS | SAMPLES | SWAPS, set()),
        (Perfect(), PAIRS | SAMPLES | SWAPS, PAIRS | SWAPS),
    ],
    ids=["draws", "needs labels", "needs none"],
)
def test_figures_by_ability(
    splits: dict[str, Manifest], method: Generator, known: set[str], unknown: set[str]
) -> None:
    identity = stage(splits, held_out=str(splits["held_out"].directory))
    figures, real = measured(identity, method)
    expected = {f"identity_{name}" for name in known} | {f"held_out_identity_{name}" for name in unknown}
    if unknown:
        expected.add("held_out_reconstruction_error")
    assert figures.keys() == expected
    assert real.keys() <= figures.keys()
    assert real["identity_sample_to_class"] == figures["identity_same_person"]
    assert real["identity_sample_to_others"] == figures["identity_other_person"]
    if unknown:
        assert real["held_out_identity_swap_to_zs"] == figures["held_out_identity_same_person"]


def test_perfect_swaps_of_both_splits(splits: dict[str, Manifest]) -> None:
    identity = stage(splits, identity_samples=0, held_out=str(splits["held_out"].directory))
    figures, _ = measured(identity, Perfect())
    for prefix, num_images in (("", 135), ("held_out_", 80)):
        assert figures[f"{prefix}identity_swap_to_zs"] == pytest.approx(1, abs=1e-6)
        assert figures[f"{prefix}identity_reconstruction"] == pytest.approx(1, abs=1e-6)
        assert figures[f"{prefix}identity_swap_to_zu"] < 0.9
        # all but a few of the last batch, which is small
        assert num_images - 4 < figures[f"{prefix}identity_swaps"] <= num_images
        # the pictures of a person are alike
        assert figures[f"{prefix}identity_same_person"] > figures[f"{prefix}identity_other_person"] + 0.1
    assert figures["held_out_reconstruction_error"] == pytest.approx(0, abs=1e-12)


def test_error_of_unknown_persons_without_a_network(splits: dict[str, Manifest]) -> None:
    identity = stage(splits, held_out=str(splits["held_out"].directory))
    identity.network = None
    figures, real = measured(identity, Half())
    images, _ = read(splits["held_out"])
    assert len(images) == 80
    assert figures == {
        "held_out_reconstruction_error": pytest.approx((images / 2).double().square().mean().item())
    }
    assert real == {}
    assert identity.settings() == {"held_out_fingerprint": splits["held_out"].fingerprint}


def test_samples_against_the_pictures_of_their_class(splits: dict[str, Manifest]) -> None:
    identity = stage(splits, identity_samples=0)
    method = Generator()
    figures, _ = measured(identity, method)
    noise = Noise(0, torch.arange(3))
    drawn = method.decode(method.prior_codes(torch.arange(3), noise, noise), "prior").flatten(1)
    images, labels = read(splits["test"])
    images = images.flatten(1)
    cosines = F.cosine_similarity(drawn[:, None], images[None], dim=2)
    own = [cosines[label, labels == label].mean().item() for label in range(3)]
    others = [cosines[i, labels == j].mean().item() for i in range(3) for j in range(3) if i != j]
    assert figures["identity_sample_to_class"] == pytest.approx(sum(own) / 3, abs=5e-3)  # 8 bits
    assert figures["identity_sample_to_others"] == pytest.approx(sum(others) / 6, abs=5e-3)
    assert abs(sum(own) / 3 - sum(others) / 6) > 0.02


def test_no_more_than_asked_for_is_looked_at(splits: dict[str, Manifest]) -> None:
    identity = stage(splits, identity_samples=10, held_out=str(splits["held_out"].directory))
    figures, _ = measured(identity, Perfect())
    assert identity.network is not None
    swaps = [figures[f"{prefix}identity_swaps"] for prefix in ("", "held_out_")]
    assert all(8 <= number <= 10 for number in swaps)
    # pictures and reconstructions of both splits, swaps, samples
    assert identity.network.network.num_seen == 2 * 20 + sum(swaps) + 10


class KilledError(Exception):
    """Stands for what ends a process."""


def test_a_killed_measurement_goes_on_where_it_was(splits: dict[str, Manifest], tmp_path: Path) -> None:
    settings = {"identity_samples": 0, "held_out": str(splits["held_out"].directory)}
    whole = measured(stage(splits, **settings), Perfect())
    turns = iter([None, None, None, KilledError()])  # before the unknown persons' swaps

    def pause() -> None:
        if (problem := next(turns, None)) is not None:
            raise problem

    killed, resumed = stage(splits, **settings), stage(splits, **settings)
    with pytest.raises(KilledError):
        measured(killed, Perfect(), Progress(tmp_path / "p", {"a": 1}, pause))
    assert measured(resumed, Perfect(), Progress(tmp_path / "p", {"a": 1})) == whole
    assert killed.network is not None
    assert resumed.network is not None
    swaps, unknown_swaps = (whole[0][f"{prefix}identity_swaps"] for prefix in ("", "held_out_"))
    assert killed.network.network.num_seen == 2 * 135 + swaps + 30  # and none of the unknown
    assert resumed.network.network.num_seen == 2 * 80 + unknown_swaps


def test_wrong_settings_get_a_sentence(splits: dict[str, Manifest], tmp_path: Path) -> None:
    write_images(tmp_path / "small", UNKNOWN, 2, ImageShape(1, 2, 2))
    write_images(tmp_path / "overlapping", ("eve", "bob"), 2, SHAPE)
    for settings, sentence in (
        ({"identity_network": "no/face.safetensors"}, r"evaluation.identity_network is 'no/face.* no file"),
        ({"identity_network": "facenet=no/face.safetensors"}, "there is no file no/face.safetensors"),
        ({"identity_network": str(CLASSIFIER)}, "trained on 32x32 images, but these have 4x4 pixels"),
        ({"held_out": str(tmp_path / "nowhere")}, "nowhere does not exist"),
        ({"held_out": str(tmp_path / "small")}, r"small, has samples of the shape \[1, 2, 2\], but .*4, 4"),
        ({"held_out": str(tmp_path / "overlapping")}, r"has 1 classes that are trained on \(bob\)"),
    ):
        with pytest.raises(ValueError, match=sentence):
            stage(splits, **settings)
    with pytest.raises(ConfigError, match=r"evaluation.identity_samples is -1; it must be between 0"):
        with_changes(EvaluationConfig(), ["evaluation.identity_samples=-1"])


def test_a_training_looks_at_the_split_that_its_evaluations_name(
    splits: dict[str, Manifest], tmp_path: Path
) -> None:
    """Also where none is due before its end: each would be refused then."""
    write_images(tmp_path / "overlapping", ("eve", "bob"), 2, SHAPE)
    config = EvaluationConfig(held_out=str(tmp_path / "overlapping"))
    with pytest.raises(DataError, match=r"has 1 classes that are trained on \(bob\)"):
        evaluation_of(config, DataConfig(train="x"), splits["test"], None, Runtime(TrainConfig()))


def test_points_have_no_faces(splits: dict[str, Manifest], tmp_path: Path) -> None:
    points = dataclasses.replace(splits["test"], shape=ImageShape(2, 0, 0))
    config = EvaluationConfig(identity_network="face.safetensors")
    inputs = EvaluationInputs(config, DataConfig(train="x"), points, points, Runtime(TrainConfig()))
    with pytest.raises(ValueError, match="the data are points: a face network looks at pictures"):
        Identity(inputs)


def test_pictures_of_one_class_have_nobody_to_swap_with(tmp_path: Path) -> None:
    """A share of no pairs is not 0."""
    for classes, expected in ((KNOWN[:1], set()), (KNOWN, {"swap_follows_zs", "swap_follows_zu"})):
        split = write_images(tmp_path / str(len(classes)), classes, 12, SHAPE)
        inputs = EvaluationInputs(
            EvaluationConfig(), DataConfig(train="x"), split, split, Runtime(TrainConfig())
        )
        scored = SwapScores(inputs, Judge("pixels", "0" * 64, 3, 16, Logits()))
        assert scored(Candidate(Perfect(), inputs, Progress())).figures.keys() == expected
