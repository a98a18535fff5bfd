"""The mixture prior against float64 brute force, at the sizes where naive code dies."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dist_dsvae.core.noise import Draw, Noise
from dist_dsvae.core.types import Gaussian
from dist_dsvae.models import losses
from dist_dsvae.models.encoder import sample_gaussian
from dist_dsvae.models.mixture_prior import MixturePrior, gaussian_log_density


def make(num_classes: int, dim: int, spread: float = 0.5, floor: float = -10.0) -> MixturePrior:
    torch.manual_seed(num_classes)
    prior = MixturePrior(num_classes, dim, floor)
    with torch.no_grad():
        prior.log_variance.normal_(0, spread)
    return prior


def brute_force(prior: MixturePrior, zs: torch.Tensor) -> torch.Tensor:
    mean, log_variance = prior.mean.double(), prior.log_variance.double()
    rows = [-0.5 * ((z.double() - mean) ** 2 / log_variance.exp() + log_variance).sum(1) for z in zs]
    return torch.stack(rows)


def gm_loss(prior: MixturePrior, zs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    log_densities = prior.log_densities(zs)
    own = log_densities.gather(1, labels[:, None])
    return losses.classification(log_densities, labels) - 0.1 * own.mean()


def test_derivatives_are_right() -> None:
    """Written-out derivatives against finite differences, in float64, for any gradient from above."""
    prior = make(5, 3).double()
    with torch.no_grad():
        prior.mean.add_(2.0)
    zs = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)

    def densities(zs: torch.Tensor, mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(
            Densities(prior), {"p.mean": mean, "p.log_variance": log_variance}, zs
        )

    assert torch.autograd.gradcheck(densities, (zs, prior.mean, prior.log_variance))


class Densities(torch.nn.Module):
    def __init__(self, prior: MixturePrior) -> None:
        super().__init__()
        self.p = prior

    def forward(self, zs: torch.Tensor) -> torch.Tensor:
        return self.p.log_densities(zs)


@pytest.mark.parametrize(("num_classes", "dim"), [(3, 2), (10, 100), (530, 512), (10_575, 512)])
def test_log_densities_are_exact(num_classes: int, dim: int) -> None:
    prior = make(num_classes, dim)
    zs = prior.mean.detach()[: 4 if num_classes > 4 else 3] + torch.randn(min(4, num_classes), dim)
    got, expected = prior.log_densities(zs).detach(), brute_force(prior, zs).detach()
    # float32 sums of d terms of size 1: a relative error of some 1e-6
    torch.testing.assert_close(got.double(), expected, rtol=3e-6, atol=3e-4)


def test_far_means_do_not_cancel() -> None:
    """Means at 1000 with spread 1: expanding the square about 0 would lose every digit."""
    prior = make(10, 64)
    with torch.no_grad():
        prior.mean.normal_().add_(1000.0)
    zs = 1000.0 + torch.randn(8, 64)
    torch.testing.assert_close(
        prior.log_densities(zs).detach().double(), brute_force(prior, zs).detach(), rtol=1e-4, atol=1e-2
    )


@pytest.mark.parametrize("num_classes", [530, 10_575])
def test_gm_loss_is_alive_at_initialisation(num_classes: int) -> None:
    """d = 512: exponentiated densities underflow for all classes; here every gradient is a real one."""
    torch.manual_seed(0)
    prior = MixturePrior(num_classes, 512, -10.0)
    zs = torch.randn(8, 512, requires_grad=True)
    labels = torch.arange(8) * 60
    loss = gm_loss(prior, zs, labels)
    loss.backward()
    reference = make(num_classes, 512, spread=0.0)
    reference.load_state_dict(prior.state_dict())
    reference.double()
    zs64 = zs.detach().double().requires_grad_()
    gm_loss(reference, zs64, labels).backward()
    assert loss.item() > 0.5 * math.log(num_classes)
    for got, expected in (
        (zs.grad, zs64.grad),
        (prior.mean.grad, reference.mean.grad),
        (prior.log_variance.grad, reference.log_variance.grad),
    ):
        assert got.abs().max() > 1e-4
        torch.testing.assert_close(got.double(), expected, rtol=1e-3, atol=1e-6)


class LargestTensor(TorchDispatchMode):
    """Notes the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for item in out if isinstance(out, tuple | list) else (out,):
            if isinstance(item, torch.Tensor):
                self.numel = max(self.numel, item.numel())
        return out


def test_no_tensor_of_batch_by_classes_by_dimensions() -> None:
    batch, num_classes, dim = 16, 200, 64
    prior = make(num_classes, dim)
    zs = torch.randn(batch, dim, requires_grad=True)
    with LargestTensor() as largest:
        gm_loss(prior, zs, torch.arange(batch)).backward()
    assert largest.numel <= 2 * num_classes * dim  # as mean and log-variance side by side


