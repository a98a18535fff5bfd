"""An evaluation for people: a table of its figures beside those of real images, and progress bars."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from dist_dsvae.evaluation.metrics import description_of

_SECONDS_BETWEEN_LINES = 10.0


def table_of(result: Mapping[str, Any]) -> Table:
    """The figures of an evaluation (``engine.evaluating``), of a run or of stored images, and real ones'."""
    judges = result["judges"]
    is_run = "run" in result
    title = (
        f"{result['run']}, {result['checkpoint']}, {result['weights']} weights"
        if is_run
        else result["images"]
    )
    # what people call their runs and files is text, also where it looks like rich's markup
    table = Table(title=escape(title), caption=escape(_caption(result, judges)), caption_justify="left")
    table.add_column("figure")
    table.add_column(escape(result["method"]) if is_run else "images", justify="right")
    table.add_column("real", justify="right")
    for name, value in result["figures"].items():
        real = result["real"].get(name)
        table.add_row(escape(description_of(name) or name), shown(value), "" if real is None else shown(real))
    return table


def _caption(result: Mapping[str, Any], judges: Mapping[str, Any] | None) -> str:
    settings = result["settings"]
    lines = [f"{settings['samples']:,} samples, {settings['real_samples']:,} real, seed {settings['seed']}"]
    has_classifier = judges is not None and "classifier" in judges
    if not has_classifier and "radius" not in settings and "accuracy" not in result["figures"]:
        lines.append("no classifier: set evaluation.classifier, or give --classifier, for the images' scores")
    for role, judge in (judges or {}).items():
        lines.append(f"{role.replace('_', ' ')}: {judge['name']}, sha256 {judge['sha256'][:12]}")
    return "\n".join(lines)


def shown(value: float) -> str:
    """A figure with four digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


class Bars:
    """A progress bar per part of an evaluation, or lines where the console is no terminal.

    A part has a line when it begins, and then one every 10 seconds. Nothing is shown where not enabled.
    """

    def __init__(self, console: Console, *, enabled: bool) -> None:
        self._lines = console if enabled and not console.is_terminal else None
        self._last_line_seconds = 0.0
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not (enabled and console.is_terminal),
            transient=True,
        )
        self._tasks: dict[str, Any] = {}

    def update(self, part: str, done: int, total: int) -> None:
        """``done`` of ``total`` pieces of a part are done."""
        begins = part not in self._tasks
        if begins:
            self._tasks[part] = self._bars.add_task(part, total=total)
        self._bars.update(self._tasks[part], completed=done)
        now = time.monotonic()
        if self._lines is not None and (begins or now - self._last_line_seconds > _SECONDS_BETWEEN_LINES):
            self._last_line_seconds = now
            counted = f": {done:,} of {total:,}" if total > 1 else ""
            self._lines.print(f"{part}{counted}", markup=False, soft_wrap=True)

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
