"""Improved precision and recall: shares of images inside the other set, the set taken as a union of balls.

    features -> radius of each: distance to its k-th nearest neighbour in its own set
    precision = share of generated features in the ball of at least one real feature
    recall    = share of real features in the ball of at least one generated feature

(Kynkaanniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", 2019.)

Processes divide the rows: each takes its ``share`` of the radii, whose concatenation is all radii, and adds
its share of the points to a ``Coverage``. Distances are computed block by block through the products of rows,
in float64, where the products of float32 features are exact and the difference |x|^2 - 2 x y + |y|^2 keeps
its digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# Rows and columns of a block of distances: at 2048 features, 180 MiB with all intermediates.
ROWS, COLUMNS = 1024, 4096
# Features this much closer than they are long (squared: 2^-40, about 1e-6 of the length) are the same
# feature: float32 tells no more, and a copy of an image then lies at distance 0 whatever the block.
SAME = 2.0**-40


class PrecisionRecall(NamedTuple):
    """Both in [0, 1]: precision falls with images unlike real ones, recall with real ones never generated."""

    precision: float
    recall: float


def share(num_rows: int, rank: int = 0, world_size: int = 1) -> slice:
    """The rows of one process: contiguous, disjoint, together all, their numbers equal to within one."""
    return slice(rank * num_rows // world_size, (rank + 1) * num_rows // world_size)


def blocks(num_rows: int, size: int) -> Iterator[slice]:
    for start in range(0, num_rows, size):
        yield slice(start, min(start + size, num_rows))


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """[M, d], [N, d] -> [M, N] float64."""
    x, y = x.double(), y.double()
    lengths = x.square().sum(1)[:, None] + y.square().sum(1)
    squares = torch.addmm(lengths, x, y.T, alpha=-2)
    return squares.masked_fill_(squares <= SAME * lengths, 0.0)


@torch.no_grad()
def k_nearest_distance(features: Tensor, k: int = 3, *, rows: slice = slice(None)) -> Tensor:
    """Distance of each of ``rows`` of features [N, d] to its k-th nearest other row: float64 [len(rows)].

    Raises ValueError for fewer than k + 1 features, another shape, or a feature that is not finite.
    """
    _check(features)
    if not 1 <= k < len(features):
        raise ValueError(
            f"a {k}-th nearest neighbour needs at least {k + 1} features and k of at least 1, and there are "
            f"{len(features)} features: draw more samples or choose another k"
        )
    first, stop, _ = rows.indices(len(features))
    found = []
    for part in blocks(max(0, stop - first), ROWS):
        start, size = first + part.start, part.stop - part.start
        nearest = features.new_full((size, k), torch.inf, dtype=torch.float64)
        for columns in blocks(len(features), COLUMNS):
            squares = squared_distances(features[start : start + size], features[columns])
            # the entries of a row with itself: on a diagonal of the block, if they are in it at all
            offset = start - columns.start
            if -size < offset < squares.shape[1]:
                squares.diagonal(offset).fill_(torch.inf)
            nearest = torch.cat([nearest, squares], dim=1).topk(k, largest=False).values
        found.append(nearest.amax(1).sqrt())
    return torch.cat(found) if found else features.new_empty(0, dtype=torch.float64)


@torch.no_grad()
def covered(points: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
    """Whether each of points [M, d] lies in (or on) a ball around centres [N, d] of radii [N]: bool [M].

    Raises ValueError for other shapes or a feature that is not finite.
    """
    _check(points)
    _check(centres)
    if points.shape[1] != centres.shape[1] or radii.shape != centres.shape[:1]:
        raise ValueError(
            f"points {list(points.shape)}, centres {list(centres.shape)} and radii {list(radii.shape)} do "
            f"not fit together: they need shapes [M, d], [N, d] and [N]"
        )
    inside = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    for rows in blocks(len(points), ROWS):
        for columns in blocks(len(centres), COLUMNS):
            distances = squared_distances(points[rows], centres[columns]).sqrt_()
            inside[rows] |= (distances <= radii[columns]).any(1)
    return inside


class Coverage:
    """How many points lie in the balls around other points; add each point once, on any process."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.num_inside = torch.zeros((), dtype=torch.int64, device=device)
        self.count = torch.zeros((), dtype=torch.int64, device=device)

    def add(self, points: Tensor, centres: Tensor, radii: Tensor) -> None:
        """Add points [M, d]; centres [N, d] and their radii [N] are the whole other set. See ``covered``."""
        self.num_inside += covered(points, centres, radii).sum()
        self.count += len(points)

    def state(self) -> dict[str, Tensor]:
        """The live counts, int64: added up over processes, they are the counts of all points."""
        return {"num_inside": self.num_inside, "count": self.count}

    @property
    def fraction(self) -> float:
        """Precision, for generated points among real ones; recall, for real among generated: in [0, 1].

        Raises ValueError if no point has been added.
        """
        if self.count == 0:
            raise ValueError("no point has been added, so there is no share of points that is covered")
        return int(self.num_inside) / int(self.count)


def _check(features: Tensor) -> None:
    if features.ndim != 2:
        raise ValueError(
            f"features have shape {list(features.shape)}; precision and recall need [number, features]"
        )
    if not features.isfinite().all():
        raise ValueError(
            "features are not all finite, so they have no distances: look at the images and at the network "
            "that computes the features"
        )
