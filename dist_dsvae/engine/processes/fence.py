"""Fence: the host waits for the device with a deadline, and never runs far ahead of it.

    iteration n   launch, record an event    the host goes on while at most two iterations are unfinished
    host read     wait for everything        then the value is there, and reading it cannot block

A collective whose peer is gone never ends on the device, and NCCL's own watchdog does not see the collectives
inside a CUDA graph. A host that blocks in a read then blocks for good, deaf to signals. Hence it polls.
"""

from __future__ import annotations

import collections
import math
import time
from collections.abc import Callable
from datetime import timedelta

import torch

from dist_dsvae.core import distributed

_ITERATIONS_AHEAD = 2
# A launcher kills half a minute after the signal; naming the missing rank takes some seconds of it.
SECONDS_LEFT_BY_A_SIGNAL = 15.0
_FIRST_NAP_SECONDS, _LONGEST_NAP_SECONDS = 2e-5, 1e-3


class WaitTimeoutError(RuntimeError):
    """What all processes compute together did not become done in time: some rank does not take part."""


class Patience:
    """How long this process waits for the others; without end where there are none.

    timeout: of one wait.
    """

    def __init__(self, timeout: timedelta) -> None:
        self.timeout = timeout
        self._hurried_since: float | None = None

    def hurry(self) -> None:
        """From now on wait for some seconds at most, because this process was told to end. Signal-safe."""
        if self._hurried_since is None:
            self._hurried_since = time.monotonic()

    def wait_until(self, is_done: Callable[[], bool]) -> None:
        """Poll ``is_done``. Raises WaitTimeoutError when patience ends, and whatever ``is_done`` raises."""
        begin = time.monotonic()
        nap = _FIRST_NAP_SECONDS
        while not is_done():
            if time.monotonic() > self._deadline(begin):
                seconds = time.monotonic() - begin
                raise WaitTimeoutError(f"Waiting for the other processes timed out after {seconds:.1f} s.")
            time.sleep(nap)
            nap = min(2 * nap, _LONGEST_NAP_SECONDS)

    def _deadline(self, begin: float) -> float:
        if distributed.world_size() == 1:
            return math.inf
        deadline = begin + self.timeout.total_seconds()
        if self._hurried_since is not None:
            deadline = min(deadline, max(begin, self._hurried_since) + SECONDS_LEFT_BY_A_SIGNAL)
        return deadline


class Fence:
    """Between host and device. On a CPU, where the host computes, it does nothing.

    patience: how long a wait may take.
    """

    def __init__(self, device: torch.device, patience: Patience) -> None:
        self._device = device
        self._patience = patience
        self._unfinished: collections.deque[torch.cuda.Event] = collections.deque()

    def launched(self) -> None:
        """An iteration was launched; returns when at most two are unfinished. Raises WaitTimeoutError."""
        if self._device.type == "cuda":
            self._unfinished.append(self._record())
            while len(self._unfinished) > _ITERATIONS_AHEAD:
                self._patience.wait_until(self._unfinished.popleft().query)

    def synchronize(self) -> None:
        """Wait for all that was launched, so that the host may read. Raises WaitTimeoutError."""
        if self._device.type == "cuda":
            self._unfinished.clear()
            self._patience.wait_until(self._record().query)

    def _record(self) -> torch.cuda.Event:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event
