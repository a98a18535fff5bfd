"""A zip or a tar of folders of pictures, read where it lies: nothing of it is written to the disk.

What could not lie in a folder, what is encrypted, and what would unpack to more than any picture needs is
left out by name. Offsets into a compressed tar do not exist, so only plain ones are read.
"""

from __future__ import annotations

import io
import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

from dist_dsvae.building.sources.own_images.listing import Listing, files_in, folders_in
from dist_dsvae.building.sources.own_images.place import ArchivePlace, Tree
from dist_dsvae.building.sources.own_images.split_folders import deeper_source
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.images import FilePart, ImagePart
from dist_dsvae.core.text import printable
from dist_dsvae.data.shards.tar_members import members_of

MOST_BYTES = 2**28  # of one entry, unpacked
ENCRYPTED = "encrypted entries"
_MOST_DEPTH = 64  # of folders in one another: a name alone could hold thousands
UNSAFE = "names that no folder can hold"
SPECIAL = "links and other special files"
TOO_LARGE = f"entries of more than {MOST_BYTES // 2**20} MiB"
UNREAD_PACKING = "entries packed in a way that is not read"
TWICE = "names that a later entry has too"
_READ_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
# What unpacking raises, by the packing; RuntimeError for a password
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, ValueError, RuntimeError, LookupError, MemoryError),
)
_FLAG_ENCRYPTED, _FLAG_UTF8 = 0x1, 0x800
_MADE_BY_DOS = 0


@dataclass(frozen=True, slots=True)
class ZipMember:
    """The entry ``number`` of a zip."""

    path: str
    number: int

    def open(self) -> BinaryIO:
        try:
            opened = _zip(self.path)
            with opened.open(opened.infolist()[self.number]) as packed:
                return io.BytesIO(packed.read())  # no more than the entry says, which was looked at
        except _DAMAGE as error:
            raise OSError(f"the entry cannot be unpacked: {error}") from error


def _zip(path: str) -> zipfile.ZipFile:
    about = Path(path).stat()
    return _zip_as_of(path, about.st_ino, about.st_mtime_ns)


