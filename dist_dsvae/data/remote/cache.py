"""A bounded folder of fetched tars, shared by all processes of a machine.

    <directory>/<sha256>.tar         complete and verified
    <directory>/<sha256>.tar.part    being downloaded, or left by a process that was killed

A name is the content's own hash, so whatever has its final name is right for every split that wants
it. Links are never followed. Locks (flock) stand on the files themselves, and end with the process that
holds them:

    exclusive, on .part    somebody downloads it: the others wait, then find the complete file
    shared, on a tar       somebody has it open: it is not removed

A tar gets its name when it is complete, checked and on the disk. Beyond ``max_bytes``, tars are removed
by unlinking, the one used longest ago first. That would be safe even under a reader, since Linux keeps
an unlinked file for whoever has it open or mapped; the lock only spares fetching it again.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dist_dsvae.core.errors import DataError

logger = logging.getLogger(__name__)

_PART = ".part"
# nothing else in the directory is ever removed
_OURS = re.compile(r"[0-9a-f]{64}(\.tar|\.tar\.gz|\.tgz|\.tar\.xz)(\.part)?")
_POLL_SECONDS = 0.02
_SAY_SO_SECONDS = 30.0

Download = Callable[[BinaryIO, float], None]
"""Writes the verified content over the file's; told the seconds that were spent on waiting for others."""


@dataclass(frozen=True, slots=True)
class ShardCache:
    """directory: on a local disk of the machine.

    max_bytes: of all tars together, with those being downloaded; exceeded only if more than that is open.
    """

    directory: Path
    max_bytes: int

    def open(self, name: str, num_bytes: int, download: Download) -> BinaryIO:
        """The tar ``name``, downloaded unless it is here; not removed for as long as it is open.

        num_bytes: its size. Raises what ``download`` raises, and DataError if the folder cannot be used.
        """
        begin = time.monotonic()
        said = False
        while True:
            file = self.open_at_once(name, num_bytes, download, time.monotonic() - begin)
            if file is not None:
                return file
            if not said and time.monotonic() - begin > _SAY_SO_SECONDS:
                said = True
                logger.warning("waiting for another process to fetch %s", self.directory / name)
            time.sleep(_POLL_SECONDS)

    def open_at_once(
        self, name: str, num_bytes: int, download: Download, waited_seconds: float = 0.0
    ) -> BinaryIO | None:
        """The same, but None while another process (or thread) downloads it."""
        with self._sentences():
            file = self.open_present(name, num_bytes)
            if file is not None:
                return file
            self.directory.mkdir(parents=True, exist_ok=True)
            part = _lock_alone(self.directory / (name + _PART), create=True)
            if part is None:
                return None
            with _unlocking(part):
                return self._complete(part, name, num_bytes, download, waited_seconds)

    def open_present(self, name: str, num_bytes: int) -> BinaryIO | None:
        """The tar if it is here and complete, marked as just used."""
        path = self.directory / name
        with self._sentences():
            try:
                # by an opener, so that the file knows its path
                file = open(path, "rb", opener=_open_file)  # noqa: SIM115 - the caller closes it
            except FileNotFoundError:
                return None
            fcntl.flock(file, fcntl.LOCK_SH)
            if not _is_at(file, path):  # removed before it was locked
                file.close()
                return None
            if os.fstat(file.fileno()).st_size != num_bytes:  # somebody has changed it since
                file.close()
                path.unlink(missing_ok=True)
                return None
            with suppress(PermissionError):  # another user's
                now = time.time_ns()  # finer than the kernel's own stamp
                os.utime(file.fileno(), ns=(now, now))
            return file

    def _complete(
        self, part: BinaryIO, name: str, num_bytes: int, download: Download, waited_seconds: float
    ) -> BinaryIO | None:
        """Fill the locked file ``part``, give it its name, and open that."""
        path = self.directory / name
        partial = self.directory / (name + _PART)
        try:
            # it may have been completed between the look for it and the lock
            if not path.exists():
                with self._accounting():
                    os.ftruncate(part.fileno(), 0)  # what a killed process left of it
                    self._make_room(num_bytes)
                    os.ftruncate(part.fileno(), num_bytes)  # reserved: others see it as taken
                download(part, waited_seconds)
                part.flush()
                os.fsync(part.fileno())
                partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)
        # shared from here on: nobody removes it before it is opened under its name
        fcntl.flock(part, fcntl.LOCK_SH)
        return self.open_present(name, num_bytes)

    @contextmanager
    def _accounting(self) -> Iterator[None]:
        """One process at a time counts and reserves, or several would take the same room."""
        descriptor = os.open(self.directory, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def _make_room(self, num_bytes: int) -> None:
        """Remove what was used longest ago until so much more fits, and what killed processes left."""
        found: list[tuple[int, int, Path]] = []
        for path in self.directory.iterdir():
            if _OURS.fullmatch(path.name):
                with suppress(FileNotFoundError):  # removed by another process meanwhile
                    status = path.lstat()
                    found.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            too_much = total + num_bytes > self.max_bytes
            if (too_much or path.suffix == _PART) and _remove_unless_in_use(path):
                total -= size

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        """A full disk, a missing permission, ... as a sentence."""
        try:
            yield
        except OSError as error:
            raise DataError(
                f"The cache of fetched shards, {self.directory}, cannot be used ({error.strerror or error}). "
                "Mend that, or choose another local folder with data.cache_dir; data.cache_gib is its bound."
            ) from error


def _open_file(path: str | Path, flags: int) -> int:
    """The file itself: a link in its place, which might lead anywhere, is removed and counts as no file."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        Path(path).unlink(missing_ok=True)
        return os.open(path, flags | os.O_NOFOLLOW, 0o644)


def _lock_alone(path: Path, *, create: bool = False) -> BinaryIO | None:
    """The file, open and locked exclusively; None if somebody else has it, or if it is gone."""
    flags = os.O_RDWR | (os.O_CREAT if create else 0)
    file = os.fdopen(_open_file(path, flags), "r+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    # renamed or removed before it was locked, the file is not the one of this name any more
    if _is_at(file, path):
        return file
    with _unlocking(file):
        return None


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether an open file still has that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def _unlocking(file: BinaryIO) -> Iterator[None]:
    """Unlocks and closes: closing alone leaves the lock to a process that was forked meanwhile."""
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)
        file.close()


def _remove_unless_in_use(path: Path) -> bool:
    """Whether the file is gone now."""
    try:
        file = _lock_alone(path)
    except FileNotFoundError:
        return True
    except PermissionError:  # another user's
        return False
    if file is None:
        return False
    with _unlocking(file):
        path.unlink(missing_ok=True)
    return True
