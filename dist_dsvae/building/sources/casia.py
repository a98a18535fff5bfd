"""CASIA-WebFace (Yi, Lei, Liao and Li, 2014) as unlabelled pictures of some identities.

It is found as a folder with one sub-folder per identity, whose names are numbers like those of
IMDB, or as the RecordIO files of insightface, which count the identities from 0:

    train.rec, train.idx   record 0 tells the range (first, last + 1) of the identity records; the
                           records before them, 1 to first - 1, are the pictures
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dist_dsvae.building.sources.file_encoder import FileEncoder
from dist_dsvae.building.sources.own_images.listing import Listing, files_in
from dist_dsvae.building.sources.recordio import Record, read_records
from dist_dsvae.building.sources.source import Source
from dist_dsvae.building.sources.unlabelled import HeldOutChoice, UnlabelledImages, without_labels
from dist_dsvae.building.writer import Sample
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.images import EncodedImage
from dist_dsvae.core.text import TextError, read_text

RECORDS, INDEX = "train.rec", "train.idx"
_HEADER_KEY = 0


def casia(
    source: Path, encoder: FileEncoder, choice: HeldOutChoice, *, persons: Mapping[str, str] | None = None
) -> Source:
    """The pictures of the identities that ``choice`` takes, those of "train" without labels.

    persons: id -> name, to compare with ``choice.excluded``; identities that it lacks are left out,
        for nobody can tell that they are not excluded.
    Raises DataError if ``source`` has neither layout, is damaged, or has too few identities.
    """
    if not source.is_dir():
        raise DataError(
            f"The folder {source} does not exist. Give the folder with {RECORDS} and {INDEX}, or the one "
            "with a sub-folder per identity."
        )
    left_out: Mapping[str, Sequence[str]]
    if (source / RECORDS).exists() or (source / INDEX).exists():
        images, left_out = _images_in_records(source / RECORDS, source / INDEX), {}
    else:
        images, left_out = _images_in_folders(source)
    if persons is not None:
        nameless = [class_ for class_ in images if class_ not in persons]
        if len(nameless) == len(images):
            raise DataError(
                f"The list of names has none of the {len(nameless):,} identities of {source}, such as "
                f"'{nameless[0]}' (it begins with '{next(iter(persons))}'). Write its ids so."
            )
        left_out = {**left_out, "identities without a name": nameless}
        images = {class_: images[class_] for class_ in images if class_ in persons}
    return without_labels("casia", str(source), images, choice, encoder, left_out, persons=persons)


def read_persons(path: Path) -> dict[str, str]:
    """id -> name from lines "id name"; the name may have spaces or underscores.

    Raises DataError if the file cannot be read or a line is not so.
    """
    try:
        lines = read_text(path).splitlines()
    except (OSError, TextError) as error:
        raise DataError(
            f"The names cannot be read from {path} ({error}). Give a text file in UTF-8 with an id and a "
            "name a line."
        ) from error
    persons: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        words = line.split(maxsplit=1)
        if not words:
            continue
        if len(words) < 2 or words[0] in persons:
            raise DataError(
                f"Line {number} of {path} is {line[:60]!r}; it must be an id that no other line has, and the "
                "person's name, such as '0000045 Jane_Doe'."
            )
        persons[words[0]] = words[1].strip()
    if not persons:
        raise DataError(f"{path} holds no name. Give a text file with an id and a name a line.")
    return persons


def _images_in_folders(source: Path) -> tuple[UnlabelledImages, Mapping[str, Sequence[str]]]:
    listing = Listing(source)
    for path in files_in(source):
        listing.leave_out("files outside the identities' folders", path)
    classes = listing.classes(source)
    if not classes:
        raise DataError(
            f"{source} holds neither {RECORDS} nor a sub-folder with pictures{listing.found()}. Give the "
            "folder that holds CASIA-WebFace's sub-folders, one per identity, or its RecordIO files."
        )
    images = {name: [listing.sample(path) for path in paths] for name, paths in classes.items()}
    return images, listing.left_out


def _images_in_records(records: Path, index: Path) -> UnlabelledImages:
    """Identity (its number) -> pictures in the order of their keys."""
    found = read_records(records, index)
    images: dict[str, list[Sample[EncodedImage]]] = {}
    for key in _image_keys(found, records, index):
        label = found[key].labels[0]
        if not label.is_integer() or label < 0:
            raise DataError(
                f"The record {key} of {records} has the label {label}; identities are whole numbers from 0. "
                "Fetch the file again."
            )
        sample: Sample[EncodedImage] = Sample(found[key].content, 0, f"{records.name}[{key}]")
        images.setdefault(str(int(label)), []).append(sample)
    return images


def _image_keys(found: Mapping[int, Record], records: Path, index: Path) -> Sequence[int]:
    header = found.get(_HEADER_KEY)
    if header is None or not header.is_empty or len(header.labels) < 2:
        raise DataError(
            f"The record {_HEADER_KEY} of {records} does not tell the range of the identities, as it must. "
            "Give the files of the training set that insightface hands out."
        )
    first, end = header.labels[:2]
    if not (first.is_integer() and end.is_integer() and 1 < first <= end):
        raise DataError(
            f"The record {_HEADER_KEY} of {records} gives the identities the records {first:g} to {end:g}; "
            "before the first of them there must be a picture. Fetch the file again."
        )
    keys = range(1, int(first))
    missing = next((key for key in keys if key not in found), None)
    if missing is not None:
        raise DataError(
            f"{index} does not list the record {missing}, though {records.name} says that its pictures are "
            f"the records 1 to {keys[-1]:,}. Fetch both again."
        )
    return keys
