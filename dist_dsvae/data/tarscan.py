"""Reads the samples of a tar that any tool wrote, and notices when the tar is damaged.

    file --gunzip / unxz--> tar stream --tarfile--> members --group by key--> samples

Members are grouped as WebDataset groups them: the key is the path up to the first dot of the file
name, the rest in lower case is the extension; neighbouring members of one key are one sample.
"""

from __future__ import annotations

import gzip
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from dist_dsvae.data.errors import DataError

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz")
_KEY_AND_EXTENSION = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)
_META = re.compile(r"__[^/]*__($|/)")


class Member(NamedTuple):
    """A file of a sample. offset: of its content in the uncompressed tar."""

    offset: int
    content: bytes


@dataclass(frozen=True, slots=True)
class TarSample:
    """Neighbouring members of one key, by extension."""

    key: str
    members: dict[str, Member]


class _Header(tarfile.TarInfo):
    """A header that tells a damaged tar from one that ends; tarfile takes both for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # the block of zeros that ends every complete tar
            raise tarfile.ReadError(str(error)) from error


def find_tars(directory: Path) -> list[Path]:
    """The tars of a directory, sorted by name."""
    return sorted(path for path in directory.iterdir() if path.is_file() and path.name.endswith(TAR_SUFFIXES))


@contextmanager
def open_uncompressed(path: Path) -> Iterator[BinaryIO]:
    """The tar stream of a .tar, .tar.gz, .tgz or .tar.xz."""
    with path.open("rb") as file:
        if path.name.endswith((".gz", ".tgz")):
            with gzip.GzipFile(fileobj=file, mode="rb") as unpacked:
                yield cast(BinaryIO, unpacked)
        elif path.name.endswith(".xz"):
            with lzma.LZMAFile(file, "rb") as unpacked:
                yield cast(BinaryIO, unpacked)
        else:
            yield file


def scan(path: Path) -> Iterator[TarSample]:
    """Yield the samples of a tar in their order.

    Raises DataError, naming the tar and the last complete sample, if the tar is truncated or
    damaged, or if a key or a file name occurs twice.
    """
    last_key = None
    seen: set[str] = set()
    try:
        for sample in _group(path, _members(path)):
            if sample.key in seen:
                raise DataError(
                    f"The key '{sample.key}' occurs twice in the shard {path}, with other keys in between. "
                    "The files of a sample must stand together and keys must differ: write the shard again."
                )
            seen.add(sample.key)
            yield sample
            last_key = sample.key
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        place = f"after the sample '{last_key}'" if last_key is not None else "before its first sample ends"
        raise DataError(
            f"The shard {path} is truncated or damaged {place} ({error}). Copy or build it again; "
            "a tar that was never finished can be packed anew from its sources."
        ) from error


def _members(path: Path) -> Iterator[tuple[str, Member]]:
    with (
        open_uncompressed(path) as stream,
        tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header, bufsize=2**20) as tar,
    ):
        for info in tar:
            if info.isreg() and not _META.match(info.name):
                extracted = tar.extractfile(info)
                assert extracted is not None, "a regular member has content"
                yield info.name, Member(info.offset_data, extracted.read())
            tar.members = []  # type: ignore[attr-defined]  # else it keeps every header


def _group(path: Path, members: Iterator[tuple[str, Member]]) -> Iterator[TarSample]:
    sample: TarSample | None = None
    for name, member in members:
        match = _KEY_AND_EXTENSION.fullmatch(name)
        if match is None:
            continue
        key, extension = match.group(1), match.group(2).lower()
        if sample is None or key != sample.key:
            if sample is not None:
                yield sample
            sample = TarSample(key, {})
        if extension in sample.members:
            raise DataError(
                f"The sample '{key}' has two files '.{extension}' in the shard {path}. Every file of a "
                "sample needs an extension of its own: write the shard again."
            )
        sample.members[extension] = member
    if sample is not None:
        yield sample
