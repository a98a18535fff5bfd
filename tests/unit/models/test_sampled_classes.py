"""L_cls over a few classes: unbiased, exact where all are drawn, and one draw for all processes."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from dist_dsvae.models import losses
from dist_dsvae.models.sampled_classes import draw_classes, sampled_densities
from tests.unit.methods.making import NUM_CLASSES, SHAPES, make_batch, make_method, noise_for
from tests.unit.models.test_mixture_prior import LargestTensor, brute_force, make


def position(number: int) -> torch.Tensor:
    return torch.tensor(number)


def test_classes_are_drawn_by_position_alone_and_without_replacement() -> None:
    draws = torch.stack([draw_classes(3, position(p), 10, 4) for p in range(4000)])
    assert draws.sort(dim=1).values.diff(dim=1).min() > 0
    assert torch.equal(draws[17], draw_classes(3, position(17), 10, 4))
    assert not torch.equal(draws[17], draw_classes(4, position(17), 10, 4))
    counts = torch.bincount(draws.flatten(), minlength=10).double()  # 1,600 each, sd 31
    assert ((counts - 1600).abs() < 5 * 31).all()
    at_the_end = torch.bincount(draws[:, -1], minlength=10).double()  # 400 each, sd 19
    assert ((at_the_end - 400).abs() < 5 * 19).all()


def test_logits_are_those_of_plain_arithmetic() -> None:
    """Own class first; the others with the correction; the own, or the last, of the draw left out."""
    prior = make(20, 8).double()
    zs, labels = torch.randn(3, 8, dtype=torch.float64), torch.tensor([7, 2, 19])
    drawn = torch.tensor([4, 7, 11, 2])  # the own class of the first two samples is in it
    logits, own = sampled_densities(prior, zs, labels, drawn)
    every, correction = brute_force(prior, zs), math.log(19 / 3)
    assert torch.equal(own.mean, prior.mean[labels])
    for row, expected, label in zip(logits, every, labels.tolist(), strict=True):
        torch.testing.assert_close(row[0], expected[label])
        others = [c for c in drawn.tolist() if c != label][:3]
        torch.testing.assert_close(row[1:][row[1:] > -torch.inf], expected[others] + correction)


def test_the_denominator_is_unbiased() -> None:
    """The mean over every possible draw, computed in full."""
    prior = make(5, 3).double()
    zs, labels = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 1, 4, 4])
    totals = [
        sampled_densities(prior, zs, labels, torch.tensor(drawn)).logits.exp().sum(1)
        for drawn in itertools.permutations(range(5), 3)
    ]
    torch.testing.assert_close(torch.stack(totals).mean(0), brute_force(prior, zs).exp().sum(1))


def test_all_the_others_are_the_exact_loss() -> None:
    prior = make(6, 4).double()
    zs = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 5, 5])
    logits, _ = sampled_densities(prior, zs, labels, torch.randperm(6))
    got = losses.gm(logits, torch.zeros_like(labels), 0.1)
    expected = losses.gm(brute_force(prior, zs), labels, 0.1)
    torch.testing.assert_close(got, expected)
    targets = [zs, prior.mean, prior.log_variance]
    for a, b in zip(torch.autograd.grad(got, targets), torch.autograd.grad(expected, targets), strict=True):
        torch.testing.assert_close(a, b)


def test_only_classes_that_are_compared_learn_and_no_other_is_computed() -> None:
    prior = make(5000, 16)
    zs, labels = torch.randn(8, 16, requires_grad=True), torch.arange(8) * 11
    drawn = draw_classes(0, position(0), 5000, 21)
    with LargestTensor() as largest:
        logits, _ = sampled_densities(prior, zs, labels, drawn)
    assert logits.shape == (8, 22)
    assert largest.numel <= 2 * 29 * 16
    losses.gm(logits, torch.zeros_like(labels), 0.1).backward()
    compared = set(drawn.tolist()) | set(labels.tolist())
    for parameter in (prior.mean, prior.log_variance):
        assert set(parameter.grad.abs().sum(1).nonzero()[:, 0].tolist()) <= compared
        assert parameter.grad[labels].abs().sum(1).min() > 0
    assert torch.isfinite(zs.grad).all()


@pytest.mark.parametrize("others", [NUM_CLASSES - 1, NUM_CLASSES, 10**6])
def test_no_fewer_classes_than_there_are_is_the_exact_loss_bit_for_bit(others: int) -> None:
    batch = make_batch(SHAPES["mlp2d"])
    exact = make_method("mlp2d")(batch, noise_for(batch), "gm")["gm"]
    assert torch.equal(
        make_method("mlp2d", sampled_classes=others)(batch, noise_for(batch), "gm")["gm"], exact
    )


@pytest.mark.parametrize("posterior", ["dirac", "gaussian"])
def test_the_margin_is_the_own_class_s(posterior: str) -> None:
    """With all others drawn but one it still raises the loss, as it does over all classes."""
    batch = make_batch(SHAPES["mlp2d"])
    settings = {"sampled_classes": NUM_CLASSES - 2, "zs_posterior": posterior}
    plain = make_method("mlp2d", **settings)(batch, noise_for(batch), "gm")["gm"]
    margined = make_method("mlp2d", gm_margin=0.5, **settings)(batch, noise_for(batch), "gm")["gm"]
    assert margined > plain


def test_what_a_trained_method_says_of_classes_stays_exact() -> None:
    batch = make_batch(SHAPES["mlp2d"])
    exact, sampled = make_method("mlp2d").eval(), make_method("mlp2d", sampled_classes=2).eval()
    log_posterior = sampled.log_posterior(batch.images)
    assert torch.equal(log_posterior, exact.log_posterior(batch.images))
    torch.testing.assert_close(log_posterior.exp().sum(1), torch.ones(6, dtype=torch.float64))
