"""What a run writes besides its checkpoints: a full disk there costs a file, never the training.

A write that the disk refuses gets one warning, and the next one tries again; refused lines are lost.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dist_dsvae.core.files import write_atomically
from dist_dsvae.core.text import parse_json

logger = logging.getLogger(__name__)


class Tolerant:
    """Runs writes, and survives those that fail; says so once, and once again when they work anew.

    errors: those that a failing disk, or whatever else is written to, raises.
    """

    def __init__(self, what: str, errors: tuple[type[Exception], ...] = (OSError,)) -> None:
        self._what = what
        self._errors = errors
        self._failing = False

    def __call__(self, write: Callable[[], object]) -> bool:
        """Whether ``write`` went through."""
        try:
            write()
        except self._errors as error:
            if not self._failing:
                reason = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]
                logger.warning(
                    "%s cannot be written (%s); training goes on without, and tries again.",
                    self._what,
                    reason or type(error).__name__,
                )
            self._failing = True
            return False
        if self._failing:
            logger.warning("%s is written again.", self._what)
        self._failing = False
        return True


class MetricsFile:
    """metrics.jsonl: a JSON object a line, appended; lines after ``samples_seen`` are dropped first."""

    def __init__(self, path: Path, samples_seen: int) -> None:
        self._path = path
        self._tolerant = Tolerant(str(path))
        self._torn: int | None = None  # where a part of a line begins that a failed write may have left
        self._drop: Callable[[], object] | None = lambda: _drop_lines_after(path, samples_seen)
        if self._tolerant(self._drop):
            self._drop = None

    def append(self, record: Mapping[str, Any]) -> None:
        def write() -> None:
            if self._drop is not None:  # or a line would stand there twice
                self._drop()
                self._drop = None
            if self._torn is None:
                self._torn = self._path.stat().st_size if self._path.exists() else 0
            with self._path.open("ab") as stream:
                if self._torn < stream.tell():
                    stream.truncate(self._torn)
                stream.write(json.dumps(record).encode() + b"\n")
            self._torn = None

        self._tolerant(write)


def _drop_lines_after(path: Path, samples_seen: int) -> None:
    """Keep the lines of ticks up to ``samples_seen``; a last line cut off by a kill goes too."""
    if not path.is_file():
        return
    before = path.read_text(encoding="utf-8", errors="replace")  # what is no text is no line of ours
    kept = "".join(line + "\n" for line in before.splitlines() if _is_up_to(line, samples_seen))
    if kept != before:
        write_atomically(path, kept.encode())


def _is_up_to(line: str, samples_seen: int) -> bool:
    try:
        return bool(parse_json(line)["samples_seen"] <= samples_seen)
    except (ValueError, KeyError, TypeError):
        return False
