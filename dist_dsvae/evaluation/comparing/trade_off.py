"""Scores against diversity, over the temperatures of the prior: curves, the area between two, and a picture.

One point per method hides what it could trade: cooler samples are taken for their class more often, and
are more alike. A method's curve connects the points at which all of its codes have one temperature, each the
mean over seeds, in the order of diversity. A pair of temperatures of zs and zu is a point beside the curve:
pairs are no sequence, and one among the others would bend the curve by where it happens to lie.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from dist_dsvae.evaluation.comparing.results import CurvePoint, Results
from dist_dsvae.evaluation.comparing.results_tables import metric_shown, temperature_text

SCORES = ("inception_score", "fid")
_COLOURS = matplotlib.colormaps["tab10"]
_NEAR = 2.0  # times the range of the first method's and real images' diversity: a curve beyond is not drawn


class Curve(NamedTuple):
    """A method's score against its diversity, in increasing order of diversity (each once)."""

    label: str
    diversity: tuple[float, ...]
    score: tuple[float, ...]


class Area(NamedTuple):
    """Of the curve of one method above that of another one, over the diversities that both have.

    area: signed, in units of score times diversity. mean_difference: of the scores, area / width.
    """

    figure: str
    of: str
    against: str
    diversity: tuple[float, float]
    area: float
    mean_difference: float


def curves(points: Sequence[CurvePoint], figure: str) -> list[Curve]:
    """A curve per method, in the order of ``points``; points of equal diversity are averaged.

    A method sampled at pairs alone has none.
    """
    by_label: dict[str, dict[float, list[float]]] = {}
    for point in points:
        if not point.temperatures_differ and "diversity" in point.cells and figure in point.cells:
            of_method = by_label.setdefault(point.label, {})
            of_method.setdefault(point.cells["diversity"].mean, []).append(point.cells[figure].mean)
    return [
        Curve(label, tuple(sorted(found)), tuple(float(np.mean(found[x])) for x in sorted(found)))
        for label, found in by_label.items()
    ]


def area_between(figure: str, first: Curve, second: Curve) -> Area | None:
    """Of two piecewise linear curves, exactly; None where they have no range of diversity in common."""
    low = max(first.diversity[0], second.diversity[0])
    high = min(first.diversity[-1], second.diversity[-1])
    if not low < high:
        return None
    knots = np.unique([low, high, *(x for x in (*first.diversity, *second.diversity) if low < x < high)])
    difference = np.interp(knots, *first[1:]) - np.interp(knots, *second[1:])
    area = float(np.trapezoid(difference, knots))
    return Area(figure, first.label, second.label, (low, high), area, area / (high - low))


def areas(points: Sequence[CurvePoint]) -> list[Area]:
    """Of the first method against each other one, for each of ``SCORES``."""
    found = []
    for figure in SCORES:
        of_methods = curves(points, figure)
        if of_methods and of_methods[0].label == points[0].label:
            found += [area_between(figure, of_methods[0], other) for other in of_methods[1:]]
    return [area for area in found if area is not None]


def far_away(found: Sequence[Curve], real: float | None) -> list[str]:
    """The methods whose whole curve is so far from the first one's and from ``real`` that nothing else would
    be told apart beside it, as that of a method which draws one picture again and again.
    """
    if not found:
        return []
    places = [*found[0].diversity, *([] if real is None else [real])]
    low, high = min(places), max(places)
    margin = _NEAR * (high - low)
    return [
        curve.label
        for curve in found[1:]
        if margin and (curve.diversity[-1] < low - margin or curve.diversity[0] > high + margin)
    ]


def png(results: Results) -> bytes:
    """A PNG: a panel per score, a curve per method with its temperatures, and a cross for real images.

    Pairs of temperatures are hollow, in the colour of their method. Of methods far away the legend has the
    range of their diversity.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    for ax, score in zip(figure.subplots(1, len(SCORES)), SCORES, strict=True):
        _panel(ax, results, score)
    stream = io.BytesIO()
    figure.savefig(stream, dpi=110, format="png")
    return stream.getvalue()


def _panel(ax: Any, results: Results, score: str) -> None:
    labels = dict.fromkeys(point.label for point in results.curve)
    colours = {label: _COLOURS(number) for number, label in enumerate(labels)}
    found = curves(results.curve, score)
    not_drawn = far_away(found, results.real.get("diversity"))
    for curve in found:
        if curve.label in not_drawn:
            ends = f"{curve.diversity[0]:.2f} to {curve.diversity[-1]:.2f}"
            ax.plot(
                [], [], "o", color=colours[curve.label], label=f"{curve.label}: diversity {ends}, not drawn"
            )
        else:
            ax.plot(curve.diversity, curve.score, "o-", color=colours[curve.label], label=curve.label)
    for point in results.curve:
        if point.label not in not_drawn and "diversity" in point.cells and score in point.cells:
            place = (point.cells["diversity"].mean, point.cells[score].mean)
            if point.temperatures_differ:
                ax.plot(*place, "D", color=colours[point.label], fillstyle="none", markersize=5)
            text = temperature_text(
                point.temperature_zs if point.temperatures_differ else None, point.temperature_zu
            )
            ax.annotate(text, place, xytext=(4, 4), textcoords="offset points", size=7, color="0.35")
    metric = metric_shown(score, of_points=False)
    if "diversity" in results.real:
        if score in results.real:
            place = (results.real["diversity"], results.real[score])
            ax.plot(*place, "x", color="0.2", markersize=9, label="real images")
        else:
            ax.axvline(results.real["diversity"], color="0.2", linestyle="--", label="real images")
    if metric.best == "lowest":  # a method ten times as far away leaves room for the others
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("diversity")
    ax.set_ylabel(f"{metric.title} ({'higher' if metric.best == 'highest' else 'lower'} is better)")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
