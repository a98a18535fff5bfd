"""Watchdog: when a collective fails or times out, says which rank is missing and what it was doing.

Every rank keeps a line about itself in the job's key-value store, renewed by a thread: the iteration
and what it is doing. A rank whose line is old is dead or stopped; one whose line is fresh but which is
not computing is what the others wait for.
"""

from __future__ import annotations

import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from dist_dsvae.core import distributed

_SECONDS_BETWEEN_LINES = 0.5
_OLD_AFTER_SECONDS = 2.5
_COMPUTING = "computing"
# How torch, gloo and NCCL say that a peer is gone or silent; they have no common exception type.
_SIGNS = ("connection closed", "connection reset", "timed out", "timeout", "broken pipe", "nccl", "gloo")


class MissingRankError(RuntimeError):
    """A collective failed because some rank did not take part; the message names it."""


class _Line(NamedTuple):
    written: float
    iteration: int
    activity: str
    where: str


class Watchdog:
    """This rank's line, and everyone's when something went wrong. Does nothing in a single process."""

    def __init__(self) -> None:
        self._store: Any = None
        self._iteration, self._activity = 0, "starting"
        self._stop = threading.Event()
        if distributed.world_size() > 1:
            # a private name of torch; where it is gone, errors name no ranks
            get_store = getattr(dist.distributed_c10d, "_get_default_store", lambda: None)
            self._store = get_store()
        self._where = f"process {os.getpid()} on {socket.gethostname()}"
        if self._store is not None:
            self._write()
            threading.Thread(target=self._renew, name="watchdog", daemon=True).start()

    def at(self, iteration: int) -> None:
        self._iteration = iteration
        self._activity = _COMPUTING

    @contextmanager
    def doing(self, activity: str) -> Iterator[None]:
        """What this rank does beside computing, such as "waiting for data"."""
        before, self._activity = self._activity, activity
        yield
        self._activity = before  # after an exception it stays: that is where it happened

    def close(self) -> None:
        self._stop.set()

    def _renew(self) -> None:
        while not self._stop.wait(_SECONDS_BETWEEN_LINES):
            try:
                self._write()
            except RuntimeError:  # the store is gone, and the job with it
                return

    def _write(self) -> None:
        line = f"{time.time()}|{self._iteration}|{self._activity}|{self._where}"
        self._store.set(f"watchdog/{distributed.rank()}", line)

    def explain(self, error: RuntimeError) -> RuntimeError:
        """``error``, or a MissingRankError in its place if a collective failed."""
        text = str(error).lower()
        if distributed.world_size() == 1 or not any(sign in text for sign in _SIGNS):
            return error
        first_line = str(error).strip().partition("\n")[0][:200]
        return MissingRankError(
            f"Rank {distributed.rank()} waited in vain for the others in iteration {self._iteration}: "
            f"{self._missing()}. ({first_line}) The last complete checkpoint is intact: the same command "
            "goes on from it, on any number of processes."
        )

    def _missing(self) -> str:
        """Who is not where this rank is."""
        if self._store is None:
            return "one of them is missing"
        time.sleep(_OLD_AFTER_SECONDS + _SECONDS_BETWEEN_LINES)  # until a dead one's line is old
        # The store waits without end for a host behind a broken connection: ask it in a thread.
        answer: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(
            target=lambda: answer.put(self._compare()), name="watchdog-reader", daemon=True
        ).start()
        try:
            return answer.get(timeout=_OLD_AFTER_SECONDS)
        except queue.Empty:
            return "the host that kept the list of ranks (rank 0's, as a rule) cannot be reached"

    def _compare(self) -> str:
        """The ranks whose lines are old, or which are not where this rank is."""
        found = []
        for other in range(distributed.world_size()):
            if other == distributed.rank():
                continue
            try:
                line = self._read(other)
            except RuntimeError:
                return "rank 0, which kept the list of ranks, is gone"
            if line is None:
                found.append(f"rank {other} never started training")
            elif (age := time.time() - line.written) > _OLD_AFTER_SECONDS:
                found.append(f"rank {other} ({line.where}) was last heard of {age:.0f} s ago, {_doing(line)}")
            elif line.activity != _COMPUTING or line.iteration < self._iteration:
                found.append(f"rank {other} ({line.where}) is {_doing(line)}")
        return "; ".join(found) or "all ranks are alive, so the network between them failed"

    def _read(self, rank: int) -> _Line | None:
        key = f"watchdog/{rank}"
        if not self._store.check([key]):
            return None
        written, iteration, activity, where = self._store.get(key).decode().split("|", 3)
        return _Line(float(written), int(iteration), activity, where)


def leave_what_hangs() -> None:
    """After a MissingRankError: end this process at once if its GPU may still be inside a collective.

    That never ends, and tearing down what belongs to it could wait as long. On a CPU: return.
    """
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def _doing(line: _Line) -> str:
    return f"{line.activity} in iteration {line.iteration}"
