"""The time that a run has trained, over all its processes' lives."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from dist_dsvae import distributed
from dist_dsvae.engine.run_state import RunState


class Clock:
    """Adds this process's time to the run's, and ends it at train.max_seconds by rank 0's clock."""

    def __init__(self, state: RunState, max_seconds: float) -> None:
        self.state = state
        self.max_seconds = max_seconds
        self.is_over = False
        self._started = self._last = time.perf_counter()

    def tick(self) -> None:
        now = time.perf_counter()
        self.state.train_seconds += now - self._last
        self._last = now

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What happens inside is not training, and counts neither as its time nor against its limit."""
        begin = time.perf_counter()
        yield
        seconds = time.perf_counter() - begin
        self._last += seconds
        self._started += seconds

    def agree(self) -> None:
        """Called by all ranks: whether time is up."""
        if self.max_seconds > 0:
            over = time.perf_counter() - self._started > self.max_seconds
            self.is_over = distributed.broadcast_object(over)
