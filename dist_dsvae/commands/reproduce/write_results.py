"""Evaluated runs of a data set as results: OUT/NAME.json, NAME.md, and NAME.png with the trade-off curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dist_dsvae.commands.reproduce.evaluations import SCORES, WantedEvaluation
from dist_dsvae.commands.reproduce.planned_runs import LABELS, Budget, PlannedRun
from dist_dsvae.core.text import clause
from dist_dsvae.evaluation.comparing import trade_off
from dist_dsvae.evaluation.comparing.comparison import Cell, Comparison, compare, differing_but_for_the_seed
from dist_dsvae.evaluation.comparing.evaluated import ComparisonError, EvaluatedRun, read_run
from dist_dsvae.evaluation.comparing.proven_files import note_in, write_proven
from dist_dsvae.evaluation.comparing.results import FORMAT, results_of
from dist_dsvae.evaluation.comparing.results_tables import page

_LEFT_OUT = ("inception_score_splits_mean", "zu_mlp_accuracy")  # of tables; the file has them
_CURVE = ("inception_score", "fid", "precision", "recall", "diversity", "label_accuracy")


def write_results(
    name: str,
    runs: Sequence[PlannedRun],
    curve: Sequence[WantedEvaluation],
    budget: Budget,
    commands: Sequence[str],
    out: Path,
) -> list[Path]:
    """Write the files of a data set; their paths.

    runs: all evaluated. curve: the evaluations of the trade-off, empty without one. commands: that make all.
    Raises ComparisonError where the runs of a method are not one training, or evaluations do not go together.
    """
    evaluated = {run.directory: _as_planned(run) for run in runs}
    comparison = compare(list(evaluated.values()))
    _check_judges(comparison)
    first = comparison.runs[0]
    rows = [_row(method, those, evaluated) for method, those in _by_method(runs)]
    iterations = max(run.iterations for run in runs)
    document: dict[str, Any] = {
        "format": FORMAT,
        "name": name,
        "data": first.data,
        "data_fingerprint": first.settings["data_fingerprint"],
        "classes": len(first.classes),
        "budget": budget.words(iterations),
        **_machines(runs),
        "settings": {key: value for key, value in first.settings.items() if key != "test_fingerprint"},
        "judges": {role: asdict(judge) for role, judge in first.judges.items()},
        "commands": list(commands),
        **note_in(out / f"{name}.json"),  # it stands below the table
        "columns": [
            column.metric.figure for column in comparison.columns if column.metric.figure not in _LEFT_OUT
        ],
        "rows": rows,
        "real": {
            column.metric.figure: real
            for column, real in zip(comparison.columns, comparison.real, strict=True)
            if real is not None
        },
    }
    others: dict[str, bytes] = {}
    if curve:
        points = _trade_off(curve, evaluated)
        areas = trade_off.areas(results_of({**document, "trade_off": points}).curve)
        document["trade_off"] = {**points, "areas": [area._asdict() for area in areas]}
        others["png"] = trade_off.png(results_of(document))
    others["md"] = page(results_of(document), f"{name}.png" if curve else None).encode()
    return write_proven(out / name, document, others)


def _as_planned(run: PlannedRun) -> EvaluatedRun:
    """Its scores. Raises ComparisonError where another command has trained it on meanwhile."""
    found = read_run(run.directory, SCORES)
    if not run.config.train.max_seconds and found.samples_seen != run.iterations * run.samples_per_iteration:
        raise ComparisonError(
            f"{run.directory} was evaluated after {found.samples_seen:,} samples, not at the end of its "
            f"{run.iterations:,} iterations: another command has trained it meanwhile. Start this one again."
        )
    return found


def _check_judges(comparison: Comparison) -> None:
    figures = [column.metric.figure for column in comparison.columns]
    for column in comparison.columns:
        if figures.count(column.metric.figure) > 1:
            runs = ", ".join(str(run.path) for run in comparison.runs if not column.holds(run))
            raise ComparisonError(
                f"The runs' {column.metric.title} is of several judges. Remove evaluation/{SCORES}.json of "
                f"{runs}, and start the same command again."
            )


def _by_method(runs: Iterable[PlannedRun]) -> list[tuple[str, list[PlannedRun]]]:
    found: dict[str, list[PlannedRun]] = {}
    for run in runs:
        found.setdefault(run.method, []).append(run)
    return list(found.items())


def _row(method: str, runs: Sequence[PlannedRun], evaluated: Mapping[Path, EvaluatedRun]) -> dict[str, Any]:
    those = {run.seed: evaluated[run.directory] for run in runs}
    first = next(iter(those.values()))
    for other in those.values():
        if differing := differing_but_for_the_seed(first, other):
            raise ComparisonError(
                f"{first.path} and {other.path} are to be one method with two seeds, but differ in "
                f"{'; '.join(differing)}. Train one of them anew, under another --runs."
            )
        if other.weights != first.weights:
            raise ComparisonError(
                f"{first.path} was evaluated with the weights {first.weights!r}, {other.path} with "
                f"{other.weights!r}. Say which with --set evaluation.weights=ema or raw."
            )
    return {
        "label": LABELS[method],
        "seeds": list(those),
        "weights": first.weights,
        "checkpoints": [run.checkpoint for run in those.values()],
        "samples_seen": [run.samples_seen for run in those.values()],
        "train_seconds": [run.train_seconds for run in those.values()],
        "figures": _figures({seed: run.figures for seed, run in those.items()}),
    }


def _figures(by_seed: Mapping[int, Mapping[str, float]]) -> dict[str, Any]:
    """The figures that all seeds have, as plain JSON values (``results``)."""
    return {
        name: asdict(Cell.over({str(seed): figures[name] for seed, figures in by_seed.items()}))
        for name in next(iter(by_seed.values()))
        if all(name in each for each in by_seed.values())
    }


def _trade_off(curve: Sequence[WantedEvaluation], evaluated: Mapping[Path, EvaluatedRun]) -> dict[str, Any]:
    """Raises ComparisonError where a run's evaluations differ in more than their temperatures."""
    points: dict[tuple[str, str], list[WantedEvaluation]] = {}
    for wanted in curve:
        points.setdefault((wanted.run.method, wanted.name), []).append(wanted)
    found: list[dict[str, Any]] = []
    for (method, name), those in points.items():
        runs: dict[int, Mapping[str, float]] = {}
        for wanted in those:
            at_temperature = read_run(wanted.run.directory, name)
            _check_alike(at_temperature, evaluated[wanted.run.directory], name)
            runs[wanted.run.seed] = at_temperature.figures
        found.append(
            {
                "label": LABELS[method],
                "temperature_zs": those[0].temperature_zs,
                "temperature_zu": those[0].temperature_zu,
                "figures": {figure: cell for figure, cell in _figures(runs).items() if figure in _CURVE},
            }
        )
    held = [figure for figure in _CURVE if any(figure in point["figures"] for point in found)]
    return {"columns": held, "points": found}


