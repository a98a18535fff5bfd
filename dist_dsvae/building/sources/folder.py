"""A folder of pictures: one sub-folder per class, or splits with class folders each (``split_folders``).

Without labels (``unlabelled_folder``) any folder of pictures will do, with sub-folders or without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from dist_dsvae.building.sources.file_encoder import FileEncoder
from dist_dsvae.building.sources.listing import Listing, files_in
from dist_dsvae.building.sources.source import Source
from dist_dsvae.building.sources.split_folders import (
    SplitFolders,
    deeper_source,
    folders_by_role,
    read_splits,
)
from dist_dsvae.building.sources.unlabelled import HeldOutChoice, without_labels
from dist_dsvae.building.writer import Sample
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.images import PictureFile
from dist_dsvae.core.noise import Draw, permutation

T = TypeVar("T")


def folder(
    source: Path,
    encoder: FileEncoder,
    *,
    test_fraction: float = 0.0,
    recursive: bool = False,
    min_pictures: int = 1,
) -> Source:
    """The pictures of ``source`` in sorted order; class names are folder names in Unicode NFC.

    test_fraction: share of each class that becomes the split "test", if there is no test/ folder;
        which ones is decided by a hash of their place.
    recursive: take the pictures of folders inside the class folders too.
    min_pictures: leave out classes with fewer, all splits together.
    Raises DataError if there is no picture at all. Classes without any are left out and reported.
    """
    _check_folder(source)
    if not 0 <= test_fraction < 1:
        raise DataError(f"The test fraction is {test_fraction}; it must be at least 0 and below 1.")
    listing = Listing(source, recursive)
    per_split, notes = _pictures_by_split(source, listing)
    if test_fraction and "test" in per_split:
        raise DataError(
            f"{source} has a folder for the split 'test' already, so a test fraction of {test_fraction} "
            "cannot be taken. Leave --test-fraction out, or give the folder of the training split alone."
        )
    names = sorted({name for pictures in per_split.values() for name in pictures})
    counts = {name: sum(len(pictures.get(name, ())) for pictures in per_split.values()) for name in names}
    classes = _large_enough(counts, min_pictures, listing)
    splits: dict[str, Sequence[Sample[PictureFile]]] = {
        split: [
            listing.sample(path, label)
            for label, name in enumerate(classes)
            for path in pictures.get(name, ())
        ]
        for split, pictures in per_split.items()
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
        notes=notes,
    )


def _pictures_by_split(source: Path, listing: Listing) -> SplitFolders:
    roles = folders_by_role(source)
    if roles:
        return read_splits(source, roles, listing)
    for path in files_in(source):
        listing.leave_out("files outside the class folders", path)
    classes = listing.classes(source)
    if not classes:
        inner = deeper_source(source)
        raise DataError(
            f"{source} holds no picture in any class folder{listing.found()}. Give a folder with one "
            "sub-folder of pictures per class"
            + (
                f": {inner} looks like it."
                if inner is not None
                else "; --recursive takes pictures of deeper folders too."
            )
        )
    return SplitFolders({"train": classes}, ())


def unlabelled_folder(
    source: Path,
    encoder: FileEncoder,
    choice: HeldOutChoice,
    *,
    recursive: bool = False,
    min_pictures: int = 1,
) -> Source:
    """The pictures of ``source`` without labels: those of its sub-folders and those that lie in none.

    choice: which sub-folders are left out, and which keep their labels as the split "held-out".
    recursive, min_pictures: as for ``folder``; pictures that lie in no sub-folder are always taken.
    Raises DataError if there is no picture, or not what ``choice`` asks for.
    """
    _check_folder(source)
    roles = folders_by_role(source)
    if roles:
        names = ", ".join(f"{path.name}/" for path in roles.values())
        raise DataError(
            f"{source} holds the splits {names}, which must not be mixed. Give one of them, for example "
            f"{next(iter(roles.values()))}."
        )
    listing = Listing(source, recursive)
    loose = [listing.sample(picture, 0) for path in files_in(source) for picture in listing.picture(path)]
    found = listing.classes(source)
    if not found and not loose:
        raise DataError(
            f"{source} holds no picture{listing.found()}. Give a folder of pictures, in sub-folders or not; "
            "--recursive takes pictures of deeper folders too."
        )
    counts = {name: len(paths) for name, paths in found.items()}
    kept = _large_enough(counts, min_pictures, listing) if found else ()
    pictures = {name: [listing.sample(path, 0) for path in found[name]] for name in kept}
    return without_labels("folder", source, pictures, choice, encoder, listing.left_out, loose=loose)


def _check_folder(source: Path) -> None:
    if not source.is_dir():
        raise DataError(f"The folder {source} does not exist. Give a folder with one sub-folder per class.")


def _large_enough(counts: Mapping[str, int], min_pictures: int, listing: Listing) -> tuple[str, ...]:
    kept = tuple(name for name, count in counts.items() if count >= min_pictures)
    few = [f"{name} ({count})" for name, count in counts.items() if count < min_pictures]
    if few:
        listing.left_out[f"classes of fewer than {min_pictures} pictures"] = few
    if not kept:
        raise DataError(
            f"No class of {listing.root} has {min_pictures:,} pictures; the largest has "
            f"{max(counts.values()):,}. Ask for fewer with --min-pictures."
        )
    return kept


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
