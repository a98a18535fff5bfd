"""The columns of a comparison: a figure under one judge, from evaluations with equal settings."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from dist_dsvae.config import EvaluationConfig
from dist_dsvae.evaluation.comparing.evaluated import ComparisonError, EvaluatedRun, RecordedJudge
from dist_dsvae.evaluation.metrics import METRICS, Metric

_OPTIONS = {
    "samples": "--samples-per-class",
    "precision": "--mixed_precision",
    "held_out_fingerprint": "--held-out",
    **{field.name: f"--set evaluation.{field.name}=..." for field in fields(EvaluationConfig)},
}


@dataclass(frozen=True)
class Column:
    """A metric under one judge (None where none is asked)."""

    metric: Metric
    judge: RecordedJudge | None

    def holds(self, run: EvaluatedRun) -> bool:
        """Whether the run has this column's figure, from this column's judge."""
        return (self.metric, self.judge) in _keys(run)

    def settings(self, runs: Sequence[EvaluatedRun]) -> dict[str, Any]:
        """The settings behind the column, equal in all ``runs`` that it holds.

        Raises ComparisonError that names a setting that is not.
        """
        holding = [run for run in runs if self.holds(run)]
        for name in self.metric.depends:
            if len({json.dumps(run.settings.get(name)) for run in holding}) > 1:
                option = f" ({_OPTIONS[name]})" if name in _OPTIONS else ""
                values = ", ".join(f"{json.dumps(run.settings.get(name))} in {run.path}" for run in holding)
                raise ComparisonError(
                    f"The runs' {self.metric.title} cannot stand in one column: their evaluations differ in "
                    f"the setting {name}, which is {values}. Evaluate them again with equal settings{option}."
                )
        found = {name: holding[0].settings.get(name) for name in self.metric.depends}
        return {name: value for name, value in found.items() if value is not None}

    def best_of(self, values: Sequence[float | None]) -> list[bool]:
        """Which values are best, at the digits shown: none where there are no two that differ."""
        shown = [
            None if value is None or not math.isfinite(value) else round(value, self.metric.digits)
            for value in values
        ]
        cost = {"highest": lambda v: -v, "lowest": lambda v: v, "nearest 1": lambda v: abs(v - 1.0)}
        there = [value for value in shown if value is not None]
        if len(set(there)) < 2:
            return [False] * len(shown)
        best = min(there, key=cost[self.metric.best])
        return [value == best for value in shown]


def _keys(run: EvaluatedRun) -> Iterator[tuple[Metric, RecordedJudge | None]]:
    for metric in METRICS:
        if not metric.title or metric.figure not in run.figures or (metric.points and not run.of_points):
            continue
        judge = run.judges.get(metric.judge) if metric.judge else None
        if metric.judge is None or judge is not None:
            yield metric, judge


def columns_of(runs: Sequence[EvaluatedRun]) -> list[Column]:
    """The columns that at least one run fills: by metric, then by judge in the order of the runs."""
    found = {key: None for run in runs for key in _keys(run)}
    return [Column(*key) for metric in METRICS for key in found if key[0] is metric]
