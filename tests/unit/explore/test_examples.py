"""What the page opens with: the samples that the model knows best, and pictures to try things with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dist_dsvae.config import CGANConfig, CVAEConfig, DSVAEConfig
from dist_dsvae.config.reading import load_config, to_tree
from dist_dsvae.core.shipped import EMBEDDED_TEST, model_in_the_box
from dist_dsvae.explore import examples
from dist_dsvae.explore.examples import (
    TYPICAL,
    best_known,
    certainty,
    first_classes,
    rows_of_samples,
)
from dist_dsvae.pretrained.model import PretrainedModel
from dist_dsvae.runs.open_model import open_model
from tests.unit.explore.making import make_model
from tests.unit.pretrained.making import CLASSES

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def model() -> PretrainedModel:
    return make_model(DSVAEConfig())


@pytest.fixture(scope="module")
def boxed() -> PretrainedModel:
    return open_model(None, str(model_in_the_box()))


def drawn(model: PretrainedModel, *, shared_zu: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Four times two samples of classes 1 and 3, and the log-probability of their classes [2, 8]."""
    images = model.sample([1, 3], 8, 5, shared_zu=shared_zu, kind="tensor")
    probabilities = model.classify(images).unflatten(0, (2, 8))
    return images.unflatten(0, (2, 8)), torch.stack([probabilities[0, :, 1], probabilities[1, :, 3]]).log()


def test_of_each_class_those_that_the_model_is_surest_of(model: PretrainedModel) -> None:
    images, scores = drawn(model, shared_zu=False)
    best = best_known(model, [1, 3], 2, 5, shared_zu=False)
    for row in (0, 1):
        chosen = sorted(sorted(range(8), key=lambda k: -float(scores[row, k]))[:2])
        assert torch.equal(best[row], images[row, chosen])


def test_with_one_zu_per_column_whole_columns_are_chosen(model: PretrainedModel) -> None:
    images, scores = drawn(model, shared_zu=True)
    chosen = sorted(sorted(range(8), key=lambda k: -float(scores.mean(0)[k]))[:2])
    assert torch.equal(best_known(model, [1, 3], 2, 5, shared_zu=True), images[:, chosen])


@pytest.mark.parametrize("config", [CVAEConfig(), CGANConfig()], ids=lambda c: c.name)
def test_a_method_without_a_classifier_shows_what_it_draws(config: CVAEConfig | CGANConfig) -> None:
    model = make_model(config)
    images = model.sample([1, 3], 2, 5, kind="tensor").unflatten(0, (2, 2))
    assert torch.equal(best_known(model, [1, 3], 2, 5, shared_zu=False), images)


def test_typical_samples_are_better_known_than_others(boxed: PretrainedModel) -> None:
    """The choice does what it is for, with the model that comes with the project."""
    classes = list(range(10))
    labels = torch.tensor(classes).repeat_interleave(4)
    best = best_known(boxed, classes, 4, 0, TYPICAL, shared_zu=True).flatten(0, 1)
    others = boxed.sample(classes, 4, 0, shared_zu=True, kind="tensor")
    sure, usual = (float(certainty(boxed, images, labels).exp().mean()) for images in (best, others))
    assert sure > 0.85
    assert 1 - sure < (1 - usual) / 2  # a difference would have no room beside a usual one near 1


def test_of_many_classes_the_page_opens_with_the_best_known(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(DSVAEConfig())
    assert first_classes(model) == list(range(len(CLASSES)))
    monkeypatch.setattr(examples, "NUM_CLASSES", 2)
    samples = model.sample(None, 4, 0, temperature_zs=TYPICAL.zs, temperature_zu=TYPICAL.zu, kind="tensor")
    labels = torch.arange(len(CLASSES)).repeat_interleave(4)
    means = certainty(model, samples, labels).unflatten(0, (-1, 4)).mean(1)
    assert first_classes(model) == sorted(means.topk(2).indices.tolist())
    assert first_classes(make_model(CVAEConfig())) == [0, 2]  # spread, where the model has no opinion


def test_the_model_in_the_box_has_test_pictures_beside_it(boxed: PretrainedModel) -> None:
    found = examples.examples(boxed, None, str(model_in_the_box()))
    assert [one.class_name for one in found[:2]] == ["Ankle boot", "Bag"]
    assert len(found) == examples.NUM_EXAMPLES
    assert {one.image.size for one in found} == {(32, 32)}
    own = examples.examples(boxed, None, "elsewhere")
    assert len(own) == examples.NUM_EXAMPLES
    pairs = zip(found, own, strict=True)
    assert not any(np.array_equal(np.asarray(a.image), np.asarray(b.image)) for a, b in pairs)


def test_a_run_shows_its_test_pictures_where_its_shards_are(
    tmp_path: Path, boxed: PretrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = to_tree(load_config(REPOSITORY / "configs/quickstart.json"))
    assert tree["data"]["test"] == EMBEDDED_TEST
    dataset = {"shape": boxed.shape._asdict(), "classes": boxed.classes}
    (tmp_path / "dataset.json").write_text(json.dumps(dataset), "utf-8")
    (tmp_path / "config.json").write_text(json.dumps(tree), "utf-8")
    monkeypatch.chdir(REPOSITORY)
    of_box = examples.examples(boxed, None, str(model_in_the_box()))
    assert examples.examples(boxed, tmp_path, None) == of_box
    tree["data"] |= {"train": "nowhere/train", "test": "nowhere/test"}
    (tmp_path / "config.json").write_text(json.dumps(tree), "utf-8")
    assert examples.examples(boxed, tmp_path, None) == examples.examples(boxed, None, None)


def test_samples_as_examples_are_of_classes_in_turn(model: PretrainedModel) -> None:
    found = examples.examples(model, None, None)
    assert [one.class_name for one in found] == [*CLASSES, *CLASSES[:3]]
    images = best_known(model, list(range(len(CLASSES))), 2, 0, TYPICAL, shared_zu=False)
    for place, one in enumerate(found):
        expected = images[place % len(CLASSES), place // len(CLASSES), 0].add(1).mul(127.5)
        assert np.abs(np.asarray(one.image, float) - expected.numpy()).max() <= 1


def test_a_method_of_one_code_has_the_variety_of_zu() -> None:
    """The page shows it one slider; samples of before any is moved are typical ones, too."""
    model = make_model(CVAEConfig())
    images = rows_of_samples(model, [0, 1], 3, 5, TYPICAL, shared_zu=False)
    both = {"temperature_zs": TYPICAL.zu, "temperature_zu": TYPICAL.zu}
    assert TYPICAL.zs != TYPICAL.zu
    assert torch.equal(images.flatten(0, 1), model.sample([0, 1], 3, 5, **both, kind="tensor"))
