"""The clock: the time that a run has trained, and what is due by time rather than by iterations.

Due by time are a line for people, a checkpoint, and the end. Rank 0's clock alone decides; what it asks for
travels with the requests to stop (``preemption``), so that all ranks do the same after the same iteration,
and nothing waits for it. None of it changes what is computed: a checkpoint holds the whole state after
any iteration, and a line by the clock reads the loss sums without taking them.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from dist_dsvae.config import TrainConfig


class Due(enum.IntFlag):
    """What a clock may ask for."""

    LINE = 1
    CHECKPOINT = 2
    END = 4


def is_early(iteration: int, every: int) -> bool:
    """Whether ``iteration`` is 1, 10, 100, ... before the first of a cadence of ``every``; 0 has none."""
    return iteration < every and iteration in (10**n for n in range(len(str(iteration))))


class Timed(Protocol):
    """What counts the seconds that a run has trained, over all its starts."""

    train_seconds: float


class Clock:
    """Adds this process's time to the run's, and says what is due by time.

    train: max_seconds and checkpoint_every_minutes, 0 meaning never. seconds_between_lines: for people. now:
    seconds since any moment.
    due: what all ranks have agreed on for the coming iteration; set by ``StopRequests.agreed``. The first
    iteration of a process has a line in any case.
    """

    def __init__(
        self,
        state: Timed,
        train: TrainConfig,
        seconds_between_lines: float,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._state = state
        self._now = now
        self._limits = {
            Due.LINE: seconds_between_lines,
            Due.CHECKPOINT: 60 * train.checkpoint_every_minutes,
            Due.END: train.max_seconds,
        }
        self._last = now()
        self._since = dict.fromkeys(self._limits, self._last)
        self._is_first = True
        self.due = Due(0)

    def asks(self) -> Due:
        """What is due by this process's clock; a line and a checkpoint are asked for once in their time."""
        now, asked = self._now(), Due(0)
        for what, limit in self._limits.items():
            if 0 < limit <= now - self._since[what]:
                asked |= what
                if what is not Due.END:
                    self._since[what] = now
        return asked

    def is_due(self, what: Due) -> bool:
        return what in self.due or (what is Due.LINE and self._is_first)

    def done(self, what: Due) -> None:
        """It has just been done, for whatever reason: its time begins anew."""
        self._since[what] = self._now()
        self._is_first = self._is_first and what is not Due.LINE

    def tick(self) -> None:
        now = self._now()
        self._state.train_seconds += now - self._last
        self._last = now

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What happens inside is not training, and counts neither as its time nor against its limit."""
        begin = self._now()
        yield
        seconds = self._now() - begin
        self._last += seconds
        self._since[Due.END] += seconds
