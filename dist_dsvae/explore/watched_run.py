"""A run while it trains, from its files alone: the newest sample grids, and the curves of metrics.jsonl.

The trainer writes on meanwhile, so the last line may be half there, and a resumed run may have cut some.
"""

from __future__ import annotations

import io
import math
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from dist_dsvae.core.text import duration, parse_json
from dist_dsvae.runs.checkpoint_folder import complete_checkpoints, step_of
from dist_dsvae.runs.run import Run

_NOT_CURVES = ("samples_seen", "step", "epoch")
_MAX_POINTS = 1000
_NUM_COLUMNS = 2


class Metrics(NamedTuple):
    """curves: of each figure, (samples seen, values). last: the newest line.

    num_unreadable: lines left out.
    """

    curves: dict[str, tuple[list[float], list[float]]]
    last: dict[str, float]
    num_unreadable: int


class Snapshot(NamedTuple):
    """What there is to see of a run: a sentence, its curves, its grids."""

    status: str
    curves: Image.Image | None
    samples: Image.Image | None
    swaps: Image.Image | None


def state_of(run: Path) -> tuple[object, ...]:
    """Changes when there is something new to see."""
    metrics = run / "metrics.jsonl"
    try:
        stat = metrics.stat()
        written: tuple[int, int] = (stat.st_size, stat.st_mtime_ns)
    except FileNotFoundError:
        written = (0, 0)
    grids = (newest_grid(run, swap=False), newest_grid(run, swap=True))
    return (*written, *grids, newest_step(run))


def total_samples_of(run: Path) -> float | None:
    """Samples seen at the run's end, by its own record; None where that does not say how many there are.

    Raises CheckpointError if ``run`` is no run directory.
    """
    opened = Run.open(run)
    return None if opened.num_samples is None else opened.config.train.epochs * opened.num_samples


@lru_cache(maxsize=2)
def snapshot(run: Path, state: tuple[object, ...], total: float | None) -> Snapshot:
    """What there is to see at ``state_of(run)``; drawn once for all who look."""
    metrics = read_metrics(run / "metrics.jsonl")
    grids = [newest_grid(run, swap=swap) for swap in (False, True)]
    samples, swaps = [None if path is None else _opened(path) for path in grids]
    return Snapshot(status_of(metrics, total, newest_step(run)), draw_curves(metrics), samples, swaps)


def newest_step(run: Path) -> int:
    """Of the newest checkpoint; 0 where there is none."""
    return max(map(step_of, complete_checkpoints(run / "checkpoints")), default=0)


def newest_grid(run: Path, *, swap: bool) -> Path | None:
    """The grid of samples, or of swaps, of the largest step. Names have equally many digits."""
    grids = [path for path in (run / "samples").glob("step-*.png") if path.stem.endswith("-swap") == swap]
    return max(grids, default=None)


def read_metrics(path: Path) -> Metrics:
    """Every line but those that cannot be read. No file: no curves yet."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    last: dict[str, float] = {}
    num_unreadable = 0
    try:
        text = path.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return Metrics(curves, last, 0)
    complete, _, _ = text.rpartition("\n")  # what follows the last end of line is still being written
    for line in filter(str.strip, complete.split("\n")):
        try:
            last = {key: float(value) for key, value in parse_json(line).items() if _is_number(value)}
            seen = last["samples_seen"]
        except (ValueError, KeyError, AttributeError):
            num_unreadable += 1
            continue
        for key, value in last.items():
            if key not in _NOT_CURVES:
                places, values = curves.setdefault(key, ([], []))
                places.append(seen)
                values.append(value)
    return Metrics(curves, last, num_unreadable)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def draw_curves(metrics: Metrics) -> Image.Image | None:
    """A small panel for every figure over samples seen; None if there are none."""
    from matplotlib.figure import Figure  # takes a second, and a published model has no curves
    from matplotlib.ticker import EngFormatter

    if not metrics.curves:
        return None
    num_rows = -(-len(metrics.curves) // _NUM_COLUMNS)
    figure = Figure(figsize=(5.0, 1.5 * num_rows), layout="constrained")
    axes = figure.subplots(num_rows, _NUM_COLUMNS, squeeze=False).flatten()
    for ax, (name, (places, values)) in zip(axes, metrics.curves.items(), strict=False):
        stride = -(-len(values) // _MAX_POINTS)
        ax.plot(places[::stride], values[::stride], linewidth=1.2)
        ax.set_title(name.replace("_", " "), fontsize=10)
        ax.tick_params(labelsize=8)
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.grid(alpha=0.3)
    for ax in axes[len(metrics.curves) :]:
        ax.set_axis_off()
    figure.supxlabel("samples seen", fontsize=9)
    stream = io.BytesIO()
    figure.savefig(stream, dpi=170, format="png")
    return Image.open(stream)


def status_of(metrics: Metrics, total: float | None, saved_step: int) -> str:
    """How far the run is, how fast, and how long it takes yet, by the newest line.

    total: samples seen at its end. saved_step: of its newest checkpoint, which may lie beyond that line.
    """
    if not metrics.last:
        return "Nothing has been logged yet."
    last = metrics.last
    seen = last["samples_seen"]
    parts = []
    step = last.get("step", 0.0)
    last_step = (
        math.ceil(total * step / seen) if total and seen else 0
    )  # an iteration has equally many samples
    if step:
        parts.append(f"Iteration {step:,.0f}{f' of {last_step:,}' if last_step else ''}")
    parts.append(f"{seen:,.0f}{f' of {total:,.0f}' if total else ''} samples seen")
    if "epoch" in last:
        parts.append(f"epoch {last['epoch']:,.1f}")
    speed = last.get("images_per_second", 0.0)
    if speed > 0:
        parts.append(f"{speed:,.0f} images per second")
    sentences = [", ".join(parts) + "."]
    if last_step and saved_step >= last_step:
        sentences.append("It is done.")
    elif total and speed > 0:
        sentences.append(f"About {duration(max(0.0, total - seen) / speed)} to go at this speed.")
    if metrics.num_unreadable:
        sentences.append(f"{metrics.num_unreadable} unreadable lines of metrics.jsonl are left out.")
    return " ".join(sentences)


def _opened(path: Path) -> Image.Image | None:
    """None if it was removed, or cannot be read, since it was listed."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.convert("RGB")
    except OSError:
        return None
