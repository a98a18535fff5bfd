"""Writes a split: samples in, tar shards with their indexes and manifest out.

    samples --permute--> chunks --worker processes: encode, tar, compress--> shards --> manifest.json

The samples are permuted by a hash of their place, so every shard mixes the classes; the same
samples and options give the same bytes for any number of workers. A split is written into a
directory of ``staging.building``, which makes the whole build appear in one step.

The ``source`` of an unlabelled sample is a hash of its name, for names such as "Jane Doe/001.jpg" tell
the label, and numbers in the order of the names tell who belongs together. A hash still traces a
picture: whoever has the raw data hashes their names and compares. The writer does it, so that no
source can forget to.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Generic, Literal, TypeVar, cast

import numpy as np

from dist_dsvae.building.parallel import run_tasks
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.faces.crop_record import FaceCrops
from dist_dsvae.core.files import sha256_of, write_atomically
from dist_dsvae.core.noise import Draw, permutation
from dist_dsvae.core.types import ImageShape
from dist_dsvae.data.shards.index_file import index_file_of
from dist_dsvae.data.shards.manifest import UNLABELLED, Manifest
from dist_dsvae.data.shards.store import Shard

T = TypeVar("T")
Archive = Literal["none", "gz", "xz"]
SUFFIXES: Mapping[Archive, str] = {"none": ".tar", "gz": ".tar.gz", "xz": ".tar.xz"}


class UnreadableError(Exception):
    """Raised by an encoder: this one source cannot be read. Its text is the reason."""


@dataclass(frozen=True, slots=True)
class Sample(Generic[T]):
    """What becomes one sample.

    reference: what the encoder needs to make the image: a path, an array, ...; picklable.
    name: where the sample comes from, for reports and its json member (hashed if it is unlabelled).
    """

    reference: T
    label: int
    name: str


# Turns a sample into the bytes of its image member and further entries of its json member.
# It is pickled into worker processes and raises UnreadableError for a source that it cannot read.
Encode = Callable[[Sample[T]], tuple[bytes, Mapping[str, object]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How a split lies on the disk.

    extension: of the image members, without a dot.
    archive: compression of the tars. Offsets in the indexes count uncompressed bytes.
    """

    shape: ImageShape
    extension: str
    samples_per_shard: int = 2000
    archive: Archive = "none"

    def __post_init__(self) -> None:
        if self.samples_per_shard < 1:
            raise DataError(f"There are {self.samples_per_shard} samples per shard; at least 1 is needed.")


@dataclass(frozen=True, slots=True)
class Written:
    """What came of a split: its manifest, and (name, reason) of each sample left out."""

    manifest: Manifest
    unreadable: tuple[tuple[str, str], ...]


