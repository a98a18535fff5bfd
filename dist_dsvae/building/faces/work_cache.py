"""Results of long work kept beside the place it is for, so that a killed build goes on where it was.

    OUT.work/<sha256 of a chunk's tasks>.json     one file per finished chunk, written in one step

A file is found again by what went into it: another picture, option or detector makes other names. The
directory is locked while its files are made or removed, so that no build takes them from another one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from dist_dsvae.building.parallel import run_tasks
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.files import write_atomically
from dist_dsvae.core.images import EncodedImage
from dist_dsvae.core.staging import locked
from dist_dsvae.core.text import read_json

Item = TypeVar("Item")
CHUNK = 32  # pictures: a kill loses at most so many per worker
_OURS = re.compile(r"[0-9a-f]{40}\.json|\.[0-9a-f]{40}\.json\.[0-9a-f]+\.tmp")


@dataclass(frozen=True, slots=True)
class WorkCache:
    """The finished chunks of work for ``out``, in a directory beside it."""

    out: Path

    @property
    def directory(self) -> Path:
        return self.out.with_name(f"{self.out.name}.work")

    def map(
        self,
        function: Callable[[Item], Any],
        items: Sequence[Item],
        *,
        identity: str,
        fingerprint: Callable[[Item], str],
        num_workers: int,
        progress: Callable[[int], None],
    ) -> list[Any]:
        """``function`` of every item, in their order; what an earlier build finished is read instead.

        function: its results survive JSON; it and the items are pickled into worker processes.
        identity: of the function and its options; fingerprint: of an item and the file behind it.
        progress: called with the number of items done since the last call.
        Raises DataError if another process is at it for the same ``out``.
        """
        chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
        paths = [self._path(identity, map(fingerprint, chunk)) for chunk in chunks]
        self.directory.mkdir(parents=True, exist_ok=True)
        with locked(self.directory, self.out):
            missing = [place for place, path in enumerate(paths) if not path.exists()]
            progress(len(items) - sum(len(chunks[place]) for place in missing))
            tasks = [_Chunk(function, chunks[place], paths[place]) for place in missing]
            run_tasks(_finish, tasks, num_workers, lambda task: progress(len(task.items)))
            return [result for path in paths for result in read_json(path)]

    def remove(self) -> None:
        """Remove the chunks, and the directory if nothing else is in it; none that another process makes."""
        with suppress(DataError, FileNotFoundError), locked(self.directory, self.out):
            for path in self.directory.iterdir():
                if _OURS.fullmatch(path.name):
                    path.unlink()
            with suppress(OSError):
                self.directory.rmdir()

    def _path(self, identity: str, fingerprints: Iterator[str]) -> Path:
        key = json.dumps([identity, *fingerprints])
        return self.directory / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.json"


def fingerprint_of(image: EncodedImage) -> str:
    """Changes when the picture is another one: its path and part, and the file's size and time."""
    path = image if isinstance(image, str) else image.path
    try:
        about = Path(path).stat()
    except OSError as error:
        return f"{image} {error.errno}"
    return f"{image} {about.st_size} {about.st_mtime_ns}"


@dataclass(frozen=True, slots=True)
class _Chunk(Generic[Item]):
    function: Callable[[Item], Any]
    items: Sequence[Item]
    path: Path


def _finish(chunk: _Chunk[Any]) -> None:
    results = [chunk.function(item) for item in chunk.items]
    write_atomically(chunk.path, json.dumps(results).encode())
