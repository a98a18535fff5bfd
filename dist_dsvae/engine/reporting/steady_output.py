"""Standard output whose loss ends no training: the reader of a pipe that left, a log on a full disk."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import IO, Any


class SteadyOutput:
    """A text file that loses what it cannot write."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        try:
            self._file.write(text)
        except OSError as error:
            self._lost(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError as error:
            self._lost(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def _lost(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError):
            # What is left in the buffer would fail again as Python ends, with status 120.
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._file.fileno())


def standard_output() -> IO[str]:
    """``sys.stdout`` as it is now, steady."""
    steady: Any = SteadyOutput(sys.stdout)
    found: IO[str] = steady
    return found
