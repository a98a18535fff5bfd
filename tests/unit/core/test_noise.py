"""Law 3: noise is a pure function of (seed, draw, position, element)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dist_dsvae.core.noise import Draw, JointNoise, Noise, hash_words, permutation, seed_of, top_bits, uniform


def splitmix64(word: int) -> int:
    """The published finaliser in plain Python integers."""
    mask = 2**64 - 1
    word = (word + 0x9E3779B97F4A7C15) & mask
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & mask
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & mask
    return word ^ (word >> 31)


def test_hash_is_splitmix64_chained() -> None:
    words = torch.tensor([0, 1, -1, 2**62, -(2**63)])
    got = hash_words(7, words)
    for word, value in zip(words.tolist(), got.tolist(), strict=True):
        expected = splitmix64((splitmix64(7) + word) % 2**64)
        assert value % 2**64 == expected


def test_known_values_never_change() -> None:
    """A run's identity: these numbers decide order and noise of every run ever made."""
    assert hash_words(0, 1, torch.arange(3)).tolist() == [
        (splitmix64((splitmix64((splitmix64(0) + 1) % 2**64) + i) % 2**64) + 2**63) % 2**64 - 2**63
        for i in range(3)
    ]
    assert permutation(8, 3, Draw.SHARD_ORDER, 0).tolist() == GOLDEN_PERMUTATION


GOLDEN_PERMUTATION = [4, 0, 2, 5, 1, 6, 7, 3]


def test_samples_of_two_splits_at_one_position_have_nothing_in_common() -> None:
    train, unlabelled = seed_of("train", 5), seed_of("unlabelled", 5)
    assert train == 5
    noises = [Noise(seed, torch.arange(64)).normal(Draw.PRIOR_ZU, 32) for seed in (train, unlabelled)]
    assert (noises[0] == noises[1]).double().mean() < 0.01
    assert torch.corrcoef(torch.stack([noise.flatten() for noise in noises]))[0, 1].abs() < 0.1
    orders = [permutation(64, seed, Draw.SHARD_ORDER, 0) for seed in (train, unlabelled)]
    assert not torch.equal(*orders)


def test_noise_depends_on_position_not_on_batch() -> None:
    whole = Noise(5, torch.arange(100, 116)).normal(Draw.PRIOR_ZU, 33)
    parts = [Noise(5, torch.arange(a, a + 4)).normal(Draw.PRIOR_ZU, 33) for a in range(100, 116, 4)]
    assert torch.equal(whole, torch.cat(parts))
    shuffled = Noise(5, torch.arange(100, 116).flip(0)).normal(Draw.PRIOR_ZU, 33)
    assert torch.equal(whole.flip(0), shuffled)


def test_draws_and_seeds_are_independent() -> None:
    positions = torch.arange(2000)
    a = Noise(0, positions).normal(Draw.PRIOR_ZU, 8).flatten()
    for other in (
        Noise(0, positions).normal(Draw.PRIOR_ZS, 8),
        Noise(1, positions).normal(Draw.PRIOR_ZU, 8),
        Noise(0, positions + 1).normal(Draw.PRIOR_ZU, 8),
    ):
        correlation = torch.corrcoef(torch.stack([a, other.flatten()]))[0, 1].abs()
        assert correlation < 4 / len(a) ** 0.5


def test_normal_is_normal() -> None:
    """Moments and the Kolmogorov-Smirnov distance of a million numbers."""
    x = Noise(1, torch.arange(10_000)).normal(Draw.POSTERIOR_ZU, 100).flatten().double()
    n = len(x)
    assert x.mean().abs() < 4 / n**0.5
    assert (x.var() - 1).abs() < 4 * (2 / n) ** 0.5
    assert (x.pow(4).mean() - 3).abs() < 4 * (96 / n) ** 0.5
    empirical = (torch.arange(n) + 0.5) / n
    distance = (torch.special.ndtr(x.sort().values) - empirical).abs().max()
    assert distance < 1.95 / n**0.5  # the 0.1 % point


def test_uniform_never_reaches_its_ends() -> None:
    bits = torch.tensor([0, -1, 2**63 - 1, -(2**63)])
    values = uniform(top_bits(bits))
    assert ((values > 0) & (values < 1)).all()
    assert torch.isfinite(torch.erfinv(2 * values - 1)).all()


@pytest.mark.parametrize("high", [2, 3, 10, 530])
def test_integers_are_uniform(high: int) -> None:
    labels = Noise(2, torch.arange(50_000)).integers(Draw.PRIOR_LABEL, high)
    counts = torch.bincount(labels, minlength=high).double()
    assert len(counts) == high
    expected = 50_000 / high
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < high + 5 * (2 * high) ** 0.5


def test_permutation_is_one() -> None:
    order = permutation(1000, 1, 2, 3)
    assert np.array_equal(np.sort(order.numpy()), np.arange(1000))
    assert not torch.equal(order, permutation(1000, 1, 2, 4))


def test_float64_run_sees_the_same_noise() -> None:
    positions = torch.arange(64)
    single = Noise(3, positions).normal(Draw.PRIOR_ZS, 16)
    double = Noise(3, positions, torch.float64).normal(Draw.PRIOR_ZS, 16)
    assert double.dtype == torch.float64
    assert torch.equal(single.double(), double)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_made_together_are_those_made_alone(dtype: torch.dtype) -> None:
    """Bit for bit: in the call that learns what is drawn, in later ones, and where a draw is new."""
    joint = JointNoise(dtype)
    seeds = [3, 3, -(2**40)]
    for call in range(4):
        first = 10**10 + 288 * call
        positions = torch.stack([torch.arange(96) + first + 96 * number for number in range(3)])
        noises = joint(seeds, positions)
        for number, (seed, own, noise) in enumerate(zip(seeds, positions, noises, strict=True)):
            alone = Noise(seed, own, dtype)
            for size in (1, 33, 100)[: number + 1] if call < 2 else (1, 7):
                for draw in (Draw.PRIOR_ZS, Draw.PRIOR_ZU):
                    assert torch.equal(noise.normal(draw, size), alone.normal(draw, size))
                assert torch.equal(noise.uniform(Draw.FLIP, size), alone.uniform(Draw.FLIP, size))
            labels = noise.integers(Draw.PRIOR_LABEL, 530)
            assert torch.equal(labels, alone.integers(Draw.PRIOR_LABEL, 530))


def test_other_batch_sizes_and_seeds_are_not_mixed_up() -> None:
    joint = JointNoise()
    for seed, size in ((0, 8), (0, 8), (0, 4), (5, 4), (5, 8)):
        (noise,) = joint([seed], torch.arange(size)[None])
        alone = Noise(seed, torch.arange(size))
        assert torch.equal(noise.normal(Draw.PRIOR_ZU, 3), alone.normal(Draw.PRIOR_ZU, 3))


def test_known_normal_numbers_never_change() -> None:
    """The bits of numbers that runs were trained with."""
    numbers = Noise(7, torch.tensor([0, 123_456_789])).normal(Draw.PRIOR_ZU, 2)
    assert numbers.view(torch.int32).tolist() == GOLDEN_NORMALS


GOLDEN_NORMALS = [[1076264358, 1069697461], [1048445373, -1089138803]]
