"""Watchdog: when a collective fails or times out, says which rank is missing and what it was doing.

Every rank keeps a line about itself in the job's key-value store, renewed by a thread: a count of beats, the
iteration and what it is doing. A rank whose beats stand still while another rank's clock runs is dead or
stopped; one whose beats go on but which is not computing is what the others wait for. Lines hold no time, for
the clocks of hosts differ.
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
from dist_dsvae.data.workers import worker_died

SECONDS_BETWEEN_LINES = 0.5
OLD_AFTER_SECONDS = 2.5
_COMPUTING = "computing"
# How torch, gloo and NCCL say that a peer is gone or silent; they have no common exception type.
_SIGNS = ("connection closed", "connection reset", "timed out", "timeout", "broken pipe", "nccl", "gloo")


class MissingRankError(RuntimeError):
    """A collective failed because some rank did not take part; the message names it."""


class _Line(NamedTuple):
    beats: int
    iteration: int
    activity: str
    where: str


class Watchdog:
    """This rank's line, and everyone's when something went wrong. Does nothing in a single process."""

    def __init__(self) -> None:
        self._store: Any = None
        self._beats, self._iteration, self._activity = 0, 0, "starting"
        self._rank = distributed.rank()
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
        while not self._stop.wait(SECONDS_BETWEEN_LINES):
            try:
                self._write()
            except RuntimeError:  # the store is gone, and the job with it
                return

    def _write(self) -> None:
        self._beats += 1
        line = f"{self._beats}|{self._iteration}|{self._activity}|{self._where}"
        self._store.set(f"watchdog/{self._rank}", line)

    def explain(self, error: RuntimeError) -> Exception:
        """``error``; a MissingRankError in its place if a collective failed, a DataError if a worker died."""
        if (death := worker_died(error, distributed.rank())) is not None:
            return death
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
        # The store waits without end for a host behind a broken connection: ask it in a thread.
        answer: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(
            target=lambda: answer.put(self._compare()), name="watchdog-reader", daemon=True
        ).start()
        try:
            return answer.get(timeout=2 * OLD_AFTER_SECONDS + SECONDS_BETWEEN_LINES)
        except queue.Empty:
            return "the host that kept the list of ranks (rank 0's, as a rule) cannot be reached"

    def _compare(self) -> str:
        """The ranks whose beats stand still, or which are not where this rank is."""
        others = [rank for rank in range(distributed.world_size()) if rank != self._rank]
        try:
            before = {rank: self._read(rank) for rank in others}
            time.sleep(OLD_AFTER_SECONDS)
            now = {rank: self._read(rank) for rank in others}
        except RuntimeError:
            return "rank 0, which kept the list of ranks, is gone"
        found = []
        for rank, line in now.items():
            if line is None:
                found.append(f"rank {rank} never started training")
            elif line == before[rank]:
                # all began to beat together, as the job did
                silent = max(OLD_AFTER_SECONDS, (self._beats - line.beats) * SECONDS_BETWEEN_LINES)
                found.append(
                    f"rank {rank} ({line.where}) was last heard of {silent:.0f} s ago, {_doing(line)}"
                )
            elif line.activity != _COMPUTING or line.iteration < self._iteration:
                found.append(f"rank {rank} ({line.where}) is {_doing(line)}")
        return "; ".join(found) or "all ranks are alive, so the network between them failed"

    def _read(self, rank: int) -> _Line | None:
        key = f"watchdog/{rank}"
        if not self._store.check([key]):
            return None
        beats, iteration, activity, where = self._store.get(key).decode().split("|", 3)
        return _Line(int(beats), int(iteration), activity, where)


@contextmanager
def explained() -> Iterator[None]:
    """What a collective raises in the block, before training has a watchdog, as a MissingRankError."""
    watchdog = Watchdog()
    try:
        yield
    except RuntimeError as error:
        raise watchdog.explain(error) from error
    finally:
        watchdog.close()


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