def test_bf16_autocast_does_not_reach_it() -> None:
    prior, zs = make(530, 512), torch.randn(4, 512)
    with torch.autocast("cpu", torch.bfloat16):
        inside = prior.log_densities(zs)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, prior.log_densities(zs))


def test_log_density_is_the_own_column() -> None:
    prior, labels = make(10, 16), torch.tensor([3, 0, 9])
    zs = torch.randn(3, 16)
    own = prior.log_densities(zs).gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(gaussian_log_density(zs, prior.component(labels)), own)


def test_posterior_sums_to_one() -> None:
    prior = make(10, 16)
    torch.testing.assert_close(prior.log_posterior(torch.randn(5, 16)).exp().sum(1), torch.ones(5))


def test_variance_floor() -> None:
    prior = MixturePrior(2, 3, log_variance_floor=-4.0)
    with torch.no_grad():
        prior.log_variance.fill_(-50.0)
    assert torch.equal(prior.components().log_variance, torch.full((2, 3), -4.0))
    density = gaussian_log_density(prior.mean.detach(), prior.component(torch.tensor([0, 1])))
    torch.testing.assert_close(density, torch.full((2,), 6.0))
    # the likelihood asks for smaller variances: nothing to give
    (-density.sum()).backward()
    assert not prior.log_variance.grad.any()


def test_variances_come_back_from_below_their_floor() -> None:
    prior = MixturePrior(2, 3, log_variance_floor=-3.0)
    with torch.no_grad():
        prior.log_variance.fill_(-3.1)
    optimizer = torch.optim.Adam([prior.log_variance], lr=0.05, betas=(0.0, 0.9))
    labels = torch.tensor([0, 1] * 64)
    zs = prior.mean.detach()[labels] + torch.randn(128, 3, generator=torch.Generator().manual_seed(0))
    for _ in range(400):
        optimizer.zero_grad()
        (-gaussian_log_density(zs, prior.component(labels)).mean()).backward()
        optimizer.step()
    assert (prior.log_variance.detach().abs() < 0.5).all()


def test_samples_have_their_classes_moments() -> None:
    prior = make(4, 3)
    labels = torch.full((40_000,), 2)
    epsilon = Noise(0, torch.arange(40_000)).normal(Draw.PRIOR_ZS, 3)
    z = sample_gaussian(prior.component(labels), epsilon).detach()
    torch.testing.assert_close(z.mean(0), prior.mean[2].detach(), atol=0.03, rtol=0)
    torch.testing.assert_close(z.var(0), prior.log_variance[2].exp().detach(), atol=0, rtol=0.04)


def test_total_moments_against_sampling() -> None:
    """Eq. 11."""
    prior = make(5, 3)
    with torch.no_grad():
        prior.mean.normal_(0, 2)
    n = 200_000
    noise = Noise(1, torch.arange(n))
    of_drawn = prior.component(noise.integers(Draw.PRIOR_LABEL, 5))
    z = sample_gaussian(of_drawn, noise.normal(Draw.PRIOR_ZS, 3)).detach().double()
    total = prior.total_moments()
    assert total.mean.dtype == torch.float64
    std = total.log_variance.exp().sqrt()
    assert ((z.mean(0) - total.mean).abs() < 5 * std / n**0.5).all()
    torch.testing.assert_close(z.var(0), total.log_variance.exp().detach(), rtol=0.02, atol=0)


def certain(zs: torch.Tensor) -> Gaussian:
    return Gaussian(zs, torch.full_like(zs, -torch.inf))


def test_moments_are_those_of_what_was_known_mixed_with_what_is_seen() -> None:
    """Class by class: of a mixture with weights (1 - w) and w, w = 1 - (1 - share of one sample)^n."""
    torch.manual_seed(0)
    prior = MixturePrior(3, 2, -10.0, fit="moments", spread=2.0).double()
    known_mean, known_variance = prior.mean.clone(), prior.log_variance.exp()
    seen = Gaussian(torch.randn(5, 2).double(), torch.randn(5, 2).double())
    labels = torch.tensor([0, 1, 1, 1, 0])
    prior.follow(seen, labels, rate=0.02)
    of_one = 1 - 0.98 ** (3 / 5)
    expected_mean, expected = known_mean.clone(), known_variance.log()
    for c in (0, 1):
        own, spread = seen.mean[labels == c], seen.log_variance[labels == c].exp()
        w = 1 - (1 - of_one) ** len(own)
        mean = (1 - w) * known_mean[c] + w * own.mean(0)
        second = (1 - w) * (known_variance[c] + known_mean[c] ** 2) + w * (spread + own**2).mean(0)
        expected_mean[c], expected[c] = mean, (second - mean**2).log()
    torch.testing.assert_close(prior.mean, expected_mean)
    torch.testing.assert_close(prior.log_variance, expected - expected.mean(dim=0))


