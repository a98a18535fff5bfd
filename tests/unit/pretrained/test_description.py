"""What a model says of itself, and what it returns saves itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dist_dsvae.config import CGANConfig, ClassifierConfig, DSVAEConfig
from dist_dsvae.pretrained.image_kinds import ImageError, ImageList
from dist_dsvae.pretrained.model import PretrainedModel
from tests.unit.pretrained.making import CLASSES, make_model, make_published


def test_a_model_says_what_it_is_and_where_from(tmp_path: Path) -> None:
    about = {
        "run": "quick\x1b[31m\nstart",
        "checkpoint": "step-00000250",
        "weights": "ema",
        "data": "shards/x/train",
        "num_samples": 10_000,
    }
    made = PretrainedModel(make_published(DSVAEConfig())._replace(about=about))
    number = sum(weights.numel() for weights in made.published.method.parameters())
    made.save_pretrained(tmp_path / "model")
    model = PretrainedModel.from_pretrained(tmp_path / "model")
    assert str(model).splitlines() == [
        "PretrainedModel: dsvae of 32x32 grey pictures",
        "  classes   5: boot, bag, coat, dress, T-shirt/top",
        f"  networks  small32, {number:,} weights; zs has 6, zu 4 dimensions",
        "  trained   moving average, quick [31m start, step-00000250",
        "  data      shards/x/train, 10,000 samples",
        f"  from      {tmp_path / 'model'}",
    ]
    assert repr(model) == f"<PretrainedModel: dsvae of 32x32 grey pictures, 5 classes, from {tmp_path}/model>"
    assert model.classes == CLASSES
    model.save_pretrained(tmp_path / "again")
    assert str(tmp_path) not in (tmp_path / "again/config.json").read_text()


def test_what_is_not_known_is_left_out() -> None:
    printed = str(make_model(CGANConfig(), "mlp2d"))
    assert printed.startswith("PretrainedModel: cgan of points\n  classes   5: ")
    assert len(printed.splitlines()) == 3
    assert "dimensions" not in str(make_model(ClassifierConfig(), "resnet32"))


def test_many_classes_are_cut_off() -> None:
    many = tuple(f"class {number}" for number in range(500))
    model = make_model(DSVAEConfig())
    model.published = model.published._replace(classes=many)
    assert max(map(len, str(model).splitlines())) <= 112
    assert "500: class 0, class 1, " in str(model)


def test_samples_save_a_class_per_row(tmp_path: Path) -> None:
    images = make_model(DSVAEConfig()).sample(["bag", "coat", "dress"], n=2, generator=0)
    assert isinstance(images, list)
    images.save(tmp_path / "new/grid.png")
    drawn = np.asarray(Image.open(tmp_path / "new/grid.png").convert("L"))
    assert drawn.shape == (3 * 66 - 2, 2 * 66 - 2)  # twice the 32 pixels, and gaps of 2
    for number, image in enumerate(images):
        y, x = 66 * (number // 2), 66 * (number % 2)
        assert np.array_equal(drawn[y : y + 64 : 2, x : x + 64 : 2], np.asarray(image))
    images.save(str(tmp_path / "new/grid.png"))  # this program drew it


def test_grids_and_results_of_pictures_save_themselves(tmp_path: Path) -> None:
    model = make_model(DSVAEConfig())
    images = model.sample("bag", n=3, generator=0)
    for rows in (model.interpolate(["bag", "coat"], 4), model.vary(0, ["bag", "coat"], 4)):
        rows.save(tmp_path / "rows.png")
        assert Image.open(tmp_path / "rows.png").size == (4 * 66 - 2, 2 * 66 - 2)
    model.swap_grid(images, images[:2]).save(tmp_path / "swaps.png")
    assert Image.open(tmp_path / "swaps.png").size == (2 * 66 - 2, 3 * 66 - 2)
    model.swap(images, images[0]).save(tmp_path / "three.png")
    assert Image.open(tmp_path / "three.png").size == (3 * 66 - 2, 64)


@pytest.mark.parametrize(
    ("count", "columns", "rows"), [(1, 1, 1), (4, 2, 2), (5, 3, 2), (10, 4, 3), (100, 10, 10)]
)
def test_a_list_is_about_as_wide_as_high(count: int, columns: int, rows: int, tmp_path: Path) -> None:
    ImageList([Image.new("RGB", (64, 64))] * count).save(tmp_path / "list.png")
    assert Image.open(tmp_path / "list.png").size == (columns * 66 - 2, rows * 66 - 2)


def test_what_cannot_be_saved_gets_a_sentence(tmp_path: Path) -> None:
    images = ImageList([Image.new("L", (32, 32))])
    with pytest.raises(ImageError, match=r"does not end in .png"):
        images.save(tmp_path / "grid.jpg")
    with pytest.raises(ImageError, match="There are no pictures"):
        ImageList().save(tmp_path / "grid.png")
    Image.new("L", (2, 2)).save(tmp_path / "mine.png")
    with pytest.raises(ImageError, match="is no picture that this program drew"):
        images.save(tmp_path / "mine.png")
