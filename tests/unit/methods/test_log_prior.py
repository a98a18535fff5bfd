"""Densities of codes against torch.distributions, in float64."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from dist_dsvae.config import CVAEConfig, CVAEGANConfig, MethodConfig
from dist_dsvae.methods.abilities import PriorDensity
from dist_dsvae.models.mixture_prior import Fit
from tests.unit.methods.making import NUM_CLASSES, make_any, make_method

LABELS = torch.tensor([3, 0, 3])


def draws(dim: int) -> Tensor:
    return torch.randn(3, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("fit", get_args(Fit))
def test_dsvae_knows_a_class_and_the_whole_mixture(fit: Fit) -> None:
    """Whether the mixture's means and variances are parameters or buffers."""
    method = make_method(mixture_fit=fit, zs_posterior="dirac" if fit == "gradient" else "gaussian")
    codes = draws(10).requires_grad_(True)
    zs, zu = codes[:, :6], codes[:, 6:]
    mean, log_variance = (part.detach() for part in method.mixture_prior.components())
    classes = Independent(Normal(mean, torch.exp(0.5 * log_variance)), 1)
    of_zu = Normal(0.0, 1.0).log_prob(zu).sum(1)
    of_class = classes.log_prob(zs[:, None]).gather(1, LABELS[:, None])[:, 0]
    torch.testing.assert_close(method.log_prior(codes, LABELS), of_class + of_zu)

    mixture = MixtureSameFamily(Categorical(torch.ones(NUM_CLASSES).double()), classes)
    expected, found = mixture.log_prob(zs) + of_zu, method.log_prior(codes, None)
    torch.testing.assert_close(found, expected)
    gradients = (torch.autograd.grad(density.sum(), [codes])[0] for density in (found, expected))
    torch.testing.assert_close(*gradients)


def test_far_from_every_class_there_is_still_a_way_back() -> None:
    method = make_method().float()
    codes = torch.full((1, 10), 40.0, requires_grad=True)
    density = method.log_prior(codes, None)
    (gradient,) = torch.autograd.grad(density.sum(), [codes])
    assert torch.isfinite(density).all()
    assert (gradient < -1).all()


@pytest.mark.parametrize("config", [CVAEConfig(), CVAEGANConfig()], ids=lambda value: value.name)
def test_the_prior_of_a_baseline_is_that_of_z(config: MethodConfig) -> None:
    method = make_any(config)
    codes = draws(NUM_CLASSES + 4)
    assert isinstance(method, PriorDensity)
    expected = Normal(0.0, 1.0).log_prob(codes[:, NUM_CLASSES:]).sum(1)
    torch.testing.assert_close(method.log_prior(codes, LABELS), expected)
