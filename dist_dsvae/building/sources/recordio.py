"""MXNet's RecordIO, read without MXNet: a file of records and an index of where they begin.

    record   = part+
    part     = magic  kind and length  bytes  zeros up to a multiple of 4
    content  = flag, label, id, id2  flag x float32  picture

A record is one part (kind 0) unless its content has the magic number at a multiple of 4. There it is
cut into parts (kinds 1, 2 .. 2, 3), and the magic number that was cut out is not written: the one that
begins the next part stands for it. So a picture in parts is (offset, size) pieces of the file, too.

Every number is checked against the size of the file before it is used; nothing here can run code.
Format: dmlc-core's recordio.h and mxnet/recordio.py (IRHeader).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dist_dsvae.core.errors import DataError
from dist_dsvae.core.images import FilePart

MAGIC = 0xCED7230A
_PART = struct.Struct("<II")
_HEADER = struct.Struct("<IfQQ")
_KIND_BIT = 29
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)

Span = tuple[int, int]  # offset and size in bytes


@dataclass(frozen=True, slots=True)
class Record:
    """labels: of the header, at least one. content: what follows it, where it lies."""

    labels: tuple[float, ...]
    content: FilePart

    @property
    def is_empty(self) -> bool:
        return not self.content.num_bytes and not self.content.rest


def read_records(records: Path, index: Path) -> dict[int, Record]:
    """Key -> record, sorted by key, of a .rec file and its .idx. Pictures are not read.

    Raises DataError if a file is missing, cut off or not of this format.
    """
    for path in (records, index):
        if not path.is_file():
            raise DataError(
                f"The file {path} is missing. RecordIO files come as {records.name} and {index.name}: give "
                "the folder that holds both."
            )
    offsets = read_index(index)
    if not records.stat().st_size:
        raise DataError(f"{records} is empty. Fetch it again.")
    with records.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        reader = _Reader(records, content)
        return {key: reader.record(key, offset) for key, offset in sorted(offsets.items())}


def read_index(path: Path) -> dict[int, int]:
    """Key -> offset of its record, from lines of two numbers. Raises DataError."""
    offsets: dict[int, int] = {}
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no index of a RecordIO file ({error}). Fetch it again.") from error
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if len(words) != 2 or not all(word.isdecimal() for word in words) or int(words[0]) in offsets:
            raise DataError(
                f"Line {number} of {path} is {line[:50]!r}; it must be a key that no other line has, and the "
                "offset of its record. Fetch the file again."
            )
        offsets[int(words[0])] = int(words[1])
    if not offsets:
        raise DataError(f"{path} lists no record. Fetch it again.")
    return offsets


class _Reader:
    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self.path = path
        self.content = content

    def damaged(self, key: int, why: str) -> DataError:
        return DataError(
            f"The record {key} of {self.path} cannot be read: {why}. The file is damaged, incomplete or does "
            "not belong to its .idx file: fetch both again."
        )

    def record(self, key: int, offset: int) -> Record:
        spans = self.spans(key, offset)
        head = self.take(spans, _HEADER.size)
        if len(head) < _HEADER.size:
            raise self.damaged(key, f"it has {len(head)} bytes, but its header alone has {_HEADER.size}")
        flag, label, _, _ = _HEADER.unpack(head)
        num_bytes = _HEADER.size + 4 * flag
        if num_bytes > sum(size for _, size in spans):
            raise self.damaged(key, f"its header promises {flag:,} labels, for which it is too short")
        labels = struct.unpack(f"<{flag}f", self.take(spans, num_bytes)[_HEADER.size :]) if flag else (label,)
        (first_offset, first_size), *rest = skip(spans, num_bytes)
        return Record(labels, FilePart(str(self.path), first_offset, first_size, tuple(rest)))

    def spans(self, key: int, offset: int) -> list[Span]:
        """Where the content of the record at ``offset`` lies, header included."""
        spans: list[Span] = []
        while True:
            start = offset + _PART.size
            if start > len(self.content):
                raise self.damaged(key, f"the file ends at byte {len(self.content):,}, before it")
            magic, word = _PART.unpack_from(self.content, offset)
            kind, size = word >> _KIND_BIT, word % 2**_KIND_BIT
            if magic != MAGIC or kind not in ((_MIDDLE, _LAST) if spans else (_WHOLE, _FIRST)):
                raise self.damaged(key, f"no part of it begins at byte {offset:,}")
            if start + size > len(self.content):
                raise self.damaged(key, f"it needs bytes up to {start + size:,} of {len(self.content):,}")
            if kind in (_WHOLE, _LAST):
                return [*spans, (start, size)]
            spans.append((start, size + 4))  # with the magic number of the next part, cut out here
            offset = start + size

    def take(self, spans: Sequence[Span], num_bytes: int) -> bytes:
        """The first bytes of the content."""
        taken = b""
        for offset, size in spans:
            taken += self.content[offset : offset + min(size, num_bytes - len(taken))]
        return taken


def skip(spans: Sequence[Span], num_bytes: int) -> list[Span]:
    """What is left after the first ``num_bytes``, at least one (perhaps empty) span."""
    left = list(spans)
    while num_bytes > left[0][1]:
        num_bytes -= left.pop(0)[1]
    offset, size = left[0]
    left[0] = (offset + num_bytes, size - num_bytes)
    return left
