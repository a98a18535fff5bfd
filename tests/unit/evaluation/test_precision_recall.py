"""Improved precision and recall against torch-fidelity and against sets whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dist_dsvae.evaluation import precision_recall as module
from dist_dsvae.evaluation.precision_recall import (
    Coverage,
    PrecisionRecall,
    covered,
    k_nearest_distance,
    share,
    squared_distances,
)


def precision_recall(real: Tensor, generated: Tensor, k: int = 3) -> PrecisionRecall:
    """Both figures from real [N, d] and generated [M, d] features."""
    precision, recall = Coverage(real.device), Coverage(real.device)
    precision.add(generated, real, k_nearest_distance(real, k))
    recall.add(real, generated, k_nearest_distance(generated, k))
    return PrecisionRecall(precision.fraction, recall.fraction)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 13)
    monkeypatch.setattr(module, "COLUMNS", 29)


def points(num_points: int, seed: int, spread: float = 1.0, num_features: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(num_points, num_features, generator=generator)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.usefixtures("small_blocks")
def test_torch_fidelity_agrees(k: int) -> None:
    oracle = pytest.importorskip("torch_fidelity.metric_prc").calculate_precision_recall_full
    real, generated = points(300, 0), points(250, 1, spread=0.8)
    # its order is generated, real; in float64, or its own distances are rounded
    expected = oracle(generated.double(), real.double(), neighborhood=k)
    assert precision_recall(real, generated, k) == pytest.approx(expected, abs=1e-6)
    assert 0.2 < expected[1] < expected[0] < 1  # neither nothing nor everything


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_distances_are_accurate(offset: float) -> None:
    values = points(100, 0) + offset
    expected = torch.cdist(values.double(), values.double(), compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(squared_distances(values, values).sqrt(), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(k_nearest_distance(values, 3), expected.kthvalue(4).values, rtol=1e-9, atol=0)


def test_known_sets() -> None:
    left, right = points(200, 0), points(200, 1) + 50
    both = torch.cat([left, right])
    assert precision_recall(left, left) == (1, 1)
    assert precision_recall(left, right) == (0, 0)
    assert precision_recall(both, points(200, 2, spread=0.5)).precision > 0.95
    assert precision_recall(both, points(200, 2)).recall < 0.5  # nothing of the right half
    collapsed = left[:1].expand(50, -1)
    assert precision_recall(left, collapsed) == (1, 1 / 200)  # balls of radius 0 around one real image


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("copies", [4, 40])
def test_copies_are_at_distance_zero_in_any_block(copies: int) -> None:
    values = points(30, 0, num_features=300).repeat(copies, 1)
    assert k_nearest_distance(values, 3).tolist() == [0.0] * len(values)
    assert covered(values[:30], values, torch.zeros(len(values))).all()


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("world_size", [1, 3, 7])
def test_the_shares_of_all_ranks_add_up(world_size: int) -> None:
    real, generated = points(101, 0), points(80, 1, spread=0.8)
    ranks = range(world_size)
    radii = torch.cat([k_nearest_distance(real, rows=share(101, rank, world_size)) for rank in ranks])
    torch.testing.assert_close(radii, k_nearest_distance(real), rtol=1e-12, atol=0)
    counts = [Coverage() for _ in ranks]
    for rank in ranks:
        for rows in generated[share(80, rank, world_size)].split(9):
            counts[rank].add(rows, real, radii)
    for name, total in counts[0].state().items():  # as an all-reduce does, in the live tensors
        for other in counts[1:]:
            total += other.state()[name]
    assert int(counts[0].count) == 80
    assert counts[0].fraction == precision_recall(real, generated).precision


@pytest.mark.parametrize("world_size", [1, 3, 200])
def test_every_row_is_in_one_share(world_size: int) -> None:
    rows = [row for rank in range(world_size) for row in range(101)[share(101, rank, world_size)]]
    assert rows == list(range(101))
    assert k_nearest_distance(points(5, 0), rows=slice(2, 2)).shape == (0,)


def test_too_few_features_get_a_sentence() -> None:
    assert k_nearest_distance(points(4, 0), 3).isfinite().all()
    with pytest.raises(ValueError, match=r"3-th nearest neighbour needs at least 4 .* there are 3 features"):
        precision_recall(points(100, 0), points(3, 1))
    with pytest.raises(ValueError, match="k of at least 1"):
        k_nearest_distance(points(100, 0), 0)
    with pytest.raises(ValueError, match="no point has been added"):
        _ = Coverage().fraction


@pytest.mark.parametrize(
    ("real", "generated", "message"),
    [
        (points(9, 0), points(9, 0, num_features=8), r"points \[9, 8\], centres \[9, 16\] .* do not fit"),
        (points(9, 0), torch.zeros(9), r"shape \[9\]"),
        (torch.full((9, 16), math.nan), points(9, 0), "not all finite"),
        (points(9, 0), torch.full((9, 16), math.inf), "not all finite"),
    ],
)
def test_wrong_features_get_a_sentence(real: Tensor, generated: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        precision_recall(real, generated)
