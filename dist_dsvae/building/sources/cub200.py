"""CUB-200-2011 (Wah, Branson, Welinder, Perona and Belongie, 2011), cut out by its bounding boxes.

images.txt              image id, path below images/
image_class_labels.txt  image id, class id        classes.txt  class id, name
bounding_boxes.txt      image id, left, top, width, height in pixels
train_test_split.txt    image id, 1 for training or 0 for testing
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from dist_dsvae.building.sources.file_encoder import FileEncoder
from dist_dsvae.building.sources.source import Source
from dist_dsvae.building.writer import Sample, UnreadableError
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.images import as_stored, open_image, why_unreadable
from dist_dsvae.core.text import TextError, read_text

FOLDER = "CUB_200_2011"


@dataclass(frozen=True, slots=True)
class Box:
    """In pixels, from the upper left corner of the picture as stored."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class BoxedImage:
    path: str
    box: Box


@dataclass(frozen=True, kw_only=True, slots=True)
class BoxEncoder:
    """Encodes the square around a box (``cut_out``) as ``encoder`` does a whole picture. margin: 0 to 1."""

    encoder: FileEncoder
    margin: float

    def __call__(self, sample: Sample[BoxedImage]) -> tuple[bytes, dict[str, object]]:
        try:
            with open_image(sample.reference.path) as opened:
                square = cut_out(as_stored(opened), sample.reference.box, self.margin)
                image = self.encoder.fit(square)
        except Exception as error:  # codecs raise nearly anything on a broken file; it goes into the report
            raise UnreadableError(why_unreadable(error, sample.reference.path)) from error
        return self.encoder.codec.pack(image), {}


def cut_out(image: Image.Image, box: Box, margin: float) -> Image.Image:
    """The square around the middle of ``box``, undistorted.

    Its side is the box's longer side plus ``margin`` times that on both ends. Where it sticks out of
    the picture it is moved inside; where it is larger than the picture, the border is repeated.
    Raises ValueError if the box has no pixel in common with the picture.
    """
    right, bottom = box.left + box.width, box.top + box.height
    if box.left >= image.width or box.top >= image.height or right <= 0 or bottom <= 0:
        raise ValueError(f"{box} lies outside the picture of {image.width} x {image.height} pixels")
    side = max(1, round(max(box.width, box.height) * (1 + 2 * margin)))
    left, before_x, after_x = _place(box.left + box.width / 2, side, image.width)
    top, before_y, after_y = _place(box.top + box.height / 2, side, image.height)
    right = left + side - before_x - after_x
    bottom = top + side - before_y - after_y
    inside = np.asarray(image.crop((left, top, right, bottom)))
    around = ((before_y, after_y), (before_x, after_x), (0, 0))
    return Image.fromarray(np.pad(inside, around, mode="edge"))


def _place(middle: float, side: int, extent: int) -> tuple[int, int, int]:
    """Along one axis: (first pixel, pixels to add before it, pixels to add after the last)."""
    first = math.floor(middle - side / 2 + 0.5)
    if side <= extent:
        return min(max(first, 0), extent - side), 0, 0
    # Larger than the picture, which is taken whole: as much before it as keeps the box in the middle.
    before = min(max(-first, 0), side - extent)
    return 0, before, side - extent - before


def cub200(source: Path, encoder: FileEncoder, *, margin: float = 0.1) -> Source:
    """The official split of CUB-200-2011 from ``source`` or the official folder inside it.

    encoder: of the squares that are cut out. margin: see ``cut_out``.
    Raises DataError if a file is missing, not understood, or does not fit the others.
    """
    if (source / FOLDER).is_dir():
        source = source / FOLDER
    if not (source / "images").is_dir():
        raise DataError(
            f"The folder {source / 'images'} is missing. Give the folder {FOLDER} of the unpacked "
            f"{FOLDER}.tgz, which holds images/, images.txt, bounding_boxes.txt and others."
        )
    paths = _Table(source / "images.txt", "a path", 1, rest=True)
    labels = _Table(source / "image_class_labels.txt", "a class id", 1)
    names = _Table(source / "classes.txt", "a name", 1, rest=True)
    boxes = _Table(source / "bounding_boxes.txt", "left, top, width and height", 4)
    parts = _Table(source / "train_test_split.txt", "1 or 0", 1)
    classes = tuple(sorted(line[0] for line in names.rows.values()))
    if len(set(classes)) < len(classes):
        raise DataError(f"{names.path} names a class twice. Fetch it again.")
    splits: dict[str, list[Sample[BoxedImage]]] = {"train": [], "test": []}
    for image, (path,) in paths.rows.items():
        relative = PurePosixPath(path)
        if relative.is_absolute() or ".." in relative.parts:
            raise paths.unusable(image, "its path must lie below images/")
        (class_id,) = labels.row(image)
        (name,) = names.row(class_id)
        (part,) = parts.row(image)
        if part not in ("0", "1"):
            raise parts.unusable(image, f"it must be 1 or 0, but is {part!r}")
        boxed = BoxedImage(str(source / "images" / relative), _box(boxes, image))
        splits["train" if part == "1" else "test"].append(Sample(boxed, classes.index(name), path))
    return Source(
        name="cub200",
        classes=classes,
        splits=splits,
        encode=BoxEncoder(encoder=encoder, margin=margin),
        shape=encoder.shape,
        extension=encoder.codec.extension,
    )


def _box(boxes: _Table, image: str) -> Box:
    try:
        box = Box(*map(float, boxes.row(image)))
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise boxes.unusable(image, "it must be four numbers") from error
    if not all(map(math.isfinite, (box.left, box.top))) or not (0 < box.width < 1e5 and 0 < box.height < 1e5):
        raise boxes.unusable(image, f"{box} is no box: its sides must be above 0 and below 100,000 pixels")
    return box


class _Table:
    """A text file of lines that begin with a key. Raises DataError for anything else."""

    rows: Mapping[str, tuple[str, ...]]

    def __init__(self, path: Path, what: str, num_words: int, *, rest: bool = False) -> None:
        """rest: the last word is the rest of the line, and may hold spaces."""
        self.path = path
        if not path.is_file():
            raise DataError(
                f"The file {path} is missing. Give the folder {FOLDER} of the unpacked {FOLDER}.tgz, with "
                "all of its text files."
            )
        try:
            lines = read_text(path).splitlines()
        except (OSError, TextError) as error:
            raise DataError(f"{path} cannot be read ({error}). Fetch it again.") from error
        rows: dict[str, tuple[str, ...]] = {}
        for number, line in enumerate(lines, start=1):
            words = line.split(maxsplit=num_words) if rest else line.split()
            if not words:
                continue
            if len(words) != 1 + num_words or words[0] in rows:
                raise DataError(
                    f"Line {number} of {path} is {line[:60]!r}; it must be an id that no other line has, "
                    f"then {what}. Fetch the file again."
                )
            rows[words[0]] = tuple(word.strip() for word in words[1:])
        if not rows:
            raise DataError(f"{path} is empty. Fetch it again.")
        self.rows = rows

    def row(self, key: str) -> tuple[str, ...]:
        try:
            return self.rows[key]
        except KeyError:
            raise DataError(
                f"{self.path} has no line for the id {key}, which another file names. The files do not "
                "belong together: fetch them again."
            ) from None

    def unusable(self, key: str, why: str) -> DataError:
        return DataError(f"The line of the id {key} in {self.path} cannot be used: {why}. Fetch it again.")
