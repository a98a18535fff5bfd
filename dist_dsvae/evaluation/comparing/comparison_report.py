"""A comparison for people and machines: Markdown, tables for the terminal, JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from dist_dsvae.evaluation.comparing.columns import Column
from dist_dsvae.evaluation.comparing.comparison import Cell, Comparison, Row
from dist_dsvae.evaluation.comparing.paper import METHODS

FORMAT = "dist_dsvae-comparison/1"
_WEIGHTS = {"ema": 'Moving average ("ema")', "raw": 'Last weights ("raw")'}
ARROWS = {"highest": "↑", "lowest": "↓", "nearest 1": "→ 1"}
_PAPER_DIGITS = {"inception_score": 2, "diversity": 4}
_LABEL_WIDTH = 30


@dataclass(frozen=True)
class TableEntry:
    """What a cell shows."""

    text: str = ""
    bold: bool = False


@dataclass(frozen=True)
class Strip:
    """A column as it is shown: the lines of its heading, and an entry for each of the sheet's rows."""

    heading: tuple[str, ...]
    entries: tuple[TableEntry, ...]


def sheet(comparison: Comparison) -> tuple[list[str], list[Strip]]:
    """The names of all rows, and the columns: ours, with the paper's after the figures that it has too.

    Rows: the runs', then methods that only the paper has figures of, then real samples.
    """
    kind = "points" if comparison.runs[0].of_points else "images"
    only = _only_in_paper(comparison)
    labels = [row.label for row in comparison.rows]
    labels += [f"{method} (paper only)" for method in only] + [f"real {kind}"]
    seeds = [TableEntry(str(len(row.runs))) for row in comparison.rows] + [TableEntry()] * (len(only) + 1)
    strips = [Strip(("seeds",), tuple(seeds))]
    pending = list(comparison.paper.figures) if comparison.paper else []
    for i, column in enumerate(comparison.columns):
        entries = [
            TableEntry(_shown(row.cells[i], column.metric.digits, len(row.runs)), comparison.best[j][i])
            for j, row in enumerate(comparison.rows)
        ]
        real = comparison.real[i]
        entries += [TableEntry()] * len(only)
        entries.append(TableEntry() if real is None else TableEntry(f"{real:.{column.metric.digits}f}"))
        strips.append(Strip(heading(column, comparison), tuple(entries)))
        figure = column.metric.figure
        others = [c.metric.figure for c in comparison.columns[i + 1 :]]
        if figure in pending and figure not in others:
            pending.remove(figure)
            strips.append(_paper_strip(comparison, figure))
    return labels, strips + [_paper_strip(comparison, figure) for figure in pending]


def heading(column: Column, comparison: Comparison) -> tuple[str, ...]:
    """Title with the direction of what is better; what guessing gives; the judge and its hash."""
    lines = [f"{column.metric.title} {ARROWS[column.metric.best]}"]
    chance = {"samples": 1 / comparison.num_classes, "pictures": comparison.runs[0].commonest_class}
    if guessed := chance.get(column.metric.chance):
        lines.append(f"chance {guessed:.3g}")
    if column.judge:
        lines += [column.judge.name, column.judge.digest]
    return tuple(lines)


def _shown(cell: Cell | None, digits: int, num_runs: int) -> str:
    if cell is None:
        return ""
    text = f"{cell.mean:.{digits}f}" + ("" if cell.std is None else f" ± {cell.std:.{digits}f}")
    return text if len(cell.values) == num_runs else f"{text} (n = {len(cell.values)})"


def _only_in_paper(comparison: Comparison) -> list[str]:
    return [m for m in METHODS if comparison.paper and m not in [row.method for row in comparison.rows]]


def _paper_strip(comparison: Comparison, figure: str) -> Strip:
    assert comparison.paper is not None
    methods = [row.method for row in comparison.rows] + _only_in_paper(comparison)
    values = [comparison.paper.figures[figure].get(method) for method in methods]
    digits = _PAPER_DIGITS[figure]
    entries = [TableEntry() if value is None else TableEntry(f"{value:.{digits}f}") for value in values]
    name = figure.replace("_", " ").replace("inception score", "Inception Score")
    note = ("its classifier",) if figure == "inception_score" else ("its scale",)
    title = f"paper: {comparison.paper.data_set} {name}"
    return Strip((title, *note), (*entries, TableEntry()))


# Below the table


def caption(comparison: Comparison) -> list[str]:
    """Sentences on data, settings, judges, the budget of every row, and the paper's figures."""
    first = comparison.runs[0]
    fingerprint = str(first.settings["data_fingerprint"])[:12]
    lines = [f"Data: {first.data}, {comparison.num_classes} classes, fingerprint {fingerprint}."]
    several = any(len(row.runs) > 1 for row in comparison.rows)
    if several:
        lines.append("±: sample standard deviation over training seeds.")
    if any(column.metric.deviation for column in comparison.columns):
        lines.append(
            "Inception Score over splits: ± is over the splits"
            + (", averaged over seeds." if several else ".")
        )
    lines += _settings_lines(comparison)
    lines += differing_weights([(row.label, row.runs[0].weights) for row in comparison.rows])
    judges = {judge: None for run in comparison.runs for judge in run.judges.items()}
    lines += [
        f"{role.replace('_', ' ').capitalize()}: {judge.name}, sha256 {judge.digest}."
        for role, judge in judges
    ]
    lines += [f"{row.label}: {_budget(row)}." for row in comparison.rows]
    if comparison.paper is None:
        lines.append("The paper has no figures for these data.")
    else:
        lines.append(
            f"paper: what the paper prints for {comparison.paper.data_set}, under its own classifier: "
            "compare the order of the methods, not the values. Nor does the magnitude of its diversity "
            "follow from its formula."
        )
    return lines


