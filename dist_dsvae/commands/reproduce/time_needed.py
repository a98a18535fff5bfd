"""How long runs will take on this machine, from a measured iteration of each method."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from dist_dsvae.commands.benchmarks.timing import hardware, seconds
from dist_dsvae.commands.reproduce.planned_runs import PlannedRun
from dist_dsvae.core.text import duration
from dist_dsvae.engine.measuring.planning import plan
from dist_dsvae.engine.processes.runtime import Runtime

_ROUNDS = 3


@dataclass(frozen=True)
class TimeNeeded:
    """Of one run. seconds_per_iteration: measured, on made-up inputs. seconds: what is left of the run."""

    run: PlannedRun
    seconds_per_iteration: float
    seconds: float


def time_needed(runs: Sequence[PlannedRun]) -> list[TimeNeeded]:
    """Of each run that has not ended. An iteration of each data set and method is measured."""
    measured: dict[tuple[str, str], float] = {}
    needed = []
    for run in runs:
        if run.has_ended():
            continue
        key = (run.data, run.method)
        if key not in measured:
            measured[key] = seconds_per_iteration(run)
        iterations, trained = run.progress()
        left = (run.iterations - iterations) * measured[key]
        if limit := run.config.train.max_seconds:
            left = min(left, max(0.0, limit - trained))
        needed.append(TimeNeeded(run, measured[key], left))
    return needed


def seconds_per_iteration(run: PlannedRun) -> float:
    """Of the networks and the optimisers alone: batches come from memory, and no CUDA graph is captured."""
    runtime = Runtime(run.config.train)
    planned = plan(run.config, run.train.shape, run.train.num_classes, runtime, fake=False)
    planned.run()
    return statistics.median(seconds(planned.run)() for _ in range(_ROUNDS))


def report(needed: Sequence[TimeNeeded], num_runs: int, at_once: int) -> str:
    """Sentences: each method's iteration, and the whole."""
    by_method: dict[tuple[str, str], list[TimeNeeded]] = {}
    for each in needed:
        by_method.setdefault((each.run.data, each.run.method), []).append(each)
    lines = [
        f"{data}, {method}: {len(those)} to train, {those[0].seconds_per_iteration:.3g} s an iteration, "
        f"{duration(max(each.seconds for each in those))} each"
        for (data, method), those in by_method.items()
    ]
    # no run is split among processes
    whole = max(sum(each.seconds for each in needed) / at_once, max([0.0, *(e.seconds for e in needed)]))
    lines.append(
        f"{len(needed)} of {num_runs} runs are to be trained, {at_once} at a time: about {duration(whole)} "
        f"on {hardware()}, pictures, judges and evaluations not counted. Nothing was started."
    )
    return "\n".join(lines)
