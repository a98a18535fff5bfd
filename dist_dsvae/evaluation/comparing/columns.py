"""The columns of a comparison: a figure under one judge, from evaluations with equal settings."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dist_dsvae.evaluation.comparing.evaluated import ComparisonError, EvaluatedRun, Judge

_ALWAYS = ("data_fingerprint", "test_fingerprint", "precision")
_DECODED = (*_ALWAYS, "batch_norm")
_DRAWN = (
    *(*_DECODED, "seed", "samples", "samples_per_class", "prior", "batch_size"),
    *("temperature_zs", "temperature_zu"),
)
_COMPARED = (*_DRAWN, "real_split", "real_samples")
_POINTS = (*_COMPARED, "radius")
_OPTIONS = {
    "samples": "--samples-per-class",
    "precision": "--mixed_precision",
    "held_out_fingerprint": "--held-out",
    **{
        name: f"--set evaluation.{name}=..."
        for name in (
            *("samples_per_class", "real_samples", "real_split", "splits", "seed", "batch_norm", "prior"),
            *("batch_size", "diversity_samples", "neighbour_samples", "identity_samples"),
            *("temperature_zs", "temperature_zu"),
        )
    },
}


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure of an evaluation as a column.

    figure: its name there; ``deviation`` names the figure of its own +-, where it has one.
    best: which value is best: the highest, the lowest, or the one nearest to 1.
    judge: role of the network that it is judged by. points: a figure of points in the plane.
    depends: the settings that it depends on. chance: guessing gives 1 / number of classes.
    """

    figure: str
    title: str
    best: Literal["highest", "lowest", "nearest 1"] = "highest"
    digits: int = 3
    judge: Literal["classifier", "feature_network", "identity_network"] | None = None
    depends: tuple[str, ...] = _ALWAYS
    deviation: str | None = None
    chance: bool = False
    points: bool = False


def _identity_metrics(prefix: str, title: str, *depends: str) -> Iterator[Metric]:
    best: Literal["highest", "lowest"]
    for figure, what, best in (
        ("swap_to_zs", "swap to zs", "highest"),
        ("swap_to_zu", "swap to zu", "lowest"),
        ("reconstruction", "reconstruction", "highest"),
    ):
        yield Metric(
            figure=f"{prefix}identity_{figure}",
            title=f"{title}, {what}",
            best=best,
            judge="identity_network",
            depends=(*_DECODED, "seed", "identity_samples", *depends),
        )


METRICS = (
    Metric(figure="inception_score", title="Inception Score", digits=2, judge="classifier", depends=_DRAWN),
    Metric(
        figure="inception_score_splits_mean",
        title="Inception Score over splits",
        digits=2,
        judge="classifier",
        depends=(*_DRAWN, "splits"),
        deviation="inception_score_splits_std",
    ),
    Metric(figure="fid", title="FID", best="lowest", digits=2, judge="feature_network", depends=_COMPARED),
    Metric(
        figure="precision",
        title="precision",
        judge="feature_network",
        depends=(*_COMPARED, "neighbour_samples"),
    ),
    Metric(
        figure="recall", title="recall", judge="feature_network", depends=(*_COMPARED, "neighbour_samples")
    ),
    Metric(
        figure="diversity",
        title="diversity",
        digits=4,
        depends=(*_DRAWN, "diversity_samples", "ms_ssim_weights"),
    ),
    Metric(figure="label_accuracy", title="label accuracy", judge="classifier", depends=_DRAWN, chance=True),
    Metric(figure="zs_accuracy", title="accuracy from zs", chance=True),
    Metric(figure="zu_probe_accuracy", title="linear probe of zu", best="lowest", chance=True),
    Metric(figure="zu_mlp_accuracy", title="perceptron on zu", best="lowest", chance=True),
    Metric(
        figure="swap_follows_zs",
        title="swaps follow zs",
        judge="classifier",
        depends=(*_DECODED, "seed"),
        chance=True,
    ),
    *_identity_metrics("", "identity"),
    Metric(
        figure="identity_sample_to_class",
        title="identity, sample to class",
        judge="identity_network",
        depends=(*_DRAWN, "identity_samples"),
    ),
    Metric(
        figure="identity_sample_to_others",
        title="identity, sample to others",
        best="lowest",
        judge="identity_network",
        depends=(*_DRAWN, "identity_samples"),
    ),
    *_identity_metrics("held_out_", "identity of unseen", "held_out_fingerprint"),
    Metric(
        figure="reconstruction_error",
        title="reconstruction error",
        best="lowest",
        digits=4,
        depends=_DECODED,
    ),
    Metric(
        figure="held_out_reconstruction_error",
        title="reconstruction error of unseen",
        best="lowest",
        digits=4,
        depends=(*_DECODED, "held_out_fingerprint"),
    ),
    Metric(figure="coverage", title="coverage", depends=_POINTS, points=True),
    Metric(figure="precision", title="precision of points", depends=_POINTS, points=True),
    Metric(figure="spread_x", title="spread along x", best="nearest 1", depends=_POINTS, points=True),
    Metric(figure="spread_y", title="spread along y", best="nearest 1", depends=_POINTS, points=True),
)


@dataclass(frozen=True)
class Column:
    """A metric under one judge (None where none is asked)."""

    metric: Metric
    judge: Judge | None

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


def _keys(run: EvaluatedRun) -> Iterator[tuple[Metric, Judge | None]]:
    for metric in METRICS:
        if metric.figure not in run.figures or (metric.points and not run.of_points):
            continue
        judge = run.judges.get(metric.judge) if metric.judge else None
        if metric.judge is None or judge is not None:
            yield metric, judge


def columns_of(runs: Sequence[EvaluatedRun]) -> list[Column]:
    """The columns that at least one run fills: by metric, then by judge in the order of the runs."""
    found = {key: None for run in runs for key in _keys(run)}
    return [Column(*key) for metric in METRICS for key in found if key[0] is metric]
