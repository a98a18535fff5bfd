"""The files of a comparison: PREFIX.md, PREFIX.json and PREFIX.png, a panel of bars per main figure."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from dist_dsvae.evaluation.comparing.comparison import Comparison
from dist_dsvae.evaluation.comparing.comparison_report import as_json, heading, markdown
from dist_dsvae.evaluation.comparing.paper import paper_order
from dist_dsvae.evaluation.comparing.proven_files import prefix_of, write_proven

_MAIN = ("inception_score", "fid", "diversity", "label_accuracy", "coverage")
_PANELS_PER_LINE = 4
_COLOURS = matplotlib.colormaps["tab10"]


def save_comparison(comparison: Comparison, out: str | None) -> list[Path]:
    """Write the three files and return their paths.

    out: a directory, existing or ending in "/", for comparison.md and so on; else a prefix of their
    names. None writes them beside the first run. The JSON file has the sha256 of the other two: only
    files that are as this function wrote them are replaced.
    Raises OSError where writing is impossible, ComparisonError where a file of another kind is in the way.
    """
    prefix = comparison.runs[0].path.resolve().parent / "comparison"
    if out is not None:
        prefix = prefix_of(out, "comparison")
    others = {"md": markdown(comparison).encode(), "png": png(comparison)}
    return write_proven(prefix, as_json(comparison), others)


def png(comparison: Comparison) -> bytes:
    """A PNG: a bar per row of the table with its deviation over seeds; real samples are dashed lines.

    Panels for the main figures; where there are none of them, for the first columns.
    """
    chosen = [i for i, column in enumerate(comparison.columns) if column.metric.figure in _MAIN]
    chosen = chosen or list(range(min(_PANELS_PER_LINE, len(comparison.columns))))
    across = min(_PANELS_PER_LINE, len(chosen))
    down = -(-len(chosen) // across)
    size = (2.0 + 2.9 * across, (0.34 * len(comparison.rows) + 1.5) * down + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    all_axes = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    for ax in all_axes[len(chosen) :]:
        ax.set_visible(False)
    dashed = None
    for ax, i in zip(all_axes, chosen, strict=False):
        dashed = _panel(ax, comparison, i) or dashed
    if dashed is not None:
        kind = "points" if comparison.runs[0].of_points else "images"
        figure.legend([dashed], [f"real {kind}"], loc="outside lower center", frameon=False)
    stream = io.BytesIO()
    figure.savefig(stream, dpi=130, format="png")
    return stream.getvalue()


def _panel(ax: Any, comparison: Comparison, i: int) -> Any:
    """Draw column ``i``; the line of real samples, None where they have no such figure."""
    column, real = comparison.columns[i], comparison.real[i]
    cells = [row.cells[i] for row in comparison.rows]
    ends = [0.0 if cell is None else cell.mean + (cell.std or 0.0) for cell in cells]
    furthest = max([*ends, real or 0.0])
    for y, (row, cell) in enumerate(zip(comparison.rows, cells, strict=True)):
        if cell is not None:
            colour = _COLOURS(paper_order(row.method))
            ax.barh(y, cell.mean, xerr=cell.std, height=0.62, color=colour, capsize=3)
        ax.text(
            ends[y] + 0.03 * furthest,
            y,
            f"{cell.mean:.{column.metric.digits}f}" if cell else "not judged" if column.judge else "none",
            va="center",
            size=8,
            color="0.25" if cell else "0.6",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8},
            zorder=5,  # above the line of real samples
        )
    ax.set_xlim(0, 1.35 * furthest or 1.0)
    ax.set_yticks(range(len(cells)), [textwrap.fill(row.label, 26) for row in comparison.rows], size=9)
    ax.set_ylim(len(cells) - 0.4, -0.6)
    title, *details = heading(column, comparison)
    ax.set_title(title + "\n", size=10)
    ax.text(0.5, 1.02, ", ".join(details), transform=ax.transAxes, ha="center", size=7, color="0.4")
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(axis="x", labelsize=8)
    return None if real is None else ax.axvline(real, linestyle="--", color="0.2", linewidth=1)
