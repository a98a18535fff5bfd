"""Results as Markdown: tables in several views, and the line below them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dist_dsvae.evaluation.comparing.columns import Column
from dist_dsvae.evaluation.comparing.comparison import Cell
from dist_dsvae.evaluation.comparing.comparison_report import ARROWS, differing_weights
from dist_dsvae.evaluation.comparing.paper import METHODS, PRINTED
from dist_dsvae.evaluation.comparing.results import Cells, Results
from dist_dsvae.evaluation.metrics import METRICS, Metric

_TWO_DIGITS = ("inception_score", "inception_score_splits_mean", "spread_x", "spread_y")


def metric_shown(figure: str, *, of_points: bool) -> Metric:
    """The metric of a figure with the digits that results show: three, two of Inception Scores and spreads.

    Raises ValueError if there is none of that name with a column of its own.
    """
    for metric in METRICS:
        if metric.figure == figure and metric.title and not (metric.points and not of_points):
            if of_points and not metric.points and any(m.points and m.figure == figure for m in METRICS):
                continue
            return replace(metric, digits=2 if figure in _TWO_DIGITS else 3)
    raise ValueError(f"{figure!r} is no figure that a table can show.")


def methods_table(results: Results) -> str:
    """A row per method, a column per figure; the best of a column is bold."""
    metrics = _metrics(results, results.columns)
    rows = [([row.label], row.cells) for row in results.rows]
    lines = _table(["", *map(_heading, metrics)], rows, metrics)
    if results.real:
        real = [_number(results.real.get(metric.figure), metric.digits) for metric in metrics]
        lines.append(_line([f"real {'points' if results.of_points else 'images'}", *real]))
    return "\n".join(lines)


def figures_table(results: Results) -> str:
    """A row per figure, a column per method: for few methods with many figures."""
    metrics = _metrics(results, results.columns)
    head = ["", *(row.label for row in results.rows), *(["real"] if results.real else [])]
    lines = [_line(head), "|---|" + "---:|" * (len(head) - 1)]
    best = [_best(metric, [row.cells for row in results.rows]) for metric in metrics]
    for metric, flags in zip(metrics, best, strict=True):
        entries = [_entry(row.cells, metric, flag) for row, flag in zip(results.rows, flags, strict=True)]
        if results.real:
            entries.append(_number(results.real.get(metric.figure), metric.digits))
        lines.append(_line([f"{metric.description} {ARROWS[metric.best]}", *entries]))
    return "\n".join(lines)


def temperatures_table(results: Results) -> str:
    """A row per method and temperature, in the order of the file."""
    metrics = _metrics(results, results.curve_columns)
    rows = [
        ([point.label, temperature_text(point.temperature_zs, point.temperature_zu)], point.cells)
        for point in results.curve
    ]
    return "\n".join(_table(["", "temperature", *map(_heading, metrics)], rows, metrics))


def temperature_text(zs: float | None, zu: float) -> str:
    """Of zs and zu, or of the one code."""
    return f"{zu:g}" if zs is None else f"zs {zs:g}, zu {zu:g}"


def paper_table() -> str:
    """What the paper prints: all its data sets and methods."""
    lines = [_line(["data", "method", "Inception Score", "diversity"]), "|---|---|---:|---:|"]
    for printed in PRINTED.values():
        for method, name in METHODS.items():
            score, diversity = (printed.figures[key].get(method) for key in ("inception_score", "diversity"))
            lines.append(_line([printed.data_set, name, _number(score, 2), _number(diversity, 4)]))
    return "\n".join(lines)


VIEWS: Mapping[str, Callable[[Results], str]] = {
    "methods": methods_table,
    "figures": figures_table,
    "temperatures": temperatures_table,
}


def caption(results: Results) -> str:
    """One line: seeds, budget, samples, judges, hardware, software, commit, and what else is to be said.

    Of the weights where all rows say which, and they differ.
    """
    document = results.document
    seeds = sorted({seed for row in results.rows for seed in row.seeds})
    several = any(len(row.seeds) > 1 for row in results.rows)
    parts = [f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"]
    parts += ["±: sample standard deviation over them"] if several else []
    parts += [document["budget"]] if document.get("budget") else []
    parts += list(_settings(document.get("settings", {})))
    judges: dict[str, list[str]] = {}
    for role, judge in (document.get("judges") or {}).items():
        judges.setdefault(f"{judge['name']} (sha256 {judge['sha256'][:12]})", []).append(role)
    parts += [f"{' and '.join(roles).replace('_', ' ')}: {judge}" for judge, roles in judges.items()]
    parts += [document["hardware"]] if document.get("hardware") else []
    parts += [f"{name} {version}" for name, version in document.get("software", {}).items()]
    parts += [f"commit {document['commit']}"] if document.get("commit") else []
    text = "; ".join(parts)
    weights = [(row.label, row.weights) for row in results.rows if row.weights is not None]
    said = differing_weights(weights) if len(weights) == len(results.rows) else ()
    note = [document["note"]] if document.get("note") else []
    return " ".join([f"{text[:1].upper()}{text[1:]}.", *said, *note])


def page(results: Results, image: str | None) -> str:
    """NAME.md: the table, the temperatures and the curve where there are any, and the commands."""
    lines = [f"# {results.name}", "", methods_table(results), "", caption(results), ""]
    if results.curve:
        lines += [temperatures_table(results), "", areas_text(results), ""]
    if image is not None:
        lines += [f"![scores against diversity over the prior's temperature]({image})", ""]
    return "\n".join([*lines, "```", *results.document["commands"], "```", ""])


def areas_text(results: Results) -> str:
    """A sentence on each area between two curves."""
    areas = results.document.get("trade_off", {}).get("areas", [])
    return " ".join(map(_area_text, areas)) or "The curves have no range of diversity in common."


def _area_text(area: Mapping[str, Any]) -> str:
    metric = metric_shown(area["figure"], of_points=False)
    low, high = area["diversity"]
    is_ahead = (area["mean_difference"] > 0) == (metric.best == "highest")
    distance = f"{abs(area['mean_difference']):.3g} {'ahead of' if is_ahead else 'behind'}"
    return (
        f"{metric.title}: {area['of']} is {distance} {area['against']} on average at equal diversity, from "
        f"{low:.3f} to {high:.3f} "
        f"(area between the curves {area['area']:.2g})."
    )


def _settings(settings: Mapping[str, Any]) -> Iterable[str]:
    if "samples" in settings:
        each = f" ({settings['samples_per_class']:,} per class)" if "samples_per_class" in settings else ""
        yield f"{settings['samples']:,} samples{each}"
    if "real_samples" in settings:
        yield f"{settings['real_samples']:,} real"
    for code in ("zs", "zu"):
        if (temperature := settings.get(f"temperature_{code}", 1)) != 1:
            yield f"temperature of {code} {temperature:g}"
    if "precision" in settings:
        yield "float32" if settings["precision"] == "no" else settings["precision"]


def _metrics(results: Results, figures: Sequence[str]) -> list[Metric]:
    return [metric_shown(figure, of_points=results.of_points) for figure in figures]


def _table(
    head: Sequence[str], rows: Sequence[tuple[Sequence[str], Cells]], metrics: Sequence[Metric]
) -> list[str]:
    lines = [_line(head), "|" + "---|" * (len(head) - len(metrics)) + "---:|" * len(metrics)]
    best = [_best(metric, [cells for _, cells in rows]) for metric in metrics]
    for i, (labels, cells) in enumerate(rows):
        entries = [_entry(cells, metric, flags[i]) for metric, flags in zip(metrics, best, strict=True)]
        lines.append(_line([*labels, *entries]))
    return lines


def _best(metric: Metric, rows: Sequence[Cells]) -> list[bool]:
    means = [cells[metric.figure].mean if metric.figure in cells else None for cells in rows]
    return Column(metric, None).best_of(means)


def _entry(cells: Cells, metric: Metric, bold: bool) -> str:
    cell: Cell | None = cells.get(metric.figure)
    if cell is None:
        return ""
    text = f"{cell.mean:.{metric.digits}f}"
    text += "" if cell.std is None else f" ± {cell.std:.{metric.digits}f}"
    return f"**{text}**" if bold else text


def _heading(metric: Metric) -> str:
    return f"{metric.title} {ARROWS[metric.best]}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _line(entries: Sequence[str]) -> str:
    return "| " + " | ".join(entries) + " |"
