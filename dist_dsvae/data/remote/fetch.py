"""Fetching one file from a source: tried again with growing pauses, and checked before it is trusted.

    attempt --failed--> pause 0.5 s, 1 s, 2 s, ... --> attempt ... --too often--> FetchError, one sentence
       '----arrived----> check --wrong--> as failed
                               '--right--> done

Nothing of a failed attempt is kept: the next one starts from the first byte.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import BinaryIO

from dist_dsvae.core.errors import DataError
from dist_dsvae.data.remote.location import GO_ON, AttemptError, Location

logger = logging.getLogger(__name__)

_TRIES_IF_LASTING = 2  # 404, wrong bytes: a second look, for a file may just be being replaced
_MOST_DOUBLINGS = 64  # far beyond the longest pause
_LONGEST_PAUSE_SECONDS = 30.0
_LEAST_BYTES = 2**16  # what must arrive within timeout_seconds; less is a stalled server


class FetchError(DataError):
    """A file from afar could not be had. lasting: the place answered, and trying again will hardly help."""

    def __init__(self, message: str, *, lasting: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting


@dataclass(frozen=True, kw_only=True, slots=True)
class Retries:
    """How often and how long.

    tries: attempts at a file. pause_seconds: before the second; it doubles with each further one.
    timeout_seconds: a connection that brings (almost) nothing for so long has stalled.
    """

    tries: int = 8
    pause_seconds: float = 0.5
    timeout_seconds: float = 30.0

    def pause_after(self, tried: int) -> float:
        return min(self.pause_seconds * 2.0 ** min(tried - 1, _MOST_DOUBLINGS), _LONGEST_PAUSE_SECONDS)

    @property
    def total_seconds(self) -> float:
        """After so long no new attempt begins."""
        pauses = sum(self.pause_after(tried) for tried in range(1, self.tries))
        return pauses + self.tries * self.timeout_seconds


def fetch(
    source: Location,
    file: str,
    out: BinaryIO,
    *,
    max_bytes: int,
    check: Callable[[BinaryIO], None],
    patience: Retries,
    waited_seconds: float = 0.0,
) -> None:
    """Write a file of a source to ``out``, in place of what that holds.

    max_bytes: a longer file is wrong, and not read to its end.
    check: raises ValueError, saying why, if what arrived is not what it must be.
    waited_seconds: spent already on the file, by waiting for another process that tried.
    Raises FetchError after the last attempt.
    """
    begin = time.monotonic() - waited_seconds
    tried = 0
    while True:
        tried += 1
        out.seek(0)
        try:
            _receive(source, file, out, max_bytes, patience.timeout_seconds)
            out.truncate()  # what the file, or an attempt before, had beyond it
            out.flush()
            out.seek(0)
            check(out)
            return
        except AttemptError as attempt:
            failure = attempt
        except ValueError as error:
            remedy = "Put the split there again, whole."
            why = str(error).strip(" .")
            failure = AttemptError(f"it is not what it must be: {why}", remedy, lasting=True)
        spent = time.monotonic() - begin
        tries = min(patience.tries, _TRIES_IF_LASTING) if failure.lasting else patience.tries
        if tried >= tries or spent > patience.total_seconds:
            times = "once" if tried == 1 else f"{tried} times"
            raise FetchError(
                f"{source.name(file)} could not be fetched (tried {times} in {spent:.1f} s): {failure.what}. "
                f"{failure.remedy}",
                lasting=failure.lasting,
            )
        pause = patience.pause_after(tried)
        logger.warning(
            "%s: %s; next try in %.1f s (%d of %d)", source.name(file), failure.what, pause, tried + 1, tries
        )
        time.sleep(pause)


def _receive(source: Location, file: str, out: BinaryIO, max_bytes: int, timeout_seconds: float) -> None:
    """One attempt."""
    received = seen = 0
    since = time.monotonic()
    with closing(source.chunks(file, timeout_seconds)) as chunks:
        for chunk in chunks:
            out.write(chunk)
            received += len(chunk)
            if received > max_bytes:
                what = f"it is longer than the {max_bytes:,} bytes that it may have"
                raise AttemptError(what, "Put the split there again, whole.", lasting=True)
            now = time.monotonic()
            if now - since > timeout_seconds:
                if received - seen < _LEAST_BYTES:
                    raise AttemptError(f"only {received - seen} bytes arrived in {now - since:.1f} s", GO_ON)
                since, seen = now, received
