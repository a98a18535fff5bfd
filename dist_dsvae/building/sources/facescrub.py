"""FaceScrub (Ng and Winkler, 2014): photographs of actors, named by the official lists or by folders.

    SOURCE/facescrub_actors.txt, facescrub_actresses.txt    name, image id, face id, url, box, sha256
    SOURCE/**                                               the downloaded files, under any names

Files are matched to the lists by their contents' hash, so any downloader's naming serves, and a file
that its site has replaced since is not taken. Without a list SOURCE has one folder per identity.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dist_dsvae.building.faces.stage import ProgressOf
from dist_dsvae.building.faces.work_cache import WorkCache, fingerprint_of
from dist_dsvae.building.sources.file_encoder import FileEncoder
from dist_dsvae.building.sources.own_images.folder import images_in
from dist_dsvae.building.sources.own_images.found import with_labels
from dist_dsvae.building.sources.own_images.listing import folders_in
from dist_dsvae.building.sources.source import Source
from dist_dsvae.building.writer import Sample
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.faces.face import FaceBox, ImageOfPerson
from dist_dsvae.core.files import sha256_of
from dist_dsvae.core.text import TextError, printable, read_text
from dist_dsvae.data.shards.system_names import HEADING, is_system_path

LISTS = ("facescrub_actors.txt", "facescrub_actresses.txt")
COLUMNS = ("name", "image_id", "face_id", "url", "bbox", "sha256")


def facescrub(
    source: Path, encoder: FileEncoder, cache: WorkCache, *, num_workers: int, progress_of: ProgressOf
) -> Source:
    """The photographs of ``source`` in one split, for the face stage.

    With the lists the samples' references are BoxedImage, otherwise paths.
    Raises DataError if there are neither lists nor folders of pictures, if a list is damaged, or if no
    file is a listed one.
    """
    if not source.is_dir():
        raise DataError(f"The folder {source} does not exist. {_EXPECTED}")
    lists = [source / name for name in LISTS if (source / name).is_file()]
    if lists:
        return _listed(source, lists, encoder, cache, num_workers, progress_of)
    if not folders_in(source):
        raise DataError(f"{source} holds neither {LISTS[0]} nor {LISTS[1]} nor any folder. {_EXPECTED}")
    found = images_in(source)
    if "test" in found.splits:
        raise DataError(
            f"{source} holds folders of the splits 'train' and 'test', not one folder per identity. Give it "
            "to the subcommand folder with --faces instead, or give one of the two."
        )
    return with_labels("facescrub", found, encoder, test_fraction=0.0, min_images=1)


_EXPECTED = (
    f"Give the folder with the official lists {LISTS[0]} and {LISTS[1]} and the downloaded files in it, "
    "or a folder with one sub-folder of photographs per identity."
)


@dataclass(frozen=True, slots=True)
class _Row:
    identity: str
    face_id: str
    image_id: str
    box: FaceBox
    sha256: str


def _listed(
    source: Path,
    lists: Sequence[Path],
    encoder: FileEncoder,
    cache: WorkCache,
    num_workers: int,
    progress_of: ProgressOf,
) -> Source:
    rows = [row for path in lists for row in read_list(path)]
    found = sorted(path for path in source.rglob("*") if path.is_file() and path not in lists)
    hidden = [path for path in found if is_system_path(path.relative_to(source).as_posix())]
    files = sorted({*found} - {*hidden})
    with progress_of("files hashed", len(files)) as progress:
        hashes = cache.map(
            _hash,
            [str(path) for path in files],
            identity="sha256",
            fingerprint=fingerprint_of,
            num_workers=num_workers,
            progress=progress,
        )
    by_hash: dict[str, Path] = {}
    for path, digest in zip(files, hashes, strict=True):
        by_hash.setdefault(digest, path)
    classes = tuple(sorted({row.identity for row in rows if row.sha256 in by_hash}))
    if not classes:
        raise DataError(
            f"None of the {len(files):,} files in {source} has a sha256 that {lists[0].name} lists. "
            f"The files must be the unchanged downloads. {_EXPECTED}"
        )
    class_ids = {name: place for place, name in enumerate(classes)}
    samples = [
        Sample(
            ImageOfPerson(str(by_hash[row.sha256]), row.box),
            class_ids[row.identity],
            f"{printable(by_hash[row.sha256].relative_to(source).as_posix())} (face {row.face_id})",
        )
        for row in sorted(rows, key=lambda row: (row.identity, int(row.image_id), int(row.face_id)))
        if row.sha256 in by_hash
    ]
    listed = {row.sha256 for row in rows}
    left_out = {
        HEADING: [printable(path.relative_to(source).as_posix()) for path in hidden],
        "listed, but no file has the sha256": [
            f"{row.identity}, image {row.image_id}, face {row.face_id}"
            for row in rows
            if row.sha256 not in by_hash
        ],
        "files whose sha256 no list has": [
            printable(path.relative_to(source).as_posix())
            for path, digest in zip(files, hashes, strict=True)
            if digest not in listed
        ],
    }
    return Source(
        name="facescrub",
        classes=classes,
        splits={"train": samples},
        encode=encoder,
        shape=encoder.shape,
        extension=encoder.codec.extension,
        left_out={heading: names for heading, names in left_out.items() if names},
    )


def read_list(path: Path) -> list[_Row]:
    """The rows of an official list. Raises DataError naming the line that is not as it must be."""
    try:
        text = read_text(path, errors="replace")  # addresses may be in any encoding
    except (OSError, TextError) as error:
        raise DataError(
            f"{path} cannot be read ({error}). Take the list of the official distribution as it is."
        ) from error
    table = list(csv.reader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE))
    if not table or tuple(table[0]) != COLUMNS:
        raise DataError(
            f"The first line of {path} must be the column names {', '.join(COLUMNS)}, separated by tabs. "
            "Take the list of the official distribution as it is."
        )
    return [_row(cells, f"{path}, line {number}") for number, cells in enumerate(table[1:], start=2) if cells]


def _row(cells: Sequence[str], where: str) -> _Row:
    if len(cells) != len(COLUMNS):
        raise DataError(
            f"{where} has {len(cells)} columns; there must be {len(COLUMNS)}: {', '.join(COLUMNS)}. "
            "Take the list of the official distribution as it is."
        )
    name, image_id, face_id, _, box, sha256 = (cell.strip() for cell in cells)
    corners = re.fullmatch(r"(-?\d+),(-?\d+),(-?\d+),(-?\d+)", box.replace(" ", ""))
    numbers = image_id.isdecimal() and face_id.isdecimal()
    if not (name and numbers and corners and re.fullmatch(r"[0-9a-fA-F]{64}", sha256)):
        raise DataError(
            f"{where} reads {', '.join(cells)!r}; needed are a name, two numbers, a url, a box as "
            "left,top,right,bottom and a sha256 of 64 hexadecimal digits. Correct or remove the line."
        )
    left, top, right, bottom = (float(corner) for corner in corners.groups())
    if right <= left or bottom <= top:
        raise DataError(
            f"{where} has the box {box}, which is empty: right must exceed left, and bottom top. "
            "Correct or remove the line."
        )
    identity = unicodedata.normalize("NFC", name)
    return _Row(identity, face_id, image_id, (left, top, right, bottom), sha256.lower())


def _hash(path: str) -> str:
    return sha256_of(Path(path))