def _check_alike(run: EvaluatedRun, scores: EvaluatedRun, name: str) -> None:
    settings = [
        {key: value for key, value in each.settings.items() if not key.startswith("temperature_")}
        for each in (run, scores)
    ]
    differing = [key for key in settings[0] | settings[1] if settings[0].get(key) != settings[1].get(key)]
    if differing:
        raise ComparisonError(
            f"{run.path} has evaluation/{SCORES}.json and {name}.json of different {', '.join(differing)}. "
            "Move both away, to have them made anew alike, and start the same command again."
        )


def _machines(runs: Iterable[PlannedRun]) -> dict[str, Any]:
    """What trained, by the runs' own records."""
    records = [record for run in runs for record in _starts_that_trained(run)]
    return {
        "hardware": " and ".join(sorted({_machine(record) for record in records})),
        "software": {
            name: ", ".join(sorted({str(record["packages"].get(name)) for record in records}))
            for name in ("dist_dsvae", "torch")
        },
        "commit": ", ".join(sorted({record["git"] for record in records if record.get("git")})) or None,
    }


def _starts_that_trained(run: PlannedRun) -> list[Mapping[str, Any]]:
    """Raises ComparisonError where the record is damaged."""
    try:
        starts = run.starts()
        for start in starts:
            _machine(start)
            start["packages"].get("torch")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ComparisonError(
            f"{run.directory / 'environment.json'}, the record of what trained, cannot be read: "
            f"{clause(error)}. Restore it from a copy."
        ) from None
    return starts


def _machine(record: Mapping[str, Any]) -> str:
    """The device of one start of a training."""
    on_gpu = record.get("device_type") == "cuda"
    threads = "" if on_gpu else f", {record['threads']} thread{'s' if record['threads'] != 1 else ''}"
    ranks = f"{record['world_size']} processes on " if record["world_size"] > 1 else ""
    return f"{ranks}{record['device']}{threads}, {record['mixed_precision'].replace('no', 'float32')}"