@lru_cache(maxsize=2)  # for every picture the list of entries would be read again
def _zip_as_of(path: str, inode: int, changed_ns: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


class OpenedArchive(NamedTuple):
    """root: the folder that holds the classes or the splits. left_out, notes: as in ``Source``."""

    root: ArchivePlace
    left_out: dict[str, list[str]]
    notes: list[str]


def open_archive(place: Path) -> OpenedArchive:
    """The folders of a .zip, or of a plain .tar; of a single folder around them what is in it.

    place: the file, or as if it were a folder, one inside it: photos.zip/photos/train.
    Raises DataError if it is neither, damaged, or all encrypted, or has no such folder.
    """
    path = next((part for part in (place, *place.parents) if part.is_file()), place)
    inside = place.parts[len(path.parts) :]
    tree, left_out = _tree(path, _entries(path))
    if not tree.files and left_out.get(ENCRYPTED):
        raise DataError(
            f"All files in {path} are encrypted, such as {left_out[ENCRYPTED][0]}. Unpack it with its "
            "password, and give the folder to: dsvae build folder."
        )
    if inside not in tree.folders:
        raise DataError(f"{path} holds no folder {'/'.join(inside)}. Give {path}, or another of its folders.")
    root = ArchivePlace(tree, inside)
    listing = Listing(root, left_out=left_out)
    while not inside and len(folders_in(root)) == 1 and (inner := deeper_source(root)) is not None:
        listing.leave_out_system(root)
        for file in files_in(root):
            listing.leave_out("files outside the class folders", file)
        root = inner
    notes = [f"The folder {'/'.join(root.parts)}/ in {path.name} was read"] if root.parts else []
    return OpenedArchive(root, left_out, notes)


def _entries(path: Path) -> Iterator[_Entry]:
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise DataError(
            f"The archive {path} cannot be read ({error.strerror}). Give a .zip or a .tar."
        ) from error
    if start[257:262] == b"ustar":  # first: a tar whose last file is a zip ends as a zip does
        return _tar_entries(path)
    if zipfile.is_zipfile(path):
        return _zip_entries(path)
    raise DataError(
        f"{path} is neither a zip nor a plain tar. A compressed tar can be read after gunzip, unxz or the "
        "like; anything else unpack, and give the folder to: dsvae build folder."
    )


class _Entry(NamedTuple):
    """heading: why it is not used; None if it is."""

    name: str
    is_folder: bool
    content: ImagePart | None
    heading: str | None


def _tree(path: Path, entries: Iterator[_Entry]) -> tuple[Tree, dict[str, list[str]]]:
    files: dict[tuple[str, ...], ImagePart] = {}
    names: dict[tuple[str, ...], dict[str, None]] = {(): {}}
    left_out: dict[str, list[str]] = {}
    for entry in entries:
        parts = _parts(entry.name)
        if parts == ():
            continue  # the root, as tars name it
        if parts is None or (entry.heading is None and parts in files):
            heading = UNSAFE if parts is None else TWICE
            left_out.setdefault(heading, []).append(printable(entry.name))
            if parts is None:
                continue
        if entry.heading is not None:
            left_out.setdefault(entry.heading, []).append(printable(entry.name))
            continue
        folder = parts if entry.is_folder else parts[:-1]
        for depth, name in enumerate(folder):
            names[folder[:depth]][name] = None
            names.setdefault(folder[: depth + 1], {})
        if entry.content is not None:
            names[folder][parts[-1]] = None
            files[parts] = entry.content
    for parts in [parts for parts in files if parts in names]:  # the name of a folder, too
        left_out.setdefault(UNSAFE, []).append(printable("/".join(parts)))
        del files[parts]
    folders = {parts: tuple(inside) for parts, inside in names.items()}
    return Tree(path=path, folders=folders, files=files), left_out


def _parts(name: str) -> tuple[str, ...] | None:
    """None for a name that leads out of its folder, or deeper than any folder is."""
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    drive = bool(parts) and len(parts[0]) == 2 and parts[0][1] == ":"
    if name.startswith("/") or ".." in parts or drive or "\0" in name or len(parts) > _MOST_DEPTH:
        return None
    return parts


def _zip_entries(path: Path) -> Iterator[_Entry]:
    try:
        infos = _zip(str(path)).infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"The zip {path} is damaged ({error}). Fetch or pack it again.") from error
    for number, info in enumerate(infos):
        name = _zip_name(info)
        heading = None
        if info.flag_bits & _FLAG_ENCRYPTED:
            heading = ENCRYPTED
        elif info.compress_type not in _READ_PACKINGS:
            heading = UNREAD_PACKING
        elif info.file_size > MOST_BYTES:
            heading = TOO_LARGE
        elif stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            heading = SPECIAL
        is_folder = name.endswith("/")
        yield _Entry(name, is_folder, None if is_folder else ZipMember(str(path), number), heading)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """The name of an entry; zipfile takes one that is not marked as UTF-8 for the characters of DOS."""
    name = info.filename
    if not info.flag_bits & _FLAG_UTF8:
        with suppress(UnicodeError):  # macOS writes UTF-8 without the mark
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/") if info.create_system == _MADE_BY_DOS else name


def _tar_entries(path: Path) -> Iterator[_Entry]:
    with path.open("rb") as file:
        try:
            for member in members_of(file):
                info, heading = member.info, None
                if not info.isdir() and (not info.isreg() or member.is_sparse):
                    heading = SPECIAL
                elif not 0 <= info.size <= MOST_BYTES:
                    heading = TOO_LARGE
                content = FilePart(str(path), member.offset, info.size) if info.isreg() else None
                yield _Entry(info.name, info.isdir(), content, heading)
        except Exception as error:  # tarfile raises nearly anything on a crafted header
            raise DataError(
                f"The tar {path} is truncated or damaged ({error}). Fetch or pack it again."
            ) from error
