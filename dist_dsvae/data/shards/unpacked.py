"""The uncompressed stream of a shard, by the ending of its name, which must say what its content is.

Training goes by the name alone (module ``reader``), so a name that is wrong is refused here.
"""

from __future__ import annotations

import gzip
import io
import lzma
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from dist_dsvae.core.errors import DataError

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz")
_KINDS = {"gzip": (".tar.gz", ".tgz"), "xz": (".tar.xz",), "no compression": (".tar",)}
_MARKS = {  # what files of a kind begin with
    "gzip": rb"\x1f\x8b",
    "xz": rb"\xfd7zXZ\x00",
    "bzip2": rb"BZh.1AY&SY",
    "zstd": rb"\x28\xb5\x2f\xfd",
    "lz4": rb"\x04\x22\x4d\x18",
    "compress": rb"\x1f\x9d",
    "zip": rb"PK\x03\x04",
    "no compression": rb".{257}ustar",
}
_CHUNK_BYTES = 2**20


@contextmanager
def open_uncompressed(path: Path) -> Iterator[BinaryIO]:
    """The tar stream of a .tar, .tar.gz, .tgz or .tar.xz.

    Raises DataError if the content is of another kind than the name says.
    """
    with path.open("rb") as file:
        _check_kind(path, file.read(512))
        file.seek(0)
        if path.name.endswith(_KINDS["gzip"]):
            with gzip.GzipFile(fileobj=file, mode="rb") as unpacked:
                yield cast(BinaryIO, unpacked)
        elif path.name.endswith(_KINDS["xz"]):
            yield cast(BinaryIO, io.BufferedReader(_Unxz(file), _CHUNK_BYTES))
        else:
            yield file


def _check_kind(path: Path, start: bytes) -> None:
    kind = _kind(start)
    if kind is None or path.name.endswith(_KINDS.get(kind, ())):
        return
    readable = kind in _KINDS
    remedy = (
        f"Rename it to end in {_KINDS[kind][0]}" if readable else "Unpack it, and pack it as a plain .tar"
    )
    raise DataError(
        f"The shard {path} is packed with {kind}, which its name does not say. {remedy}; shards end in "
        f"{', '.join(TAR_SUFFIXES)}."
    )


def _kind(start: bytes) -> str | None:
    """What the first block of a file says that it is; None if nothing is known of it."""
    return next((kind for kind, pattern in _MARKS.items() if re.match(pattern, start, re.DOTALL)), None)


class _Unxz(io.RawIOBase):
    """Streams of xz, one after the other; LZMAFile takes anything else that follows one for the end.

    Raises lzma.LZMAError, and EOFError for a stream that is cut off.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._pieces = self._unpack(file)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    @staticmethod
    def _unpack(file: BinaryIO) -> Iterator[bytes]:
        decompressor, packed = None, b""
        while packed or (packed := file.read(_CHUNK_BYTES)):
            if decompressor is None:
                packed = packed.lstrip(b"\0")  # padding between streams
                if not packed:
                    continue
                decompressor = lzma.LZMADecompressor()
            yield decompressor.decompress(packed)
            packed = decompressor.unused_data
            if decompressor.eof:
                decompressor = None
        if decompressor is not None:
            raise EOFError("the compressed stream is cut off")
