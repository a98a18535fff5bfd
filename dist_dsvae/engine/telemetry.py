"""Telemetry: what a run says about itself, on rank 0.

    metrics.jsonl   one line per log tick: samples_seen, step, epoch, every loss, images per second
    tensorboard/    the same curves, and the sample grids
    terminal        a live progress bar, or plain lines where the output is not a terminal

Losses are summed on the device and read once per tick, so steps never wait for the host.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from dist_dsvae import distributed
from dist_dsvae.data.manifest import write_atomically
from dist_dsvae.methods.step import Step


class LossMeter:
    """Sums of loss terms on the device, by step; means over steps and ranks when read.

    ``state`` travels with checkpoints, so that the tick after a resume averages all its steps.
    settle: waits for the device before the host reads (``Fence.settle``).
    """

    def __init__(
        self, steps: Sequence[Step], device: torch.device, settle: Callable[[], None] = lambda: None
    ) -> None:
        self._settle = settle
        self._terms = {step.name: step.terms for step in steps}
        self.sums = {
            step.name: torch.zeros(len(step.terms), dtype=torch.float64, device=device) for step in steps
        }
        self._repeats = {step.name: step.repeats for step in steps}
        self.num_iterations = 0

    def add(self, step: str, terms: Mapping[str, Tensor]) -> None:
        """Add one step's terms, on the device alone; whoever runs iterations counts them."""
        self.sums[step] += torch.stack([terms[name] for name in self._terms[step]]).double()

    def read(self) -> dict[str, float]:
        """Means since the last reading, by term name. Called by all ranks; a host sync."""
        means: dict[str, float] = {}
        state = self.state()
        self._settle()
        for step, sums in state.items():
            count = max(self.num_iterations, 1) * self._repeats[step]
            means |= dict(zip(self._terms[step], (sums / count).tolist(), strict=True))
            sums.zero_()
        self.num_iterations = 0
        return means

    def state(self) -> dict[str, Tensor]:
        """The live sums, averaged over ranks first, so that any rank's copy stands for all."""
        for sums in self.sums.values():
            distributed.all_reduce_sum(sums).div_(distributed.world_size())
        return self.sums


class Telemetry:
    """Files and terminal of one run. On other ranks than 0 every method does nothing.

    samples_seen: where the run (re)starts; later lines of an interrupted run are dropped, because
        its steps are about to be repeated.
    """

    def __init__(self, run_dir: Path, *, total_steps: int, samples_seen: int, step: int, tensorboard: bool):
        self.active = distributed.is_main()
        self._last_tick = (time.perf_counter(), samples_seen, step)
        if not self.active:
            return
        self.console = Console(highlight=False)
        self._metrics_path = run_dir / "metrics.jsonl"
        _drop_lines_after(self._metrics_path, samples_seen)
        self._metrics = self._metrics_path.open("a", encoding="utf-8", buffering=1)
        self._board = (
            SummaryWriter(str(run_dir / "tensorboard"), purge_step=samples_seen + 1) if tensorboard else None
        )
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

    def advance(self, step: int) -> None:
        if self.active:
            self._bar.update(self._task, completed=step)

    def log(self, samples_seen: int, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """Write one tick's values."""
        if not self.active:
            return
        last_time, last_samples, last_step = self._last_tick
        self._last_tick = (time.perf_counter(), samples_seen, step)
        seconds = self._last_tick[0] - last_time
        rate = (samples_seen - last_samples) / seconds
        record = {"samples_seen": samples_seen, "step": step, "epoch": round(epoch, 4)}
        record |= values
        record["images_per_second"] = round(rate, 1)
        self._metrics.write(json.dumps(record) + "\n")
        if self._board is not None:
            for name, value in [*values.items(), ("images_per_second", rate)]:
                self._board.add_scalar(name, value, samples_seen)
        speed = f"{rate:,.0f} images/s"
        losses = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
        self._bar.losses = losses
        self._bar.update(self._task, completed=step, rate=speed)
        if self._bar.disable:
            left = (self._total_steps - step) * seconds / (step - last_step)
            self.say(f"step {step}/{self._total_steps}  {speed}  {losses}  ETA {_duration(left)}")

    def figures(self, samples_seen: int, values: Mapping[str, float]) -> None:
        """One evaluation's figures, for people and TensorBoard."""
        if not self.active:
            return
        self.say("evaluation  " + "  ".join(f"{name} {value:.4g}" for name, value in values.items()))
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"evaluation/{name}", value, samples_seen)

    def picture(self, name: str, path: Path, samples_seen: int) -> None:
        if self.active and self._board is not None:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
            self._board.add_image(name, pixels, samples_seen, dataformats="HWC")

    def close(self) -> None:
        if self.active:
            self._bar.stop()
            self._metrics.close()
            if self._board is not None:
                self._board.close()


class _ProgressWithLosses(Progress):
    """The bar with its numbers on one line, the losses on the lines below, whatever the width."""

    losses = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        yield Text(self.losses, style="dim")


def _drop_lines_after(path: Path, samples_seen: int) -> None:
    """Keep the lines of ticks up to ``samples_seen``; a last line cut off by a kill goes too."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError:
            continue
        if record["samples_seen"] <= samples_seen:
            kept.append(line + "\n")
    write_atomically(path, "".join(kept).encode())


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
