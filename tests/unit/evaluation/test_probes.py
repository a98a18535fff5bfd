"""Probes on codes whose answer is known."""

from __future__ import annotations

import pytest
import torch

from dist_dsvae.evaluation.probes import accuracy, linear_probe_accuracy


def test_accuracy() -> None:
    scores = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    assert accuracy(scores, torch.tensor([1, 0, 0])) == pytest.approx(2 / 3)


def codes(count: int, seed: int, signal: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (count,), generator=generator)
    noise = torch.randn(count, 6, generator=generator)
    noise[:, :4] += signal * torch.nn.functional.one_hot(labels, 4)
    return noise * torch.tensor([1.0, 10, 0.1, 1, 1, 1]) + 5, labels


@pytest.mark.parametrize(("signal", "low", "high"), [(0.0, 0.2, 0.3), (20.0, 0.999, 1.0), (2.0, 0.7, 0.9)])
def test_probe_finds_what_is_there(signal: float, low: float, high: float) -> None:
    train, test = codes(4000, 0, signal), codes(4000, 1, signal)
    assert low <= linear_probe_accuracy(*train, *test, num_classes=4) <= high


def test_probe_is_deterministic() -> None:
    train, test = codes(500, 0, 2.0), codes(500, 1, 2.0)
    first = linear_probe_accuracy(*train, *test, num_classes=4)
    assert first == linear_probe_accuracy(*train, *test, num_classes=4)


def test_a_constant_dimension_is_harmless() -> None:
    train, test = codes(500, 0, 20.0), codes(500, 1, 20.0)
    train[0][:, 5] = test[0][:, 5] = 3.0
    assert linear_probe_accuracy(*train, *test, num_classes=4) > 0.99
