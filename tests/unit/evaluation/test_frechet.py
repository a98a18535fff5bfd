"""Moments of features and the Frechet distance against torch-fidelity and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dist_dsvae.evaluation.frechet import FeatureMoments, frechet_distance


def features(num_samples: int, num_features: int, seed: int, offset: float = 0.0) -> Tensor:
    """Correlated features of several scales, like a network's: not negative, many of them small."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(num_features, num_features, generator=torch.Generator().manual_seed(99))
    scales = torch.linspace(0.1, 1, num_features)
    noise = torch.randn(num_samples, num_features, generator=generator)
    return (noise @ (mix * scales) / math.sqrt(num_features) + 0.3 * seed).relu() + offset


def moments(values: Tensor, batch_size: int = 100) -> FeatureMoments:
    result = FeatureMoments(values.shape[1])
    for batch in values.split(batch_size):
        result.add(batch)
    return result


def oracle(a: Tensor, b: Tensor) -> float:
    metric = pytest.importorskip("torch_fidelity.metric_fid")
    statistics = [metric.fid_features_to_statistics(values.double()) for values in (a, b)]
    distance: float = metric.fid_statistics_to_metric(*statistics, verbose=False)[
        "frechet_inception_distance"
    ]
    return distance


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_torch_fidelity_agrees(offset: float) -> None:
    a, b = features(1500, 64, 1, offset), features(2000, 64, 2, offset)
    expected = oracle(a, b)
    assert expected > 1
    assert frechet_distance(moments(a), moments(b)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("num_a", "num_b"), [(40, 60), (40, 2000), (2, 2000)])
def test_fewer_samples_than_features(num_a: int, num_b: int) -> None:
    a, b = features(num_a, 128, 1), features(num_b, 128, 2)
    distance = frechet_distance(moments(a), moments(b))
    assert distance == pytest.approx(oracle(a, b), rel=1e-5)
    far = frechet_distance(moments(a.double() + 1000), moments(b.double() + 1000))
    assert far == pytest.approx(distance, rel=1e-6)


def test_in_closed_form() -> None:
    """Covariances that commute: |difference of means|^2 + sum of squared differences of deviations."""
    a = features(500, 1, 1).double()
    signs = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
    deviations = torch.tensor([3.0, 0.5], dtype=torch.float64)
    unit = math.sqrt(4 / 3)  # deviation of the four corners, divisor 3
    distance = frechet_distance(moments(signs), moments(signs * deviations + torch.tensor([1.0, 2.0])))
    assert distance == pytest.approx(5 + (unit * 2) ** 2 + (unit * 0.5) ** 2, rel=1e-12)
    shifted = frechet_distance(moments(a), moments(2 * a + 1))
    assert shifted == pytest.approx(float((a.mean() + 1) ** 2 + a.var()), rel=1e-12)


@pytest.mark.parametrize("num_samples", [20, 1000])
def test_equal_sets_have_no_distance(num_samples: int) -> None:
    a, b = features(num_samples, 64, 1), features(num_samples, 64, 2)
    assert 0 <= frechet_distance(moments(a), moments(a.flip(0), 33)) < 1e-10
    assert frechet_distance(moments(a), moments(b)) == pytest.approx(
        frechet_distance(moments(b), moments(a)), rel=1e-10
    )


def test_features_that_never_vary_are_harmless() -> None:
    a, b = torch.full((50, 4), 0.1), torch.full((60, 4), 0.3)
    assert frechet_distance(moments(a), moments(b)) == pytest.approx(4 * 0.04, rel=1e-6)
    zero = moments(torch.zeros(50, 4))
    assert frechet_distance(zero, zero) == 0
    dead = features(500, 16, 1)
    dead[:, ::2] = 0.1
    assert frechet_distance(moments(dead), moments(b[:, :1].expand(60, 16))) > 0


def test_mean_and_covariance() -> None:
    values = features(300, 16, 1)
    result = moments(values)
    torch.testing.assert_close(result.mean, values.double().mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(result.covariance, values.double().T.cov(), rtol=1e-11, atol=1e-14)
    assert torch.equal(result.covariance, result.covariance.T)


def test_a_large_mean_leaves_the_covariance_its_digits() -> None:
    values = features(3000, 16, 1, offset=1000.0)
    expected = (values.double() - 1000).T.cov()
    # A float64 sum of n terms is off by at most n u times the sum of their magnitudes, whatever the order
    # (u = 2^-53; products of float32 are exact): n u n x^2 in the sum of products, where |values| <= x, twice
    # that in the square of the mean, and 4 more roundings of it. Divided by n - 1:
    n, u, x = len(values), 2.0**-53, float(values.abs().max())
    bound = (3 * n + 4) * u * n * x**2 / (n - 1)
    assert bound < 1e-4 * expected.diagonal().min()
    torch.testing.assert_close(moments(values).covariance, expected, rtol=1e-12, atol=bound)


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("batch_size", [7, 1003])
def test_ranks_batches_and_order_do_not_matter(world_size: int, batch_size: int) -> None:
    values, other = features(1003, 32, 1), moments(features(500, 32, 2))
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(1))
    ranks = [FeatureMoments(32) for _ in range(world_size)]
    for number, batch in enumerate(order.split(batch_size)):
        ranks[number % world_size].add(values[batch])
    for name, total in ranks[0].state().items():  # as an all-reduce does, in the live tensors
        for rank in ranks[1:]:
            total += rank.state()[name]
    whole = moments(values)
    assert int(ranks[0].count) == 1003
    torch.testing.assert_close(ranks[0].mean, whole.mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(ranks[0].sum_outer, whole.sum_outer, rtol=1e-12, atol=0)
    distance = frechet_distance(ranks[0], other)
    assert distance == pytest.approx(frechet_distance(whole, other), rel=1e-12)


def test_half_precision_features_are_summed_in_float64() -> None:
    values = features(300, 8, 1).bfloat16()
    torch.testing.assert_close(moments(values).mean, values.double().mean(0), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.zeros(3, 9), r"shape \[3, 9\]; these moments need \[batch, 8\]"),
        (torch.zeros(8), r"shape \[8\]"),
        (torch.full((3, 8), math.nan), "not all finite"),
    ],
)
def test_wrong_features_get_a_sentence(values: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureMoments(8).add(values)


def test_too_few_samples_get_a_sentence() -> None:
    empty, one = FeatureMoments(8), moments(torch.zeros(1, 8))
    with pytest.raises(ValueError, match=r"mean of features needs at least 1 .* has 0"):
        _ = empty.mean
    with pytest.raises(ValueError, match=r"covariance of features needs at least 2 .* has 1"):
        frechet_distance(one, one)
    with pytest.raises(ValueError, match="8 and 9 features"):
        frechet_distance(one, FeatureMoments(9))
