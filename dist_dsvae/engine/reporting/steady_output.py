"""Standard output whose loss ends no training: the reader of a pipe that left, a log on a full disk."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import IO, Any, cast


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
            with suppress(OSError, ValueError):
                discard_rest(self._file)


def discard_rest(file: IO[str]) -> None:
    """Of a file that nobody reads any more: its buffer would fail again as Python ends, with status 120."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, file.fileno())
    os.close(nowhere)


def standard_output() -> IO[str]:
    """``sys.stdout`` as it is now, steady."""
    return cast(IO[str], SteadyOutput(sys.stdout))
