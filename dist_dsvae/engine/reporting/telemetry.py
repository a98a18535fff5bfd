"""Telemetry: what a run says about itself, on rank 0.

    metrics.jsonl   one line per log tick: samples_seen, step, epoch, every loss, images per second
    trackers        the same curves and more of them, and the sample grids (``trackers``)
    terminal        a live progress bar, or plain lines where the output is not a terminal; lines also by
                    the clock (``clock``), which metrics.jsonl and trackers do not get: they hold the means
                    between ticks, whatever the speed

Losses are summed on the device and read once per tick or line, so steps never wait for the host.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text
from torch import Tensor

from dist_dsvae.core import distributed
from dist_dsvae.core.text import duration
from dist_dsvae.engine.reporting.outputs import MetricsFile
from dist_dsvae.engine.reporting.steady_output import standard_output
from dist_dsvae.engine.reporting.trackers import Trackers
from dist_dsvae.methods.update import Update

_SECONDS_BETWEEN_LINES = {True: 10.0, False: 30.0}  # at most, on a terminal and elsewhere


class LossMeter:
    """Sums of loss terms on the device, by update; means over updates and ranks when read.

    Sums travel with checkpoints, so that the tick after a resume averages all its updates. Only ``read``
    changes them: a checkpoint or a line leaves no trace in the means, not even by rounding.
    synchronize: waits for the device before the host reads (``Fence.synchronize``).
    """

    def __init__(
        self, updates: Sequence[Update], device: torch.device, synchronize: Callable[[], None] = lambda: None
    ) -> None:
        self._synchronize = synchronize
        self._updates = {update.name: update for update in updates}
        self.sums = {
            update.name: torch.zeros(len(update.terms), dtype=torch.float64, device=device)
            for update in updates
        }
        self.num_iterations = 0

    def add(self, update: str, values: Tensor) -> None:
        """Add one update's terms, in its order, on the device alone; whoever runs iterations counts them."""
        self.sums[update] += values

    def means(self) -> dict[str, float]:
        """Means since the last reading, by term name. Called by all ranks; a host sync."""
        means: dict[str, float] = {}
        state = self.state()
        self._synchronize()
        for name, sums in state.items():
            update = self._updates[name]
            count = max(self.num_iterations, 1) * update.repeats
            means |= dict(zip(update.terms, (sums / count).tolist(), strict=True))
        return means

    def read(self) -> dict[str, float]:
        """``means``, and begin anew."""
        means = self.means()
        for sums in self.sums.values():
            sums.zero_()
        self.num_iterations = 0
        return means

    def state(self) -> dict[str, Tensor]:
        """Copies of the sums, averaged over ranks, so that any rank's stand for all. Called by all ranks."""
        return {
            update: distributed.all_reduce_sum(sums.clone()).div_(distributed.world_size())
            for update, sums in self.sums.items()
        }

    def own_sums(self) -> dict[str, list[float]]:
        """This rank's sums, which as many ranks can go on from exactly. A host sync."""
        return {update: sums.tolist() for update, sums in self.sums.items()}

    def restore(self, state: Mapping[str, Tensor], own_sums: Mapping[str, list[float]] | None) -> None:
        """Go on from ``own_sums``, or from ``state`` where they are those of another number of ranks."""
        for step, sums in self.sums.items():
            sums.copy_(state[step] if own_sums is None else torch.tensor(own_sums[step], dtype=sums.dtype))


