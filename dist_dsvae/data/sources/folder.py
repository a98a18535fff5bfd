"""A folder of pictures: one sub-folder per class, or train/ and test/ with class folders each."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from PIL import Image

from dist_dsvae.data.errors import DataError
from dist_dsvae.data.sources.images import FileEncoder
from dist_dsvae.data.sources.source import Source
from dist_dsvae.data.writer import Sample
from dist_dsvae.noise import Draw, permutation

T = TypeVar("T")
SPLITS = ("train", "test")
_NEAR_SPLITS = ("val", "valid", "validation", "eval", "dev")


@dataclass(frozen=True, slots=True)
class _Listing:
    """The picture files of each class, and what was found beside them (heading -> names)."""

    pictures: dict[str, list[Path]] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, heading: str, path: Path, root: Path) -> None:
        self.left_out.setdefault(heading, []).append(printable(path.relative_to(root).as_posix()))


def folder(
    source: Path, encoder: FileEncoder, *, test_fraction: float = 0.0, recursive: bool = False
) -> Source:
    """The pictures of ``source`` in sorted order; class names are folder names in Unicode NFC.

    test_fraction: share of each class that becomes the split "test", if there is no test/ folder;
        which ones is decided by a hash of their place.
    recursive: take the pictures of folders inside the class folders too.
    Raises DataError if there is no picture at all. Classes without any are left out and reported.
    """
    if not source.is_dir():
        raise DataError(f"The folder {source} does not exist. Give a folder with one sub-folder per class.")
    if not 0 <= test_fraction < 1:
        raise DataError(f"The test fraction is {test_fraction}; it must be at least 0 and below 1.")
    listing = _Listing()
    given = _given_splits(source)
    if given:
        per_split = {split: _list_classes(source / split, source, recursive, listing) for split in given}
    else:
        per_split = {"train": _list_classes(source, source, recursive, listing)}
    if test_fraction and "test" in per_split:
        raise DataError(
            f"{source} has a folder test/ already, so a test fraction of {test_fraction} cannot be taken. "
            "Leave --test-fraction out, or give the folder train/ alone."
        )
    classes = tuple(sorted({name for pictures in per_split.values() for name in pictures}))
    if not classes:
        found = "".join(f"; {heading}: {', '.join(names[:3])}" for heading, names in listing.left_out.items())
        raise DataError(
            f"{source} holds no picture in any class folder{found}. Give a folder with one sub-folder of "
            "pictures per class; --recursive takes pictures of deeper folders too."
        )
    splits: dict[str, Sequence[Sample[str]]] = {
        split: _samples(pictures, classes, source) for split, pictures in per_split.items()
    }
    if test_fraction:
        splits = divide(splits["train"], len(classes), test_fraction)
    return Source(
        name="folder",
        classes=classes,
        splits=splits,
        encode=encoder,
        shape=encoder.shape,
        extension=encoder.codec.extension,
        left_out=listing.left_out,
    )


def printable(name: str) -> str:
    """A file name as text: bytes that are no UTF-8 become U+FFFD."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _given_splits(source: Path) -> tuple[str, ...]:
    """("train", "test") or ("train",) if the sub-folders are splits, () if they are classes."""
    names = {path.name for path in source.iterdir() if path.is_dir()}
    holds_folders = "train" in names and any(path.is_dir() for path in (source / "train").iterdir())
    if not holds_folders or not names <= {*SPLITS, *_NEAR_SPLITS}:
        return ()
    others = sorted(names - set(SPLITS))
    if others:
        raise DataError(
            f"{source} holds the splits {', '.join(sorted(names))}; only train/ and test/ are known. "
            f"Rename {others[0]}/ to test/, or move it away."
        )
    return tuple(split for split in SPLITS if split in names)


def _list_classes(folder: Path, root: Path, recursive: bool, listing: _Listing) -> dict[str, list[Path]]:
    """Class name -> pictures, sorted by name, classes without a picture left out."""
    classes: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if not path.is_dir():
            listing.leave_out("files outside the class folders", path, root)
            continue
        name = unicodedata.normalize("NFC", printable(path.name))
        if name in classes:
            raise DataError(
                f"{folder} holds two folders that are both written '{name}' (in different Unicode forms). "
                "Merge them, or rename one."
            )
        classes[name] = _list_pictures(path, root, recursive, listing)
        if not classes[name]:
            listing.leave_out("classes without a picture", path, root)
    return {name: pictures for name, pictures in classes.items() if pictures}


def _list_pictures(folder: Path, root: Path, recursive: bool, listing: _Listing) -> list[Path]:
    pictures: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if recursive and not path.is_symlink():
                pictures += _list_pictures(path, root, recursive, listing)
            else:
                listing.leave_out("folders inside a class", path, root)
        elif _is_picture(path):
            pictures.append(path)
        else:
            listing.leave_out("files that are no pictures", path, root)
    return pictures


def _is_picture(path: Path) -> bool:
    """By the ending of its name, or else by its first bytes. Opening a pipe or a device would block."""
    if not path.is_file():
        return False
    if Image.registered_extensions().get(path.suffix.lower()) in Image.OPEN:
        return True
    try:
        with Image.open(path):
            return True
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def _samples(pictures: Mapping[str, Sequence[Path]], classes: Sequence[str], root: Path) -> list[Sample[str]]:
    return [
        Sample(str(path), label, printable(path.relative_to(root).as_posix()))
        for label, name in enumerate(classes)
        for path in pictures.get(name, ())
    ]


def divide(
    samples: Sequence[Sample[T]], num_classes: int, test_fraction: float
) -> dict[str, Sequence[Sample[T]]]:
    """Train and test, class by class; each class keeps at least one training sample.

    Raises DataError if no class is large enough to give a test sample.
    """
    per_class: list[list[Sample[T]]] = [[] for _ in range(num_classes)]
    for sample in samples:
        per_class[sample.label].append(sample)
    train: list[Sample[T]] = []
    test: list[Sample[T]] = []
    for label, members in enumerate(per_class):
        num_test = min(round(test_fraction * len(members)), len(members) - 1)
        shuffled = permutation(len(members), int(Draw.BUILD_SPLIT), label).tolist()
        chosen = set(shuffled[:num_test])
        for place, sample in enumerate(members):
            (test if place in chosen else train).append(sample)
    if not test:
        raise DataError(
            f"A test fraction of {test_fraction} leaves no test sample: the largest class has "
            f"{max(map(len, per_class))} pictures. Take a larger fraction or leave it out."
        )
    return {"train": train, "test": test}
