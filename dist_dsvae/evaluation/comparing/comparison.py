"""Evaluated runs side by side, as in the paper's tables: methods are rows, figures are columns.

runs --same training but for the seed--> rows: mean and deviation over seeds
     --figure, judge-------------------> columns: one judge and equal settings each, or an error
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dist_dsvae.config.reading import differing_keys
from dist_dsvae.evaluation.comparing.columns import Column, columns_of
from dist_dsvae.evaluation.comparing.evaluated import ComparisonError, EvaluatedRun
from dist_dsvae.evaluation.comparing.paper import PaperFigures, paper_figures, paper_order

_AS_LONG = 1.05  # what two budgets of the clock may come to
_REAL = ("real_split", "real_samples", "diversity_samples")  # which real samples a run was compared with


@dataclass(frozen=True)
class Cell:
    """A figure over the runs of a row that have it: ``values`` by the run's path.

    mean: over them. std: the sample standard deviation over them, None of a single one; for a metric
    with a deviation of its own (over splits), the mean of those.
    """

    mean: float
    std: float | None
    values: dict[str, float]

    @classmethod
    def over(cls, values: dict[str, float]) -> Cell:
        """Mean and sample standard deviation of at least one value."""
        std = statistics.stdev(values.values()) if len(values) > 1 else None
        return cls(statistics.fmean(values.values()), std, values)


@dataclass(frozen=True)
class Row:
    """A training, repeated with one seed per run. cells: in the order of the columns."""

    label: str
    method: str
    runs: tuple[EvaluatedRun, ...]
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Comparison:
    """The table. real: figures of real samples, by column. paper: None where it has none for these data."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    real: tuple[float | None, ...]
    runs: tuple[EvaluatedRun, ...]
    paper: PaperFigures | None

    @property
    def num_classes(self) -> int:
        return len(self.runs[0].classes)

    @property
    def best(self) -> list[list[bool]]:
        """[rows][columns]: whether a row's mean is the best of its column."""
        by_column = [
            column.best_of([cell.mean if cell else None for cell in cells])
            for column, cells in zip(
                self.columns, zip(*(row.cells for row in self.rows), strict=True), strict=True
            )
        ]
        return [list(flags) for flags in zip(*by_column, strict=True)]


def compare(runs: Sequence[EvaluatedRun]) -> Comparison:
    """Put at least one run (``evaluated.read_runs``) into one table.

    Raises ComparisonError if their data differ, if runs of one column were evaluated with different
    settings, or if one has no figure that is compared.
    """
    _check_data(runs)
    columns = columns_of(runs)
    for run in runs:
        if not any(column.holds(run) for column in columns):
            raise ComparisonError(
                f"{run.path} (method {run.method}) has none of the figures that are compared. Leave it out."
            )
    for column in columns:
        column.settings(runs)
    groups = sorted(_groups(runs), key=lambda group: paper_order(group[0].method))
    methods = [group[0].method for group in groups]
    rows = [
        Row(
            _label(group, runs) if methods.count(group[0].method) > 1 else group[0].method,
            group[0].method,
            tuple(group),
            tuple(_cell(column, group) for column in columns),
        )
        for group in groups
    ]
    return Comparison(
        tuple(columns),
        tuple(rows),
        tuple(_real(column, runs) for column in columns),
        tuple(runs),
        paper_figures([run.data for run in runs]),
    )


def _check_data(runs: Sequence[EvaluatedRun]) -> None:
    first = runs[0]
    for run in runs[1:]:
        prints = [str(r.settings["data_fingerprint"]) for r in (first, run)]
        if prints[0] != prints[1]:
            raise ComparisonError(
                f"{first.path} and {run.path} are of different data: {first.data} (fingerprint "
                f"{prints[0][:12]}) and {run.data} ({prints[1][:12]}). Compare runs of the same shards."
            )
        if first.classes != run.classes:
            raise ComparisonError(
                f"{first.path} and {run.path} have different classes: {_shown(first.classes)} and "
                f"{_shown(run.classes)}. Compare runs of the same shards."
            )


def _shown(classes: Sequence[str]) -> str:
    return f"{len(classes)} ({', '.join(classes[:3])}{', ...' if len(classes) > 3 else ''})"


# Rows


def _groups(runs: Sequence[EvaluatedRun]) -> list[list[EvaluatedRun]]:
    """Runs of one training with different seeds, together; others, and repeated seeds, apart."""
    groups: list[list[EvaluatedRun]] = []
    for run in runs:
        for group in groups:
            seeds = {other.training_seed for other in group}
            if run.training_seed not in seeds and _same_training(group[0], run):
                group.append(run)
                break
        else:
            groups.append([run])
    return groups


def differing_but_for_the_seed(a: EvaluatedRun, b: EvaluatedRun) -> list[str]:
    """Keys, with both values, in which the runs' trainings differ; where the data are is none of them."""
    return [key for key in differing_keys(a.config, b.config) if not key.startswith("seed ")]


def _same_training(a: EvaluatedRun, b: EvaluatedRun) -> bool:
    """Same method, configuration, kind of weights, and budget: in samples, or in seconds by the clock.

    From their own initial weights both, or both from others', and with the same unlabelled pictures.
    """
    by_the_clock = min(a.config.train.max_seconds, b.config.train.max_seconds) > 0
    seconds = sorted((a.train_seconds, b.train_seconds))
    return (
        (a.method, a.weights) == (b.method, b.weights)
        # by the clock: as long, whatever of it was left for the last start of each
        and (a.samples_seen == b.samples_seen or (by_the_clock and seconds[1] <= _AS_LONG * seconds[0]))
        and not differing_but_for_the_seed(a, b)
        and (a.config.init_from is None) == (b.config.init_from is None)
        and a.config.data.unlabelled == b.config.data.unlabelled
    )


def _label(group: Sequence[EvaluatedRun], runs: Sequence[EvaluatedRun]) -> str:
    """The method with its first run's name (its path, where several have that name)."""
    first = group[0]
    name = first.name if [run.name for run in runs].count(first.name) == 1 else str(first.path)
    more = f" and {len(group) - 1} more" if len(group) > 1 else ""
    return f"{first.method} ({name}{more})"


# Cells


def _cell(column: Column, runs: Sequence[EvaluatedRun]) -> Cell | None:
    holding = [run for run in runs if column.holds(run)]
    if not holding:
        return None
    cell = Cell.over({str(run.path): run.figures[column.metric.figure] for run in holding})
    if column.metric.deviation is None:
        return cell
    own = [run.figures.get(column.metric.deviation) for run in holding]
    known = [value for value in own if value is not None]
    return replace(cell, std=statistics.fmean(known) if known else None)


def _real(column: Column, runs: Sequence[EvaluatedRun]) -> float | None:
    """Of real samples, where all runs of a column were compared with the same ones; else None."""
    holding = [run for run in runs if column.holds(run)]
    if len({tuple(run.settings.get(name) for name in _REAL) for run in holding}) > 1:
        return None
    found = (run.real.get(column.metric.figure) for run in holding)
    return next((value for value in found if value is not None), None)
