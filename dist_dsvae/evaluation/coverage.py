"""How well points [N, 2] of a model cover those of the data, class by class (Figure 2 in numbers)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Points(NamedTuple):
    """places [N, 2] and labels [N]."""

    places: Tensor
    labels: Tensor


def coverage_figures(real: Points, drawn: Points, radius: float) -> dict[str, float]:
    """Figures averaged over the classes that occur in both sets.

    coverage: share of real points with a drawn one of their class within ``radius``.
    precision: share of drawn points with a real one of their class within ``radius``.
    spread_x, spread_y: standard deviation of the drawn points of a class along an axis, as a multiple
        of the real ones'.

    Raises ValueError if no class has two points in both sets.
    """
    rows = []
    for label in torch.unique(real.labels).tolist():
        a, b = (p.places[p.labels == label].double() for p in (real, drawn))
        if min(len(a), len(b)) < 2:
            continue
        near = torch.cdist(a, b) <= radius
        covered, precise = near.any(1).double().mean(), near.any(0).double().mean()
        rows.append(torch.stack([covered, precise, *(b.std(0) / a.std(0))]))
    if not rows:
        raise ValueError(
            "no class has two real and two drawn points, so there is no coverage: draw more samples, or "
            "give a split with more points"
        )
    values = torch.stack(rows).mean(0).tolist()
    return dict(zip(("coverage", "precision", "spread_x", "spread_y"), values, strict=True))