def write_split(
    directory: Path,
    samples: Sequence[Sample[T]],
    encode: Encode[T],
    layout: Layout,
    *,
    classes: Sequence[str],
    command: str,
    source: str,
    face_crops: FaceCrops | None = None,
    num_workers: int = 1,
    progress: Callable[[int], None] = lambda num_samples: None,
) -> Written:
    """Write ``samples`` as shards into the new directory ``directory``.

    classes: names; the label of a sample is a place in it.
    progress: called with the number of samples done since the last call.
    Raises DataError if no sample can be read. A sample that cannot is left out and reported.
    """
    directory.mkdir(parents=True)
    order = permutation(len(samples), int(Draw.BUILD_ORDER)).tolist()
    size = layout.samples_per_shard
    tasks = [
        _Task(
            path=directory / f"{number:06d}{SUFFIXES[layout.archive]}",
            first_key=number * size,
            samples=[samples[place] for place in order[number * size : (number + 1) * size]],
            encode=encode,
            layout=layout,
            classes=tuple(classes),
        )
        for number in range(-(-len(samples) // size))
    ]
    results = run_tasks(_write_shard, tasks, num_workers, lambda task: progress(len(task.samples)))
    unreadable = sorted(pair for result in results for pair in result.unreadable)
    shards = _number_without_gaps(directory, [r.shard for r in results if r.shard is not None])
    if not shards:
        found = f"; {unreadable[0][0]}: {unreadable[0][1]}" if unreadable else ""
        raise DataError(
            f"None of the {len(samples)} samples of the split '{directory.name}' can be read{found}. "
            "Give a source with at least one readable sample."
        )
    manifest = Manifest.of(
        directory=directory,
        classes=tuple(classes),
        shape=layout.shape,
        encoding=layout.extension,
        shards=shards,
        command=command,
        source=source,
        face_crops=face_crops,
    )
    manifest.save()
    return Written(manifest, tuple(unreadable))


def index_tar(path: Path, rows: Sequence[tuple[int, int, int]]) -> tuple[Shard, bytes]:
    """The shard in a tar of (offset, size, label) per sample, and its index file: an int64 .npy table."""
    stream = io.BytesIO()
    np.save(stream, np.array(rows, dtype=np.int64).reshape(-1, 3))
    index = stream.getvalue()
    shard = Shard(
        file=path.name,
        index_file=index_file_of(path.name),
        num_samples=len(rows),
        num_bytes=path.stat().st_size,
        sha256=sha256_of(path),
        index_sha256=hashlib.sha256(index).hexdigest(),
        samples_per_class=dict(sorted(Counter(label for _, _, label in rows).items())),
    )
    return shard, index


def hashed_name(name: str) -> str:
    """What the json member of an unlabelled sample says in place of its name."""
    return f"sha256:{hashlib.sha256(name.encode()).hexdigest()[:32]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Task(Generic[T]):
    path: Path
    first_key: int
    samples: Sequence[Sample[T]]
    encode: Encode[T]
    layout: Layout
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Result:
    shard: Shard | None  # none if no sample could be read
    unreadable: list[tuple[str, str]]


def _write_shard(task: _Task[Any]) -> _Result:
    rows: list[tuple[int, int, int]] = []
    unreadable: list[tuple[str, str]] = []
    with _compressed(task.path, task.layout.archive) as stream:
        tar = _Tar(stream)
        for key, sample in enumerate(task.samples, start=task.first_key):
            try:
                image, metadata = task.encode(sample)
            except UnreadableError as error:
                unreadable.append((sample.name, str(error)))
                continue
            origin = hashed_name(sample.name) if task.classes == UNLABELLED else sample.name
            described = {"class_name": task.classes[sample.label], "source": origin, **metadata}
            offset = tar.add(f"{key:08d}.{task.layout.extension}", image)
            tar.add(f"{key:08d}.cls", str(sample.label).encode())
            tar.add(f"{key:08d}.json", json.dumps(described, ensure_ascii=False).encode())
            rows.append((offset, len(image), sample.label))
        tar.end()
    if not rows:
        task.path.unlink()
        return _Result(None, unreadable)
    shard, index = index_tar(task.path, rows)
    write_atomically(task.path.with_name(shard.index_file), index)
    return _Result(shard, unreadable)


@contextmanager
def _compressed(path: Path, archive: Archive) -> Iterator[BinaryIO]:
    """A new file, compressed on the way without a time or a name in it, on the disk at the end."""
    with path.open("wb") as file:
        if archive == "gz":
            with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                yield cast(BinaryIO, packed)
        elif archive == "xz":
            with lzma.LZMAFile(file, "wb", preset=6 | lzma.PRESET_EXTREME) as packed:
                yield cast(BinaryIO, packed)
        else:
            yield file
        file.flush()
        os.fsync(file.fileno())


class _Tar:
    """USTAR members, one after the other, as tarfile writes them, whose headers take three times as long.

    Names are of at most 100 bytes, and files below 8 GiB.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.offset = 0

    def add(self, name: str, content: bytes) -> int:
        """Append a member; returns the offset of its content in the uncompressed tar."""
        start = self.offset + tarfile.BLOCKSIZE
        padding = bytes(-len(content) % tarfile.BLOCKSIZE)
        self._write(_header(name, len(content)) + content + padding)
        return start

    def end(self) -> None:
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._write(bytes(-self.offset % tarfile.RECORDSIZE))

    def _write(self, content: bytes) -> None:
        self.stream.write(content)
        self.offset += len(content)


def _header(name: str, size: int) -> bytes:
    header = bytearray(_BLANK)
    header[: len(name)] = name.encode("ascii")
    header[124:135] = b"%011o" % size
    header[148:154] = b"%06o" % (sum(header) - sum(header[148:156]) + 8 * ord(" "))
    return bytes(header)


def _blank_header() -> bytes:
    member = tarfile.TarInfo("")
    member.mode = 0o644
    return member.tobuf(tarfile.USTAR_FORMAT)


_BLANK = _blank_header()


def _number_without_gaps(directory: Path, shards: Sequence[Shard]) -> list[Shard]:
    """Rename the shards so that their numbers run from 0 where a shard without samples fell out."""
    renamed = []
    for number, shard in enumerate(shards):
        suffix = shard.file[shard.file.index(".") :]
        file = f"{number:06d}{suffix}"
        index_file = index_file_of(file)
        (directory / shard.file).rename(directory / file)
        (directory / shard.index_file).rename(directory / index_file)
        renamed.append(replace(shard, file=file, index_file=index_file))
    return renamed
