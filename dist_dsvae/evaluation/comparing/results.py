"""Results that pages quote: NAME.json, figures per seed with whatever one needs to make them again.

format    dist_dsvae-results/1
name, data, data_fingerprint, classes
budget, hardware, note   words; software: versions; commit: of the source; commands: in their order
settings, judges         as evaluations record them
columns   the figures of the table
rows      label, seeds, weights (those that were evaluated, "ema" or "raw"; missing in older files),
          figures: {name: {mean, std (null of one seed), values: {seed: value}}}
          (values are left out where only mean and deviation were kept)
real      figures of real samples
trade_off (may be missing)  columns, points: label, temperature_zs (null without zs), temperature_zu, figures
          as in rows; areas: those between the curves of equal temperatures (``trade_off``)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dist_dsvae.core.text import clause, read_json
from dist_dsvae.evaluation.comparing.comparison import Cell
from dist_dsvae.evaluation.comparing.evaluated import ComparisonError

FORMAT = "dist_dsvae-results/1"
Cells = Mapping[str, Cell]  # by the name of the figure


@dataclass(frozen=True)
class MethodResult:
    """A method, trained with several seeds. weights: "ema" or "raw"; None of an older file."""

    label: str
    seeds: tuple[int, ...]
    cells: Cells
    weights: str | None


@dataclass(frozen=True)
class CurvePoint:
    """A method's runs, sampled at temperatures; temperature_zs: None where the method has no zs."""

    label: str
    temperature_zs: float | None
    temperature_zu: float
    cells: Cells

    @property
    def temperatures_differ(self) -> bool:
        """Whether zs and zu have one each, of their own."""
        return self.temperature_zs not in (None, self.temperature_zu)


@dataclass(frozen=True)
class Results:
    """NAME.json. columns, curve_columns: figures that tables show. document: all that the file says."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[MethodResult, ...]
    real: Mapping[str, float]
    curve_columns: tuple[str, ...]
    curve: tuple[CurvePoint, ...]
    document: Mapping[str, Any]

    @property
    def of_points(self) -> bool:
        """Whether the samples are points in the plane, not images."""
        return "coverage" in self.columns


def read_results(path: Path) -> Results:
    """Raises ComparisonError where the file is missing, or none of this format."""
    try:
        document = read_json(path)
    except OSError as error:
        raise ComparisonError(
            f"{path} cannot be read: {error.strerror}. `dsvae reproduce NAME` makes such a file."
        ) from None
    except ValueError as error:
        raise ComparisonError(f"{path} is not valid JSON: {clause(error)}.") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ComparisonError(f"{path} holds no results: its format is not {FORMAT!r}.")
    try:
        return results_of(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ComparisonError(
            f"{path} is not as `dsvae reproduce` writes it: {error!r}. Make it again with "
            f"`dsvae reproduce {path.stem}`."
        ) from None


def results_of(document: Mapping[str, Any]) -> Results:
    """A document as ``Results``. Raises KeyError, TypeError or ValueError where it is not of the format."""
    curve = document.get("trade_off") or {"columns": [], "points": []}
    return Results(
        name=str(document["name"]),
        columns=tuple(document["columns"]),
        rows=tuple(
            MethodResult(
                str(row["label"]), tuple(map(int, row["seeds"])), _cells(row["figures"]), row.get("weights")
            )
            for row in document["rows"]
        ),
        real={figure: float(value) for figure, value in document["real"].items()},
        curve_columns=tuple(curve["columns"]),
        curve=tuple(
            CurvePoint(
                str(point["label"]),
                None if point["temperature_zs"] is None else float(point["temperature_zs"]),
                float(point["temperature_zu"]),
                _cells(point["figures"]),
            )
            for point in curve["points"]
        ),
        document=document,
    )


def _cells(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, Cell]:
    return {
        figure: Cell(
            float(cell["mean"]),
            None if cell["std"] is None else float(cell["std"]),
            {str(seed): float(value) for seed, value in cell.get("values", {}).items()},
        )
        for figure, cell in figures.items()
    }