def test_unit_variances_stay_and_the_means_move_as_with_others() -> None:
    torch.manual_seed(0)
    followed = MixturePrior(3, 2, -10.0, fit="moments", spread=2.0)
    unit = MixturePrior(3, 2, -10.0, fit="moments", unit_variance=True)
    unit.load_state_dict(followed.state_dict())
    for prior in (followed, unit):
        prior.follow(Gaussian(torch.ones(5, 2), torch.ones(5, 2)), torch.tensor([0, 1, 1, 1, 0]), rate=0.02)
    assert torch.equal(unit.mean, followed.mean)
    assert not unit.log_variance.any()
    assert followed.log_variance.any()


def test_no_sample_moves_a_rare_class_by_more_than_a_part() -> None:
    prior = MixturePrior(10_575, 1, -10.0, fit="moments")
    prior.mean.zero_()
    prior.follow(Gaussian(torch.ones(96, 1), torch.zeros(96, 1)), torch.arange(96), rate=0.01)
    torch.testing.assert_close(prior.mean[:96], torch.full((96, 1), 1 / 32))
    assert not prior.mean[96:].any()


def test_classes_are_held_apart() -> None:
    prior = MixturePrior(4, 3, -10.0, fit="moments", spread=0.1, separation=2.0)
    labels = torch.arange(40) % 4
    prior.follow(Gaussian(prior.mean[labels], torch.zeros(40, 3)), labels, rate=0.01)
    away = (prior.mean - prior.mean.mean(0)).square().mean().sqrt()
    torch.testing.assert_close(away, 2.0 * prior.log_variance.exp().mean().sqrt())


def test_two_classes_that_are_too_near_are_parted_and_the_others_stay() -> None:
    prior = MixturePrior(3, 2, -10.0, fit="moments", pair_separation=4.0)
    prior.mean.copy_(torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 9.0]]))
    prior.log_variance.copy_(torch.log(torch.tensor([[1.0, 2.0], [0.5, 0.5], [1.0, 1.0]])))
    prior.follow(certain(torch.zeros(3, 2)), torch.tensor([0, 1, 2]), rate=0.0)
    deviation = prior.log_variance[:2].exp().mean().sqrt()  # of the pair, root mean square
    torch.testing.assert_close((prior.mean[0] - prior.mean[1]).norm(), 4.0 * deviation)
    torch.testing.assert_close(prior.mean[:2].mean(0), torch.tensor([1.5, 0.0]))
    torch.testing.assert_close(prior.mean[2], torch.tensor([0.0, 9.0]))


@pytest.mark.parametrize(("num_classes", "dim", "spread"), [(10, 16, 0.0), (100, 16, 1.0), (530, 64, 0.5)])
def test_a_crowd_of_classes_comes_as_far_apart_as_asked_and_not_many_times_as_far(
    num_classes: int, dim: int, spread: float
) -> None:
    prior = MixturePrior(num_classes, dim, -10.0, fit="moments", spread=spread, pair_separation=6.0)
    before, centre = torch.pdist(prior.mean), prior.mean.mean(dim=0)
    for _ in range(10):
        old = prior.mean.clone()
        prior.follow(certain(old), torch.arange(num_classes), rate=0.0)
        assert (prior.mean - old).norm(dim=1).max() < 3.0 + 1e-5
    apart = torch.pdist(prior.mean)
    assert before.min() < 5.0
    assert apart.min() > 6.0 - 1e-4
    assert apart.median() < max(1.5 * 6.0, float(1.5 * before.median()))
    torch.testing.assert_close(prior.mean.mean(dim=0), centre, rtol=0.0, atol=1e-4)


def test_means_that_coincide_stay_finite() -> None:
    prior = MixturePrior(3, 2, -10.0, fit="moments", pair_separation=4.0)
    prior.mean.zero_()
    prior.follow(certain(torch.zeros(3, 2)), torch.tensor([0, 1, 2]), rate=0.0)
    assert not prior.mean.any()


def test_pairs_of_too_many_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"10,575 classes.*for 4,096 at most.*mixture_separation"):
        MixturePrior(10_575, 2, -10.0, fit="moments", pair_separation=4.0)


def test_thousands_of_classes_and_one_sample_of_each_leave_the_mixture_finite() -> None:
    prior = MixturePrior(10_575, 4, -10.0, fit="moments", spread=3.0, separation=2.0)
    labels = torch.arange(96)
    # float32 rounds a class's share of the way, 1 - 0.8^110, to 1
    prior.follow(certain(torch.randn(96, 4)), labels, rate=0.2)
    assert torch.isfinite(prior.mean).all()
    assert torch.isfinite(prior.log_variance).all()


def test_a_single_class_has_none_to_be_held_apart_from() -> None:
    prior = MixturePrior(1, 3, -10.0, fit="moments", separation=2.0)
    prior.follow(certain(torch.randn(4, 3)), torch.zeros(4, dtype=torch.int64), rate=1.0)
    assert torch.isfinite(prior.mean).all()
