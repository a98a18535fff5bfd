"""shards/build.py cub200: birds cut out by their boxes, the official split, and broken layouts."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dist_dsvae.building.sources.cub200 import Box, cut_out
from dist_dsvae.data.shards.manifest import Manifest
from tests.unit.data.making import all_files, samples_of

Run = Callable[..., int]
GREEN, RED = (20, 180, 30), (200, 30, 40)
CLASSES = ("001.Black_footed_Albatross", "002.Laysan_Albatross")
NUM_IMAGES = 6


def write_cub200(root: Path) -> None:
    """Six red pictures with a green bird each; image i has the class i mod 2, every third is for testing."""
    lines: dict[str, list[str]] = {}
    for image in range(1, NUM_IMAGES + 1):
        name = f"{CLASSES[image % 2]}/bird_{image:04d}.jpg"
        drawn = Image.new("RGB", (100, 80), RED)
        drawn.paste(GREEN, (20 + image, 30, 60 + image, 50))
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        drawn.save(root / "images" / name, quality=95, subsampling=0)
        for table, line in (
            ("images", f"{image} {name}"),
            ("bounding_boxes", f"{image} {20 + image}.0 30.0 40.0 20.0"),
            ("image_class_labels", f"{image} {1 + image % 2}"),
            ("train_test_split", f"{image} {int(image % 3 != 0)}"),
        ):
            lines.setdefault(table, []).append(line)
    lines["classes"] = [f"{number} {name}" for number, name in enumerate(CLASSES, start=1)]
    for table, content in lines.items():
        (root / f"{table}.txt").write_text("\n".join(content) + "\n")


@pytest.mark.parametrize("source", ["CUB_200_2011", "."])
def test_birds_are_cut_out(run: Run, source: str) -> None:
    write_cub200(Path("CUB_200_2011"))
    assert run("cub200", source, "out", "--margin", 0.25, "--format", "png", "--size", 60) == 0
    numbers = {}
    for split in ("train", "test"):
        manifest = Manifest.load(f"out/{split}")
        assert manifest.classes == CLASSES
        assert manifest.shape == (3, 60, 60)
        assert manifest.source == "cub200"
        assert "--margin 0.25" in manifest.command
        numbers[split] = set()
        for content, label, about in samples_of(Path("out") / split):
            number = int(about["source"][-8:-4])
            numbers[split].add(number)
            assert label == number % 2
            assert about["source"] == f"{about['class_name']}/bird_{number:04d}.jpg"
            # The box of 40 x 20 makes a square of 60 x 60 pixels, and nothing is scaled.
            pixels = np.array(Image.open(io.BytesIO(content)))
            expected = np.full((60, 60, 3), RED)
            expected[20:40, 10:50] = GREEN
            np.testing.assert_allclose(pixels, expected, atol=12)
    assert numbers == {"train": {1, 2, 4, 5}, "test": {3, 6}}


def test_by_default_64_pixels_and_a_tenth(run: Run) -> None:
    write_cub200(Path("raw"))
    assert run("cub200", "raw", "out") == 0
    manifest = Manifest.load("out/train")
    assert (manifest.shape, manifest.encoding) == ((3, 64, 64), "jpg")
    for content, _, _ in samples_of(Path("out/train")):
        green = np.array(Image.open(io.BytesIO(content)))[32, :, 1] > 105
        assert green.sum() == pytest.approx(64 / 1.2, abs=1)
    assert run("cub200", "raw", "again") == 0
    for split in ("train", "test"):
        shards = [
            {name: data for name, data in all_files(Path(out, split)).items() if name != "manifest.json"}
            for out in ("out", "again")
        ]
        assert shards[0] == shards[1]


def numbered(width: int, height: int) -> Image.Image:
    """Every pixel is (its column, its row, 0)."""
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([columns, rows, 0 * rows], axis=2).astype(np.uint8))


@pytest.mark.parametrize(
    ("box", "margin", "columns", "rows"),
    [
        (Box(20, 10, 10, 10), 0.0, [*range(20, 30)], [*range(10, 20)]),
        (Box(20, 10, 10, 4), 0.0, [*range(20, 30)], [*range(7, 17)]),  # squared around its middle
        (Box(20, 10, 10, 10), 0.2, [*range(18, 32)], [*range(8, 22)]),
        (Box(0, 0, 10, 10), 0.5, [*range(20)], [*range(20)]),  # moved inside
        (Box(45, 25, 5, 5), 0.5, [*range(40, 50)], [*range(20, 30)]),
        # 40 pixels do not fit into 30 rows: the border is repeated, the middle stays the middle
        (Box(5, 5, 40, 20), 0.0, [*range(5, 45)], [0] * 5 + [*range(30)] + [29] * 5),
        (Box(0, 0, 40, 20), 0.0, [*range(40)], [0] * 10 + [*range(30)]),
        (Box(0, 10, 50, 20), 0.1, [0] * 5 + [*range(50)] + [49] * 5, [0] * 10 + [*range(30)] + [29] * 20),
    ],
)
def test_where_the_square_lies(box: Box, margin: float, columns: list[int], rows: list[int]) -> None:
    pixels = np.array(cut_out(numbered(50, 30), box, margin))
    assert pixels[0, :, 0].tolist() == columns
    assert pixels[:, 0, 1].tolist() == rows


@pytest.mark.parametrize("box", [Box(50, 0, 5, 5), Box(0, 30, 5, 5), Box(-5, 0, 5, 5), Box(0, -9, 5, 5)])
def test_a_box_outside_its_picture(box: Box) -> None:
    with pytest.raises(ValueError, match="outside the picture of 50 x 30 pixels"):
        cut_out(numbered(50, 30), box, 0.0)


def test_boxes_count_the_pixels_as_stored(run: Run) -> None:
    write_cub200(Path("raw"))
    path = next(Path("raw/images").rglob("*_0001.jpg"))
    exif = Image.Exif()
    exif[0x0112] = 6  # asks viewers to turn it
    Image.open(path).save(path, exif=exif, quality=95, subsampling=0)
    assert run("cub200", "raw", "out", "--size", 48, "--format", "png") == 0
    found = {about["source"][-8:-4]: content for content, _, about in samples_of(Path("out/train"))}
    pixels = np.array(Image.open(io.BytesIO(found["0001"]))).astype(int)
    green = pixels[:, :, 1] > 105
    assert green.any(axis=1).sum() == 20
    assert green.any(axis=0).sum() == 40


def test_missing_pictures_are_named(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    write_cub200(Path("raw"))
    next(Path("raw/images").rglob("*_0004.jpg")).unlink()
    assert run("cub200", "raw", "out") == 0
    assert "bird_0004.jpg (FileNotFoundError" in capsys.readouterr().out
    assert Manifest.load("out/train").num_samples == 3


def replace(file: str, old: str, new: str) -> Callable[[], None]:
    def change() -> None:
        text = Path("raw", file).read_text()
        assert old in text
        Path("raw", file).write_text(text.replace(old, new, 1))

    return change


@pytest.mark.parametrize(
    ("damage", "arguments", "sentence"),
    [
        (lambda: Path("raw/images").rename("elsewhere"), [], "The folder raw/images is missing"),
        *(
            (lambda name=name: Path("raw", name).unlink(), [], f"The file raw/{name} is missing")
            for name in (
                "images.txt",
                "bounding_boxes.txt",
                "image_class_labels.txt",
                "classes.txt",
                "train_test_split.txt",
            )
        ),
        (
            replace("bounding_boxes.txt", "3 23.0", "9 23.0"),
            [],
            "bounding_boxes.txt has no line for the id 3",
        ),
        (replace("bounding_boxes.txt", "40.0", "forty"), [], "id 1 in raw/bounding_boxes.txt cannot be used"),
        (replace("bounding_boxes.txt", "40.0", "0"), [], "its sides must be above 0"),
        (replace("bounding_boxes.txt", "21.0", "nan"), [], "its sides must be above 0"),
        (replace("bounding_boxes.txt", "40.0", ""), [], "Line 1 of raw/bounding_boxes.txt is '1 21.0 30.0"),
        (replace("image_class_labels.txt", "1 2", "1 7"), [], "classes.txt has no line for the id 7"),
        (replace("train_test_split.txt", "1 1", "1 2"), [], "it must be 1 or 0, but is '2'"),
        (replace("train_test_split.txt", "2 1", "1 1"), [], "Line 2 of raw/train_test_split.txt"),
        (replace("images.txt", "002.", "../002."), [], "its path must lie below images/"),
        (replace("classes.txt", CLASSES[1], CLASSES[0]), [], "raw/classes.txt names a class twice"),
        (lambda: Path("raw/classes.txt").write_text("\n"), [], "raw/classes.txt is empty"),
        (lambda: Path("raw/classes.txt").write_bytes(b"1 \xff"), [], "raw/classes.txt cannot be read"),
    ],
)
def test_a_layout_that_cannot_be_used(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[], None],
    arguments: list[Any],
    sentence: str,
) -> None:
    write_cub200(Path("raw"))
    damage()
    assert run("cub200", "raw", "out", *arguments) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert sentence in printed
    assert not Path("out").exists()
