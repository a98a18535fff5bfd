"""Files that are whole or not there, and what they hold as a number."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_TICK_NS = 2_000_000_000  # the coarsest there is, of file systems that count whole seconds
_hashes: dict[tuple[int, ...], str] = {}


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file through a temporary name beside it; on return it is on the disk."""
    write_together([(path, content)])


def write_together(files: Iterable[tuple[Path, bytes]]) -> None:
    """Write several files, of which none takes its name before all are on the disk.

    An exception before that, of a full disk or an interrupt, leaves everything as it was. The names are
    taken one by one in the order of ``files``: what tells of the others comes last.
    """
    written: list[tuple[Path, Path]] = []
    try:
        for path, content in files:
            # a process of another machine or container may have this one's number
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
            written.append((temporary, path))
            with speaking_of(path), temporary.open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        for temporary, path in written:
            with speaking_of(path):
                temporary.replace(path)
    except BaseException:
        for temporary, _ in written:
            with suppress(OSError):
                temporary.unlink()  # on a full disk many tries would fill what is left
        raise


@contextmanager
def kept_if_it_fails(path: Path) -> Iterator[None]:
    """A file that what is inside removes is back if that ends with an exception."""
    content = path.read_bytes() if path.is_file() else None
    try:
        yield
    except BaseException:
        if content is not None and not path.exists():
            write_atomically(path, content)
        raise


@contextmanager
def speaking_of(path: Path) -> Iterator[None]:
    """Errors inside name ``path``, not the temporary file or folder beside it that nobody asked for."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def fsync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Of a file's content, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_as_of(path: Path) -> str:
    """The same, but read once in the life of this process for as long as the file stays as it is.

    It is known by its inode, size and times, wherever it is moved. One that has just been changed is read
    each time: a further change within a tick of the clock would not show.
    """
    status = path.stat()
    state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if state not in _hashes:
        found = sha256_of(path)
        if time.time_ns() - status.st_ctime_ns < _TICK_NS:
            return found
        _hashes[state] = found
    return _hashes[state]