class Telemetry:
    """Files and terminal of one run. On other ranks than 0 every method does nothing.

    samples_seen: where the run (re)starts; later lines of an interrupted run are dropped, because
        its steps are about to be repeated.
    trackers: who else is told, on rank 0; closed with it.
    """

    def __init__(
        self, run_dir: Path, *, total_steps: int, samples_seen: int, step: int, trackers: Trackers | None
    ) -> None:
        self.active = distributed.is_main()
        self.seconds_between_lines = _SECONDS_BETWEEN_LINES[False]
        self._last_tick = self._last_line = (time.perf_counter(), samples_seen, step)
        if not self.active:
            return
        self.console = Console(file=standard_output(), highlight=False)
        self.seconds_between_lines = _SECONDS_BETWEEN_LINES[self.console.is_terminal]
        self._metrics = MetricsFile(run_dir / "metrics.jsonl", samples_seen)
        self._trackers, self._last_shown = trackers, -1
        self._total_steps = total_steps
        self._bar = _ProgressWithLosses(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[rate]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task("train", total=total_steps, completed=step, rate="")
        self._bar.start()

    def say(self, message: str) -> None:
        """One line for people."""
        if self.active:
            self._bar.console.print(message, markup=False, soft_wrap=True)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What is done inside counts neither for the images per second nor for the time to go."""
        begin = time.perf_counter()
        yield
        gone = time.perf_counter() - begin
        self._last_tick, self._last_line = (
            (then + gone, samples_seen, step)
            for then, samples_seen, step in (self._last_tick, self._last_line)
        )

    def advance(self, step: int) -> None:
        if self.active:
            self._bar.update(self._task, completed=step)

    def log(
        self,
        samples_seen: int,
        step: int,
        epoch: float,
        values: Mapping[str, float],
        more: Mapping[str, float] | None = None,
    ) -> None:
        """Write one tick's values. more: for trackers alone."""
        if not self.active:
            return
        last_time, last_samples, _ = self._last_tick
        self._last_tick = (time.perf_counter(), samples_seen, step)
        rate = (samples_seen - last_samples) / (self._last_tick[0] - last_time)
        record = {"samples_seen": samples_seen, "step": step, "epoch": round(epoch, 4)}
        record |= values
        record["images_per_second"] = round(rate, 1)
        self._metrics.append(record)
        self._track({**values, "images_per_second": rate, **(more or {})}, samples_seen)
        self.line(samples_seen, step, values)

    def line(self, samples_seen: int, step: int, values: Mapping[str, float]) -> None:
        """Show people how far the run is, and the mean losses since the last tick; once for one step."""
        if not self.active or step == self._last_line[2]:
            return
        last_time, last_samples, last_step = self._last_line
        self._last_line = (time.perf_counter(), samples_seen, step)
        seconds = self._last_line[0] - last_time
        speed = f"{(samples_seen - last_samples) / seconds:,.0f} images/s"
        losses = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
        self._bar.losses = losses
        self._bar.update(self._task, completed=step, rate=speed)
        if self._bar.disable:
            left = (self._total_steps - step) * seconds / (step - last_step)
            self.say(f"step {step}/{self._total_steps}  {speed}  {losses}  ETA {duration(left)}")

    def figures(self, samples_seen: int, values: Mapping[str, float]) -> None:
        """One evaluation's figures, for people and trackers."""
        if not self.active or not values:
            return
        self.say("evaluation  " + "  ".join(f"{name} {value:.4g}" for name, value in values.items()))
        self._track({f"evaluation/{name}": value for name, value in values.items()}, samples_seen)

    def _track(self, values: Mapping[str, float], samples_seen: int) -> None:
        if self._trackers is not None:
            self._trackers.log(values, samples_seen)

    def images(self, paths: Iterable[Path], samples_seen: int) -> None:
        """What ``Visuals`` drew, for trackers."""
        if not self.active or self._trackers is None or samples_seen == self._last_shown:
            return
        self._last_shown = samples_seen
        for path in paths:
            self._trackers.show("swap" if path.stem.endswith("-swap") else "samples", path, samples_seen)

    def close(self) -> None:
        if self.active:
            self._bar.stop()
            if self._trackers is not None:
                self._trackers.close()


class _ProgressWithLosses(Progress):
    """The bar with its numbers on one line, the losses on the lines below, whatever the width."""

    losses = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        yield Text(self.losses, style="dim")
