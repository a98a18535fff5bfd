"""Real pictures for figures: which of a split they are."""

from __future__ import annotations

import pytest
from torch import Tensor

from dist_dsvae import PretrainedModel
from dist_dsvae.core.shipped import EMBEDDED_TEST, at_hand, model_in_the_box
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.runs.open_model import shown_of_split


@pytest.fixture(scope="module")
def model() -> PretrainedModel:
    return PretrainedModel.from_pretrained(str(model_in_the_box()))


def _each(images: Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in images]


@pytest.mark.parametrize(
    ("rows", "columns", "classes"),
    [(6, 8, None), (6, 8, [1]), (8, 3, [1]), (20, 8, None), (12, 6, None), (3, 2, [4, 4]), (1, 7, [2, 3])],
)
def test_rows_and_columns_are_different_pictures(
    model: PretrainedModel, rows: int, columns: int, classes: list[int] | None
) -> None:
    split = Manifest.load(at_hand(EMBEDDED_TEST))
    left = shown_of_split(model, split, classes, rows, 0)
    top = shown_of_split(model, split, classes, columns, 0, after=[rows])
    assert left.labels is not None
    assert top.labels is not None
    assert (len(left.labels), len(top.labels)) == (rows, columns)
    assert {*left.labels, *top.labels} <= {*(classes or range(10))}
    assert len({*_each(left.images), *_each(top.images)}) == rows + columns


def test_the_figures_of_before_are_the_same(model: PretrainedModel) -> None:
    split = Manifest.load(at_hand(EMBEDDED_TEST))
    top = shown_of_split(model, split, None, 8, 0, after=[6])
    of_all = shown_of_split(model, split, None, 20, 0)  # two of each class in turn
    assert top.labels == [0, 1, 2, 3, 5, 6, 7, 8]
    assert _each(top.images) == [_each(of_all.images)[10 + label] for label in top.labels]
