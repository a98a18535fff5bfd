"""Inception Score against torch-fidelity, and independent of ranks, batches and the order of samples."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dist_dsvae.core.noise import Draw, permutation
from dist_dsvae.evaluation.inception_score import InceptionScore, split_of_positions


def class_ordered_logits(num_samples: int = 1003, num_classes: int = 7) -> Tensor:
    """Fairly sure answers, float32, in the order of the classes."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(num_samples) * num_classes // num_samples
    sure = 4.0 * torch.nn.functional.one_hot(labels, num_classes)
    return sure + torch.randn(num_samples, num_classes, generator=generator)


def added(
    logits: Tensor, positions: Tensor | None = None, batch_size: int = 64, **options: int
) -> InceptionScore:
    score = InceptionScore(logits.shape[1], len(logits), seed=5, **options)
    positions = torch.arange(len(logits)) if positions is None else positions
    for batch in positions.split(batch_size):
        score.add(logits[batch], batch)
    return score


def figures(score: InceptionScore) -> tuple[float, float, float]:
    return score.score, *score.splits


@pytest.mark.parametrize("num_samples", [1000, 1003])
def test_torch_fidelity_agrees(num_samples: int) -> None:
    oracle = pytest.importorskip("torch_fidelity.metric_isc").isc_features_to_metric
    logits = class_ordered_logits(num_samples)
    score = added(logits)
    whole = oracle(logits, splits=1, shuffle=False)
    assert score.score == pytest.approx(whole["inception_score_mean"], abs=1e-9)
    shuffled = logits[permutation(num_samples, 5, Draw.SCORE_SPLIT)]
    ten = oracle(shuffled, splits=10, shuffle=False)
    assert score.splits.mean == pytest.approx(ten["inception_score_mean"], abs=1e-9)
    assert score.splits.std == pytest.approx(ten["inception_score_std"], abs=1e-9)
    unshuffled = oracle(logits, splits=10, shuffle=False)["inception_score_mean"]
    assert unshuffled < 0.6 * score.splits.mean  # what the shuffle is there for


def test_one_split_is_the_whole() -> None:
    score = added(class_ordered_logits(), num_splits=1)
    assert score.splits == (score.score, 0.0)


def test_in_closed_form() -> None:
    sure = 1000.0 * torch.eye(4).repeat(5, 1)  # exp(-1000) is 0 in float64
    assert added(sure).score == pytest.approx(4, rel=1e-12)
    unsure = torch.zeros(20, 4)
    assert figures(added(unsure)) == pytest.approx((1, 1, 0), abs=1e-12)
    one_class = sure[:1].expand(20, 4)
    assert figures(added(one_class)) == pytest.approx((1, 1, 0), abs=1e-12)


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("batch_size", [7, 1003])
def test_ranks_batches_and_order_do_not_matter(world_size: int, batch_size: int) -> None:
    logits = class_ordered_logits()
    order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(1))
    ranks = [InceptionScore(7, len(logits), seed=5) for _ in range(world_size)]
    for number, batch in enumerate(order.split(batch_size)):
        ranks[number % world_size].add(logits[batch], batch)
    for name, total in ranks[0].state().items():  # as an all-reduce does, in the live tensors
        for rank in ranks[1:]:
            total += rank.state()[name]
    assert ranks[0].num_added == len(logits)
    assert figures(ranks[0]) == pytest.approx(figures(added(logits)), rel=1e-12)


def test_a_saved_state_goes_on() -> None:
    logits = class_ordered_logits()
    first, second = InceptionScore(7, 1003, seed=5), InceptionScore(7, 1003, seed=5)
    first.add(logits[:400], torch.arange(400))
    for name, tensor in second.state().items():
        tensor.copy_(first.state()[name])
    second.add(logits[400:], torch.arange(400, 1003))
    assert figures(second) == pytest.approx(figures(added(logits)), rel=1e-12)


def test_class_order_costs_no_score() -> None:
    logits = class_ordered_logits()
    order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(1))
    ordered, shuffled = added(logits), added(logits[order])
    assert ordered.score == pytest.approx(shuffled.score, rel=1e-12)
    assert ordered.splits.mean == pytest.approx(shuffled.splits.mean, rel=0.02)


def test_splits_are_equal_and_depend_on_the_seed() -> None:
    splits = split_of_positions(1003, 10, seed=5)
    assert sorted(splits.bincount().tolist()) == [100] * 7 + [101] * 3
    assert torch.equal(splits, split_of_positions(1003, 10, seed=5))
    assert not torch.equal(splits, split_of_positions(1003, 10, seed=6))


def test_half_precision_logits_are_summed_in_float64() -> None:
    logits = class_ordered_logits().bfloat16()
    assert figures(added(logits)) == pytest.approx(figures(added(logits.double())), rel=1e-12)
    assert {t.dtype for t in added(logits).state().values()} == {torch.float64, torch.int64}


def test_too_few_samples_for_the_splits() -> None:
    with pytest.raises(ValueError, match=r"10 splits needs at least one sample .* there are 9: draw more"):
        InceptionScore(7, 9, seed=0)


def test_unfinished_scores_get_a_sentence() -> None:
    logits = class_ordered_logits()
    score = InceptionScore(7, 1003, seed=5)
    with pytest.raises(ValueError, match="no sample has been added"):
        _ = score.score
    score.add(logits[:1000], torch.arange(1000))
    assert score.score > 1
    with pytest.raises(ValueError, match=r"1000 samples have been added .* made for 1003"):
        _ = score.splits
    score.add(logits[:3], torch.arange(3))  # as many, but not those
    with pytest.raises(ValueError, match="add every position exactly once"):
        _ = score.splits


@pytest.mark.parametrize(
    ("logits", "positions", "message"),
    [
        (torch.zeros(2, 8), torch.arange(2), r"\[2, 8\] .* needs \[batch, 7\]"),
        (torch.zeros(7), torch.arange(7), r"shape \[7\]"),
        (torch.zeros(2, 7), torch.arange(3), r"positions of shape \[3\]"),
        (torch.full((2, 7), math.nan), torch.arange(2), "not all finite"),
        (torch.full((2, 7), math.inf), torch.arange(2), "not all finite"),
        (torch.zeros(2, 7), torch.tensor([0, 1003]), r"from 0 to 1003 are not all in 0\.\.1002"),
        (torch.zeros(2, 7), torch.tensor([-1, 3]), "from -1 to 3"),
    ],
)
def test_wrong_logits_get_a_sentence(logits: Tensor, positions: Tensor, message: str) -> None:
    score = InceptionScore(7, 1003, seed=5)
    with pytest.raises(ValueError, match=message):
        score.add(logits, positions)
    assert score.num_added == 0
