"""The members of a tar that any tool wrote, header by header; damage is noticed, wherever it is.

    512 bytes --TarInfo.frombuf--> header; with the extended headers before it --TarFile--> member

``tarfile`` parses, but does not walk: its own loop takes a header that cannot be read for the end of the tar,
or skips it, and the private methods that could tell have changed within releases of Python.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = 512
_EXTENDS = frozenset(
    (b"x", b"X", b"g", b"L", b"K")
)  # PAX, Solaris, PAX for all that follow, GNU's long names
_SPARSE_NAME = re.compile(rb"\d+ GNU\.sparse\.name=([^\n]*)\n")
_OCTAL = re.compile(rb"[0-7]+")
_MOST_HEADER_BYTES = 2**20
_CHUNK_BYTES = 2**20


def promises(header: bytes | memoryview, size: int) -> bool:
    """Whether a block is the header of a USTAR, GNU or PAX member whose content takes ``size`` bytes.

    Training asks that before it reads a content, and ``index`` beforehand.
    """
    digits = bytes(header[124:136]).strip(b" \0")
    is_size = _OCTAL.fullmatch(digits) is not None and int(digits, 8) == size
    return is_size and bytes(header[257:262]) == b"ustar"


class _Forward:
    """A stream that is only read forwards, and knows where it stands.

    Raises tarfile.ReadError where it ends too early.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.position = stream, 0

    def block(self) -> bytes:
        """The next one, or what there is of it."""
        found = self._stream.read(BLOCK)
        self.position += len(found)
        return found

    def read(self, size: int) -> bytes:
        found = self._stream.read(size)
        self.position += len(found)
        if len(found) < size:
            raise tarfile.ReadError("unexpected end of data")
        return found

    def go_to(self, position: int) -> None:
        if position > self.position and self._stream.seekable():
            self.position = self._stream.seek(
                position - 1
            )  # any place can be sought, the last byte not be read
        while self.position < position:
            self.read(min(position - self.position, _CHUNK_BYTES))


@dataclass(frozen=True, slots=True)
class TarMember:
    """A member as its headers tell it. header: its own block; offset: of its content in the tar.

    Of a sparse file that PAX describes, ``info`` knows the name, and else no more than the block does.
    """

    info: tarfile.TarInfo
    header: bytes
    offset: int
    is_sparse: bool
    _stream: _Forward

    def read(self) -> bytes:
        """The content, once, and before the next member is asked for."""
        return self._stream.read(self.info.size)


def members_of(stream: BinaryIO) -> Iterator[TarMember]:
    """Of one tar, or of several joined end to end, uncompressed, from its start.

    Raises tarfile.TarError, or whatever tarfile raises on a crafted header, where the tar is cut off or
    damaged.
    """
    tar, after_end, extended, for_all = _Forward(stream), False, b"", b""
    while block := tar.block():
        if not any(block) and (after_end or len(block) == BLOCK):
            after_end = True  # zeros end every complete tar, and may be followed by another tar
            continue
        header = _header(block, after_end=after_end)
        after_end = False
        if header.type in _EXTENDS:
            if not 0 <= header.size <= _MOST_HEADER_BYTES - len(extended) - len(for_all):
                raise tarfile.ReadError(f"a header promises {header.size:,} bytes of further headers")
            blocks = block + tar.read(_padded(header.size))
            if header.type == tarfile.XGLTYPE:
                for_all += blocks
            else:
                extended += blocks
            continue
        is_sparse = header.type == tarfile.GNUTYPE_SPARSE or b" GNU.sparse." in extended
        if header.type == tarfile.GNUTYPE_SPARSE:
            _skip_map(tar, block)
        elif is_sparse:  # tarfile would look for the map of holes in the content
            if (name := _SPARSE_NAME.search(extended)) is not None:
                header.name = name[1].decode("utf-8", "surrogateescape")
        elif extended or for_all:
            header = _parsed(for_all + extended + block)
        offset, extended = tar.position, b""
        yield TarMember(header, block, offset, is_sparse, tar)
        if header.isreg() or header.type not in tarfile.SUPPORTED_TYPES:  # others have no content
            tar.go_to(offset + _padded(header.size))
    if not after_end:
        raise tarfile.ReadError("it does not end with the zeros that end every complete tar")


def _header(block: bytes, *, after_end: bool) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        where = "behind the end of the archive stands what is no archive: " if after_end else ""
        raise tarfile.ReadError(f"{where}{error}") from error


def _parsed(blocks: bytes) -> tarfile.TarInfo:
    """What the last header means after the extended ones before it."""
    with tarfile.TarFile(fileobj=io.BytesIO(blocks), encoding="utf-8") as tar:
        member = tar.next()
    if member is None:
        raise tarfile.ReadError("an extended header cannot be read")
    return member


def _skip_map(tar: _Forward, header: bytes) -> None:
    """Past the blocks in which the old GNU format goes on with a header's map of holes."""
    goes_on = header[482]
    while goes_on:
        goes_on = tar.read(BLOCK)[504]


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
