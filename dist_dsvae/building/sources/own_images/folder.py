"""A folder of pictures: one sub-folder per class, or splits with class folders each (``split_folders``).

Without labels any folder of pictures will do, with sub-folders or without. The folder may be one of an
archive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dist_dsvae.building.sources.own_images.found import FoundImages
from dist_dsvae.building.sources.own_images.listing import Listing, files_in
from dist_dsvae.building.sources.own_images.place import AnyPlace, Place
from dist_dsvae.building.sources.own_images.split_folders import (
    SplitFolders,
    deeper_source,
    folders_by_role,
    read_splits,
)
from dist_dsvae.building.writer import Sample
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.images import EncodedImage


def images_in(
    source: Place, *, recursive: bool = False, left_out: Mapping[str, Sequence[str]] | None = None
) -> FoundImages:
    """The pictures of class folders in sorted order, by split; classes are called as folders, in Unicode NFC.

    recursive: those of folders inside the class folders too. left_out: what was not used before, by heading.
    Raises DataError if there is no picture at all. Classes without any are left out and reported.
    """
    listing = _listing(source, recursive, left_out)
    per_split, notes = _images_by_split(source, listing)
    splits = {split: _samples(listing, images) for split, images in per_split.items()}
    return FoundImages(origin=str(source), splits=splits, left_out=listing.left_out, notes=notes)


def _samples(
    listing: Listing, images: Mapping[str, Sequence[Place]]
) -> dict[str, list[Sample[EncodedImage]]]:
    return {name: [listing.sample(path) for path in paths] for name, paths in images.items()}


def _images_by_split(source: AnyPlace, listing: Listing) -> SplitFolders:
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


def any_images_in(
    source: Place, *, recursive: bool = False, left_out: Mapping[str, Sequence[str]] | None = None
) -> FoundImages:
    """Pictures of sub-folders, and loose ones; recursive, left_out: as for ``images_in``.

    Raises DataError if there is no picture, or if ``source`` holds splits.
    """
    listing = _listing(source, recursive, left_out)
    roles = folders_by_role(source)
    if roles:
        names = ", ".join(f"{path.name}/" for path in roles.values())
        raise DataError(
            f"{source} holds the splits {names}, which must not be mixed. Give one of them, for example "
            f"{next(iter(roles.values()))}."
        )
    loose = [listing.sample(image) for path in files_in(source) for image in listing.image(path)]
    classes = listing.classes(source)
    if not classes and not loose:
        raise DataError(
            f"{source} holds no picture{listing.found()}. Give a folder of pictures, in sub-folders or not; "
            "--recursive takes pictures of deeper folders too."
        )
    splits = {"train": _samples(listing, classes)}
    return FoundImages(origin=str(source), splits=splits, loose=loose, left_out=listing.left_out)


def _listing(source: Place, recursive: bool, left_out: Mapping[str, Sequence[str]] | None) -> Listing:
    if not source.is_dir():
        raise DataError(f"The folder {source} does not exist. Give a folder with one sub-folder per class.")
    return Listing(source, recursive, {heading: list(names) for heading, names in (left_out or {}).items()})