def differing_weights(rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    """A text that names the rows of each kind of weights, where there are several kinds.

    rows: label and weights, "ema" or "raw". They may stand side by side: a method without a moving average is
    compared by its last weights.
    """
    by_kind: dict[str, list[str]] = {}
    for label, weights in rows:
        by_kind.setdefault(weights, []).append(label)
    if len(by_kind) > 1:
        kinds = (f"{_WEIGHTS.get(kind, kind)}: {'; '.join(labels)}." for kind, labels in by_kind.items())
        yield " ".join(("Rows are of different weights.", *kinds))


def _settings_lines(comparison: Comparison) -> Iterator[str]:
    by_text: dict[str, list[str]] = {}
    for run in comparison.runs:
        s = run.settings
        text = f"{s['samples']:,} samples"
        if "samples_per_class" in s:
            text += f" ({s['samples_per_class']:,} per class)"
        text += f", {s['real_samples']:,} real"
        if "real_split" in s:
            text += f" of the {s['real_split']} split"
        names = ["diversity_samples", "neighbour_samples", "identity_samples", "splits", "seed"]
        names += ["batch_norm", "temperature_zs", "temperature_zu", "precision"]
        text += "".join(f", {name.replace('_', ' ')} {s[name]}" for name in names if name in s)
        by_text.setdefault(text, []).append(str(run.path))
    for text, runs in by_text.items():
        yield f"Evaluated with {text}" + (f": {', '.join(runs)}." if len(by_text) > 1 else ".")


def _budget(row: Row) -> str:
    runs = row.runs
    seeds = sorted(run.training_seed for run in runs)
    return ", ".join(
        (
            f"{_range([run.samples_seen for run in runs])} samples seen",
            f"{_range([round(run.train_seconds) for run in runs])} s of training",
            " and ".join(dict.fromkeys(run.checkpoint for run in runs)),
            f"{runs[0].weights} weights",
            f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}",
            f"run{'s' if len(runs) > 1 else ''} {', '.join(str(run.path) for run in runs)}",
        )
    )


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


# Forms


def markdown(comparison: Comparison) -> str:
    """One table with its caption below; the best of a column is bold."""
    labels, strips = sheet(comparison)
    lines = ["| method | " + " | ".join("<br>".join(map(_escaped, s.heading)) for s in strips) + " |"]
    lines.append("|---|" + "---:|" * len(strips))
    for i, label in enumerate(labels):
        cells = [f"**{s.entries[i].text}**" if s.entries[i].bold else s.entries[i].text for s in strips]
        lines.append(f"| {_escaped(label)} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"- {_escaped(line)}" for line in caption(comparison)), ""])


def _escaped(text: str) -> str:
    for mark in ("\\", "|", "*", "_", "<"):
        text = text.replace(mark, "\\" + mark)
    return text


def tables_of(comparison: Comparison, width: int) -> list[Table]:
    """The table for a terminal ``width`` characters wide, in as many pieces as that takes."""
    labels, strips = sheet(comparison)
    label_width = min(_LABEL_WIDTH, max(map(len, labels)))
    pieces: list[list[tuple[list[str], Strip]]] = []
    free = 0
    for strip in strips:
        lines = [part for line in strip.heading for part in textwrap.wrap(_kept_together(line), 16)]
        needed = 3 + max(map(len, [*lines, *(entry.text for entry in strip.entries)]))
        if not pieces or needed > free:
            pieces.append([])
            free = width - label_width - 4
        pieces[-1].append((lines, strip))
        free -= needed
    return [_table(labels, label_width, piece) for piece in pieces]


def _kept_together(line: str) -> str:
    """A title whose arrow stays with its last word."""
    for arrow in ARROWS.values():
        line = line.replace(f" {arrow}", "\N{NO-BREAK SPACE}" + arrow.replace(" ", "\N{NO-BREAK SPACE}"))
    return line


def _table(labels: list[str], label_width: int, piece: list[tuple[list[str], Strip]]) -> Table:
    table = Table()
    table.add_column("method", max_width=label_width, min_width=label_width)
    for lines, _ in piece:
        table.add_column(Text("\n".join(lines)), justify="right", no_wrap=True)
    for i, label in enumerate(labels):
        entries = [strip.entries[i] for _, strip in piece]
        table.add_row(Text(label), *(Text(e.text, style="bold" if e.bold else "") for e in entries))
    return table


def as_json(comparison: Comparison) -> dict[str, Any]:
    """All of it as plain JSON values, with the figures of every run."""
    return {
        "format": FORMAT,
        "data": sorted({run.data for run in comparison.runs}),
        "data_fingerprint": comparison.runs[0].settings["data_fingerprint"],
        "classes": list(comparison.runs[0].classes),
        "columns": [
            {
                "figure": column.metric.figure,
                "best": column.metric.best,
                "judge": asdict(column.judge) if column.judge else None,
                "settings": column.settings(comparison.runs),
                "real": real,
            }
            for column, real in zip(comparison.columns, comparison.real, strict=True)
        ],
        "rows": [
            {
                "label": row.label,
                "method": row.method,
                "cells": [
                    asdict(cell) | {"best": best} if cell else None
                    for cell, best in zip(row.cells, flags, strict=True)
                ],
                "runs": [
                    {"run": str(run.path)}
                    | {
                        key: getattr(run, key)
                        for key in ("checkpoint", "weights", "training_seed", "samples_seen", "train_seconds")
                    }
                    for run in row.runs
                ],
            }
            for row, flags in zip(comparison.rows, comparison.best, strict=True)
        ],
        "paper": asdict(comparison.paper) if comparison.paper else None,
        "caption": caption(comparison),
    }
