"""What all benchmarks share: taking turns, describing the hardware, printing the result."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dist_dsvae.commands.starting import tell
from dist_dsvae.core.process import cpu_name
from dist_dsvae.engine.reporting.steady_output import standard_output

Result = dict[str, Any]


def in_turn(sides: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Run the sides A B A B ... and return each one's median (of whatever it returns)."""
    results: dict[str, list[float]] = {name: [] for name in sides}
    for round_number in range(rounds + 1):
        for name, run in sides.items():
            value = run()
            if round_number:  # the first round warms up
                results[name].append(value)
    return {name: statistics.median(values) for name, values in results.items()}


def seconds(function: Callable[[], object]) -> Callable[[], float]:
    """``function`` as something that returns its seconds, the GPU's work included."""

    def run() -> float:
        wait_for_gpu()
        begin = time.perf_counter()
        function()
        wait_for_gpu()
        return time.perf_counter() - begin

    return run


def wait_for_gpu() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def hardware() -> str:
    """The GPU's name, or the CPU's."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return cpu_name()


def show(result: Result, *, as_json: bool) -> None:
    """A table on the terminal; with ``as_json`` also one JSON object as the last line of stdout."""
    result = {
        **result,
        "hardware": result.get("hardware", hardware()),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    table = Table(title=f"benchmark {result['benchmark']}", show_header=False)
    for key, value in result.items():
        if isinstance(value, dict):
            for name, entry in value.items():
                table.add_row(escape(f"{key}: {name}"), escape(_text(entry)))
        elif key != "benchmark":
            table.add_row(escape(key), escape(_text(value)))
    Console(file=sys.stderr if as_json else standard_output()).print(table)
    if as_json:
        tell(json.dumps(result))


def _text(value: object) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{name} {_text(entry)}" for name, entry in value.items())
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def rounded(values: dict[str, float]) -> dict[str, float]:
    """Each value to three significant digits."""
    return {name: float(f"{value:.3g}") for name, value in values.items()}
