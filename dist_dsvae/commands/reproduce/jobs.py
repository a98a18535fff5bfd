"""Commands of the project as processes, some at a time, each with a log of its own.

They are sessions of their own, so that a Ctrl-C reaches this process alone, which asks them to stop: a
training then saves and leaves. Should this process be killed, they go on; the lock of a run keeps a second
one away from it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dist_dsvae.commands.starting import say
from dist_dsvae.core.text import printable
from dist_dsvae.engine.stopping.preemption import TRY_AGAIN_LATER  # of a command that was told to stop

_SECONDS_BETWEEN_LOOKS = 0.2
_LAST_LINES = 3


class JobError(ValueError):
    """A command that failed. can_go_on: it was told to stop, and the same command goes on."""

    def __init__(self, sentence: str, *, can_go_on: bool) -> None:
        super().__init__(sentence)
        self.can_go_on = can_go_on


@dataclass(frozen=True)
class Job:
    """``dsvae`` with these arguments, whose output is appended to ``log``.

    still: asked when it is about to start, as another command may have done it meanwhile, or a part: the
        arguments of then, or None where nothing is left to do.
    """

    title: str
    arguments: tuple[str, ...]
    log: Path
    still: Callable[[], tuple[str, ...] | None] | None = None

    @property
    def command(self) -> str:
        """What one would type."""
        return shlex.join(["dsvae", *self.arguments])

    def as_of_now(self) -> Job | None:
        """With what is left to do; None where nothing is."""
        if self.still is None:
            return self
        arguments = self.still()
        return None if arguments is None else replace(self, arguments=arguments)


def run_jobs(jobs: Sequence[Job], slots: Sequence[Mapping[str, str]]) -> None:
    """Run all, one at a time in each of the slots.

    slots: variables of the environment that a slot adds, such as the GPU that it has.
    Raises JobError for the first that fails, and what ``Job.still`` raises, once those that run beside it
    have ended: no others are started.
    """
    waiting, free = deque(enumerate(jobs, 1)), list(slots)
    running: list[tuple[subprocess.Popen[bytes], Job, Mapping[str, str]]] = []
    failed: Exception | None = None
    try:
        while running or (waiting and failed is None):
            while waiting and free and failed is None:
                number, planned = waiting.popleft()
                try:
                    job = planned.as_of_now()
                except (ValueError, OSError) as error:  # it cannot be started
                    failed = error
                    continue
                if job is None:
                    say(f"[{number}/{len(jobs)}] {planned.title}: done meanwhile")
                    continue
                say(f"[{number}/{len(jobs)}] {job.title} ({job.log})")
                slot = free.pop(0)
                running.append((_start(job, slot), job, slot))
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            for process, job, slot in [each for each in running if each[0].poll() is not None]:
                running.remove((process, job, slot))
                free.append(slot)
                if process.returncode and failed is None:
                    failed = _explained(job, process.returncode)  # while its words are the log's last
    finally:
        for process, _, _ in running:
            process.terminate()
        for process, _, _ in running:
            process.wait()
    if failed is not None:
        raise failed


def _start(job: Job, slot: Mapping[str, str]) -> subprocess.Popen[bytes]:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "dist_dsvae.commands.main", *job.arguments]
    package = str(Path(__file__).resolve().parents[3])  # also where it is not installed
    paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    with job.log.open("ab") as log:
        log.write(f"$ {printable(job.command)}\n".encode())
        log.flush()
        environment = {**os.environ, **slot, "PYTHONPATH": paths}
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )


def _explained(job: Job, status: int) -> JobError:
    if status == TRY_AGAIN_LATER:
        return JobError(f"{job.title} was told to stop. The same command goes on.", can_go_on=True)
    lines = [line for line in job.log.read_text(encoding="utf-8", errors="replace").splitlines() if line]
    last = "\n    ".join(lines[-_LAST_LINES:])
    return JobError(
        f"{job.title} failed with status {status}. {job.log} ends with\n    {last}\n"
        "Mend that, then start the same command again: what is done stays.",
        can_go_on=False,
    )
