"""A trace of some iterations of a real run, by torch's profiler, on rank 0.

    <run>/profile/iterations-<first>-<last>.json.gz   for ui.perfetto.dev or chrome://tracing
    <run>/profile/iterations-<first>-<last>.txt       the operators that took longest, as a table

The iteration before the first one warms the profiler up. Losses and weights are what they are without it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from dist_dsvae.config.training import profiled_iterations
from dist_dsvae.core import distributed
from dist_dsvae.core.files import write_atomically
from dist_dsvae.engine.reporting.outputs import Tolerant

_ROWS = 40


class Profiling:
    """Records iterations of "START:STOP" (``config.training``); with None, and on other ranks, nothing.

    A run that is resumed among them records those that are left.

    synchronize: waits for the device with a deadline (``Fence.synchronize``); the profiler has none.
    say: is told what was written.
    """

    def __init__(
        self,
        setting: str | None,
        run_dir: Path,
        device: torch.device,
        synchronize: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self._asked = setting if distributed.is_main() else None
        self._left = profiled_iterations(self._asked) if self._asked else range(0)
        self._directory, self._synchronize, self._say = run_dir / "profile", synchronize, say
        self._is_cuda = device.type == "cuda"
        self._profile: profile | None = None
        self._latest: int | None = None  # of the iterations that this process began

    def before(self, iteration: int) -> None:
        """Iteration ``iteration`` comes next."""
        if self._profile is not None:
            if iteration == self._left.stop:
                self.stop()
            else:
                self._profile.step()
        elif self._latest is not None and self._left.start <= iteration + 1 < self._left.stop:
            self._left = range(iteration + 1, self._left.stop)
            self._start()
        self._latest = iteration  # the first one may be captured as a graph, which is nothing to record

    def stop(self) -> None:
        """End what is being recorded, and write it."""
        if self._profile is None:
            if self._asked and not any(self._directory.glob("iterations-*")):
                self._say(f"train.profile is {self._asked}, but no such iteration was made in this start.")
            return
        self._synchronize()
        self._profile.stop()
        self._profile = self._asked = None

    def _start(self) -> None:
        if not self._is_cuda:  # or the profiler's library calls the missing GPU an error
            os.environ.setdefault("KINETO_LOG_LEVEL", "5")
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._is_cuda else [])]
        self._profile = profile(
            activities=activities,
            schedule=schedule(wait=0, warmup=1, active=len(self._left) + 1, repeat=1),
            on_trace_ready=self._write,
        )
        self._profile.start()

    def _write(self, recorded: profile) -> None:
        assert self._latest is not None
        first, last = self._left.start, self._latest
        name = f"iterations-{first}-{last}"
        trace, table = self._directory / f"{name}.json.gz", self._directory / f"{name}.txt"

        def write() -> None:
            self._directory.mkdir(exist_ok=True)
            partial = trace.with_name(f".{trace.name}")
            recorded.export_chrome_trace(str(partial))
            partial.replace(trace)
            order = "self_device_time_total" if self._is_cuda else "self_cpu_time_total"
            text = recorded.key_averages().table(sort_by=order, row_limit=_ROWS)
            write_atomically(table, text.encode())
            self._say(f"Profile of iterations {first} to {last}: {trace}, {table}.")

        Tolerant(str(self._directory))(write)
