"""How far a build is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn


@contextmanager
def progress_of(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; elsewhere a line at once, and then every few seconds."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(what, total=total)
            yield lambda advance: bar.advance(task, advance)
        return
    done, last_line_seconds = 0, time.monotonic()
    print(f"0 of {total:,} {what}", file=sys.stderr, flush=True)

    def count(advance: int) -> None:
        nonlocal done, last_line_seconds
        done += advance
        if done == total or time.monotonic() - last_line_seconds > 5:
            last_line_seconds = time.monotonic()
            print(f"{done:,} of {total:,} {what}", file=sys.stderr, flush=True)

    yield count
