"""The shards of a split as a table: a row per tar, memory-mapped, so that a process holds none of it.

    <split>/manifest.shards.npy     file, samples, bytes, sha256 of the tar and of its index

What is said per class would grow with shards times classes; the manifest has the sums, the indexes have
the rest. Manifests of version 1 hold it per shard; their tables are made when they are read.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from dist_dsvae.core.errors import DataError
from dist_dsvae.core.types import ImageShape
from dist_dsvae.data.shards.index_file import index_file_of
from dist_dsvae.data.shards.store import Shard
from dist_dsvae.data.shards.unpacked import TAR_SUFFIXES

TABLE_FILE = "manifest.shards.npy"
_NUMBERS = ("num_samples", "num_bytes")
_HASHES = ("sha256", "index_sha256")
_SUFFIXES = tuple(suffix.encode() for suffix in TAR_SUFFIXES)


class ShardTable:
    """The shards in order, made one by one when they are asked for.

    rows: a structured array [number of shards] (``_columns``). known: the shards themselves, where they
    have just been written or come from a manifest of version 1.
    """

    def __init__(self, rows: npt.NDArray[np.void], known: tuple[Shard, ...] | None = None) -> None:
        self.rows = rows
        self._known = known

    @classmethod
    def of(cls, shards: Sequence[Shard]) -> ShardTable:
        longest = max((len(shard.file.encode()) for shard in shards), default=1)
        rows = np.zeros(len(shards), dtype=_columns(longest))
        for row, shard in zip(rows, shards, strict=True):
            row["file"] = shard.file.encode()
            for name in _NUMBERS:
                row[name] = getattr(shard, name)
            for name in _HASHES:
                row[name] = np.frombuffer(bytes.fromhex(getattr(shard, name) or "00" * 32), dtype=np.uint8)
        return cls(rows, tuple(shards))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Shard:
        if self._known is not None:
            return self._known[number]
        row = self.rows[number]
        file, index_sha256 = row["file"].decode(), row["index_sha256"]
        return Shard(
            file=file,
            index_file=index_file_of(file),
            num_samples=int(row["num_samples"]),
            num_bytes=int(row["num_bytes"]),
            sha256=row["sha256"].tobytes().hex(),
            index_sha256=index_sha256.tobytes().hex() if index_sha256.any() else None,
        )

    def __iter__(self) -> Iterator[Shard]:
        return (self[number] for number in range(len(self)))

    def files(self) -> Iterator[tuple[str, str, int, int]]:
        """(tar, index, samples, bytes of the tar) of every shard; quicker than the shards themselves."""
        if self._known is not None:
            return ((one.file, one.index_file, one.num_samples, one.num_bytes) for one in self._known)
        names = [name.decode() for name in self.rows["file"].tolist()]
        numbers = (self.rows[name].tolist() for name in _NUMBERS)
        return zip(names, map(index_file_of, names), *numbers, strict=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShardTable) and np.array_equal(self.rows, other.rows)

    __hash__ = None  # type: ignore[assignment]  # arrays have none

    def to_bytes(self) -> bytes:
        """The content of ``TABLE_FILE``."""
        stream = io.BytesIO()
        np.save(stream, self.rows)
        return stream.getvalue()


def check_table(rows: object, name: str, remedy: str) -> npt.NDArray[np.void]:
    """``rows`` if it is a table of shards. Raises DataError, naming the file, otherwise."""
    wanted = _columns(1)
    if not isinstance(rows, np.ndarray) or rows.ndim != 1 or rows.dtype.names != wanted.names:
        raise DataError(f"{name} is no table of shards. {remedy}")
    if any(rows.dtype[column] != wanted[column] for column in (*_NUMBERS, *_HASHES)):
        raise DataError(f"{name} has columns of other types than a table of shards. {remedy}")
    if not len(rows):
        raise DataError(f"{name} lists no shard. {remedy}")
    if min(int(rows[column].min()) for column in _NUMBERS) < 0:
        raise DataError(f"{name} has a negative number of samples or bytes. {remedy}")
    for file in rows["file"].tolist():
        if not isinstance(file, bytes) or b"/" in file or not file.endswith(_SUFFIXES) or not _is_text(file):
            raise DataError(f"{name} names the file {file!r}, which is no plain name of a tar. {remedy}")
    return rows


def _is_text(name: bytes) -> bool:
    try:
        return bool(name.decode())
    except UnicodeDecodeError:
        return False


def samples_per_class_of(shards: Iterable[Shard], num_classes: int) -> tuple[int, ...]:
    """Samples of each class in all of ``shards``, which know their own."""
    counts = [0] * num_classes
    for shard in shards:
        for label, count in (shard.samples_per_class or {}).items():
            if 0 <= label < num_classes:
                counts[label] += count
    return tuple(counts)


def fingerprint_of(classes: Sequence[str], shape: ImageShape, shards: Iterable[Shard]) -> str:
    """sha256 (hex) over everything that decides the content and the order of the samples.

    shards: which know their samples per class. The text that is hashed is one JSON object; it is never
    held as a whole, for it grows with shards times classes.
    """
    digest = hashlib.sha256()
    head = json.dumps({"classes": list(classes), "shape": shape, "shards": []})
    digest.update(head.removesuffix("]}").encode())
    for number, shard in enumerate(shards):
        counts = sorted((shard.samples_per_class or {}).items())
        entry = json.dumps([shard.file, shard.num_samples, shard.sha256, counts])
        digest.update((", " if number else "").encode() + entry.encode())
    digest.update(b"]}")
    return digest.hexdigest()


def _columns(longest_name: int) -> np.dtype[np.void]:
    return np.dtype(
        [
            ("file", f"S{longest_name}"),
            *((name, "<i8") for name in _NUMBERS),
            *((name, np.uint8, (32,)) for name in _HASHES),
        ]
    )
