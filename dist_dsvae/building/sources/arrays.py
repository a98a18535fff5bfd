"""Data sets that come as arrays of small images: Fashion-MNIST's idx files."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from dist_dsvae.building.sources.source import Source, take_balanced
from dist_dsvae.building.writer import Sample
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.images import Codec
from dist_dsvae.core.types import ImageShape

Pixels = npt.NDArray[np.uint8]

# In the order of the labels in its files (github.com/zalandoresearch/fashion-mnist).
FASHION_MNIST_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_IDX_UINT8 = 0x08


@dataclass(frozen=True, kw_only=True, slots=True)
class ArrayEncoder:
    """Encodes uint8 pixels [H, W] or [H, W, 3], centred on black in ``size`` x ``size``."""

    size: int
    codec: Codec

    def __call__(self, sample: Sample[Pixels]) -> tuple[bytes, dict[str, object]]:
        picture = Image.fromarray(sample.reference)
        canvas = Image.new(picture.mode, (self.size, self.size))
        canvas.paste(picture, ((self.size - picture.width) // 2, (self.size - picture.height) // 2))
        return self.codec.pack(canvas), {}


def samples_of(
    pixels: Pixels, labels: npt.NDArray[np.int64], names: Sequence[str], origin: str
) -> list[Sample[Pixels]]:
    """Samples with the class ids of the sorted names.

    pixels: [N, H, W(, 3)]. labels: [N], places in ``names``. origin: the file, for the samples' names.
    """
    if len(set(names)) < len(names):
        raise DataError(f"{origin} names a class twice: {', '.join(names)}. Class names must differ.")
    if len(pixels) != len(labels):
        raise DataError(
            f"{origin} has {len(pixels):,} images but {len(labels):,} labels. They must be equally many: "
            "the files do not belong together, so fetch them again."
        )
    outside = np.flatnonzero((labels < 0) | (labels >= len(names)))
    if outside.size:
        raise DataError(
            f"Image {outside[0]} of {origin} has the label {labels[outside[0]]}; allowed are 0 to "
            f"{len(names) - 1}. The files do not belong together, so fetch them again."
        )
    class_ids = {name: place for place, name in enumerate(sorted(names))}
    return [
        Sample(image, class_ids[names[label]], f"{origin}[{place}]")
        for place, (image, label) in enumerate(zip(pixels, labels.tolist(), strict=True))
    ]


def fashion_mnist(
    folder: Path, *, size: int, codec: Codec, num_train: int | None, num_test: int | None
) -> Source:
    """Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017) from its four idx files, packed by gzip or not.

    size: edge of the images in pixels, at least 28; the margin is black, as the background is.
    num_train, num_test: take so many, balanced over the classes; None for all.
    """
    if size < 28:
        raise DataError(
            f"The image size is {size}; it must be at least 28, the size of the images of Fashion-MNIST."
        )
    splits = {}
    for split, prefix, count in (("train", "train", num_train), ("test", "t10k", num_test)):
        images_file = _find(folder, f"{prefix}-images-idx3-ubyte")
        labels = read_idx(_find(folder, f"{prefix}-labels-idx1-ubyte"), 1).astype(np.int64)
        origin = images_file.name.removesuffix(".gz")
        samples = samples_of(read_idx(images_file, 3), labels, FASHION_MNIST_NAMES, origin)
        splits[split] = take_balanced(samples, count, split)
    return Source(
        name="fashion-mnist",
        classes=tuple(sorted(FASHION_MNIST_NAMES)),
        splits=splits,
        encode=ArrayEncoder(size=size, codec=codec),
        shape=ImageShape(1, size, size),
        extension=codec.extension,
    )


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / f"{name}.gz", folder / name):
        if candidate.is_file():
            return candidate
    raise DataError(
        f"{folder} has neither {name}.gz nor {name}. Give the folder that holds the four idx files of "
        "Fashion-MNIST (train- and t10k-, images and labels), or leave SOURCE out to download them."
    )


def read_idx(path: Path, num_axes: int) -> Pixels:
    """The uint8 array of an idx file, packed by gzip or not. Raises DataError if it is not one."""
    try:
        packed = path.read_bytes()
        content = gzip.decompress(packed) if path.suffix == ".gz" else packed
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}). Fetch it again.") from error
    header_bytes = 4 + 4 * num_axes
    expected_magic = bytes([0, 0, _IDX_UINT8, num_axes])
    if len(content) < header_bytes or content[:4] != expected_magic:
        raise DataError(
            f"{path} begins with the bytes {content[:4].hex(' ')}; an idx file of unsigned bytes with "
            f"{num_axes} axes begins with {expected_magic.hex(' ')}. Fetch it again."
        )
    extents = np.frombuffer(content, dtype=">u4", count=num_axes, offset=4).tolist()
    if len(content) - header_bytes != math.prod(extents):
        raise DataError(
            f"{path} holds {len(content) - header_bytes:,} values; its header says "
            f"{' x '.join(map(str, extents))}. It is incomplete: fetch it again."
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header_bytes).reshape(extents)
