"""Preemption: a request to stop, agreed by all ranks at a step boundary, so that nothing is lost.

    SIGTERM, SIGINT, SIGHUP to any rank +
                                        +--> flag --all-reduce, one iteration behind--> all ranks stop
    <run>/stop-request, seen by rank 0 -+                                              after the same one
    its launcher is gone, seen by any --+

The flags travel over a gloo group of their own while the next iteration runs (of very many ranks, while
the next few run), so agreeing never waits for the GPU, and for a rank that is gone no longer than
``Patience`` allows; beside them travels what is due by rank 0's clock (``clock``). The file is for
those who cannot signal the processes themselves: a batch script's trap (a shell between the scheduler
and the launcher swallows signals), or a person. Ranks whose launcher was killed would train on with
nobody to stop them, hold their GPUs and keep the run directory from the job's next start.

A run that stopped early leaves <run>/stopped-early.json; it is gone once the run goes on.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import psutil
import torch
import torch.distributed as dist

from dist_dsvae.core import distributed
from dist_dsvae.core.process import stop_signals
from dist_dsvae.engine.processes.fence import Patience
from dist_dsvae.engine.stopping.clock import Clock, Due

logger = logging.getLogger(__name__)

REQUEST_FILE = "stop-request"
RECORD_FILE = "stopped-early.json"

# EX_TEMPFAIL: "try again later"; what a batch script takes as the word to queue the job again
TRY_AGAIN_LATER = 75
_REASONS = {
    int(signal.SIGTERM): "SIGTERM",
    int(signal.SIGINT): "Ctrl-C",
    int(signal.SIGHUP): "the end of its terminal",
    -1: REQUEST_FILE,
    -2: "the end of its launcher",
}
_SECONDS_BETWEEN_LOOKS = 1.0
_RANKS_PER_CALL = 16  # gloo's ring takes as long as it has ranks: more than these tell each other less often


class Preempted(BaseException):  # not an Exception: nobody's recovery may swallow it
    """The run was asked to stop, and has left a checkpoint to go on from. Its text: what asked, if known."""

    @property
    def exit_code(self) -> int:
        """75, or 0 under torchrun: it takes any other code for a crash, and may start everything anew."""
        return 0 if "TORCHELASTIC_RUN_ID" in os.environ else TRY_AGAIN_LATER


def forget_the_start_before(run_dir: Path) -> None:
    """Remove what asked it to stop, and its word of it. Called first: what comes later is for this start."""
    if distributed.is_main():
        for name in (REQUEST_FILE, RECORD_FILE):
            (run_dir / name).unlink(missing_ok=True)


def _launcher() -> int | None:
    """The process of torchrun or ``accelerate launch`` that started this one, which ends with it; or None.

    For one process accelerate waits and passes no signal on: asked to end, it ends alone.
    """
    parent = os.getppid()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return parent
    try:
        words = psutil.Process(parent).cmdline()
    except psutil.Error:
        return None
    return parent if any("accelerate" in Path(word).name for word in words[:3]) else None


class StopRequests:
    """Watches for requests to stop one run. Made by all ranks; ``agreed`` is called by all.

    patience: how long an agreement waits; a signal shortens it.
    """

    def __init__(self, run_dir: Path, patience: Patience) -> None:
        self._run_dir = run_dir
        self._patience = patience
        self._group = distributed.new_cpu_group(patience.timeout)
        self._seen = 0  # this rank's reason, a key of _REASONS
        self._launcher = _launcher()
        self._under_way: tuple[dist.Work, torch.Tensor] | None = None
        self._calls = 0
        self._calls_between = -(-distributed.world_size() // _RANKS_PER_CALL)
        self._untold = Due(0)  # what the clock asked for since the last exchange
        self._last_look = 0.0
        self._due = Due(0)  # what the clock asked for, until it is told
        self._at_the_end: tuple[int, int] | None = None  # step and samples seen, all of it on disk
        self._handlers: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (*stop_signals(), signal.SIGINT):
                self._handlers[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._at_the_end:
            self._leave(_REASONS[number])
        if number == signal.SIGINT and self._seen == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice: at once, without a checkpoint
        self._seen = number
        self._patience.hurry()

    def agreed(self, clock: Clock | None = None) -> str | None:
        """What asked to stop, the same on all ranks; None to go on. Once per iteration, by all ranks.

        clock: gets what rank 0's clock has asked for, the same on all ranks.
        Raises WaitTimeoutError if another rank does not answer, and RuntimeError if one is gone.
        """
        asked = Due(0)
        if self._launcher not in (None, os.getppid()) and not self._seen:
            self._seen = -2
        if distributed.is_main():
            asked = clock.asks() if clock is not None else asked
            self._look_for_the_file()
        heard = self._exchange(self._seen, asked)
        self._due |= Due(heard[0][1])  # it may be heard by a call without a clock
        if clock is not None:
            clock.due, self._due = self._due, Due(0)
        return next((_REASONS[reason] for reason, _ in heard if reason), None)

    def raise_if_asked(self) -> None:
        """As ``agreed``, between pieces of something long. Raises Preempted on all ranks to stop it."""
        if reason := self.agreed():
            raise Preempted(reason)

    def _look_for_the_file(self) -> None:
        now = time.monotonic()
        if not self._seen and now - self._last_look > _SECONDS_BETWEEN_LOOKS:
            self._last_look = now
            with suppress(OSError):  # a file system that stumbles is asked again
                # a signal may have come while a slow one answered
                if (self._run_dir / REQUEST_FILE).exists() and not self._seen:
                    self._seen = -1

    def _exchange(self, seen: int, asked: int) -> list[list[int]]:
        """Start telling the others both numbers; every rank's [seen, asked] of the exchange before."""
        if self._group is None:
            return [[seen, asked]]
        self._untold |= Due(asked)
        self._calls += 1
        if self._calls % self._calls_between:
            return [[0, 0]]
        asked, self._untold = self._untold, Due(0)
        numbers = torch.zeros(distributed.world_size(), 2, dtype=torch.int64)
        numbers[distributed.rank()] = torch.tensor([seen, asked])
        work = dist.all_reduce(numbers, group=self._group, async_op=True)
        assert work is not None
        before, self._under_way = self._under_way, (work, numbers)
        if before is None:
            return [[0, 0]]
        work, numbers = before
        self._patience.wait_until(work.is_completed)
        work.wait()  # raises what went wrong
        heard: list[list[int]] = numbers.tolist()
        return heard

    def leave_at_once(self, step: int, samples_seen: int) -> None:
        """From now on a signal ends the process by Preempted: all that was trained is on disk."""
        self._at_the_end = step, samples_seen
        if self._seen > 0:
            self._leave(_REASONS[self._seen])

    def _leave(self, reason: str) -> NoReturn:
        """With word of it, so that a batch script queues the job again for its last figures."""
        assert self._at_the_end is not None
        if distributed.is_main():
            with suppress(OSError):  # a full disk
                self.record(reason, *self._at_the_end)
        raise Preempted(reason)

    def record(self, reason: str, step: int, samples_seen: int) -> None:
        """Leave word that the run stopped early. Rank 0 only."""
        entry = {"reason": reason, "step": step, "samples_seen": samples_seen}
        (self._run_dir / RECORD_FILE).write_text(json.dumps(entry) + "\n", encoding="utf-8")
        (self._run_dir / REQUEST_FILE).unlink(missing_ok=True)

    def close(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
