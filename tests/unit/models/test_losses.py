"""Every loss against a closed form."""

from __future__ import annotations

import math

import pytest
import torch

from dist_dsvae.core.types import Gaussian
from dist_dsvae.models import losses

F64 = torch.float64


def test_reconstruction() -> None:
    x, y = torch.zeros(2, 3, 4, 4, dtype=F64), torch.full((2, 3, 4, 4), 0.5, dtype=F64)
    assert losses.reconstruction(x, y) == 0.25


def test_reconstruction_is_taken_in_the_images_precision() -> None:
    x = torch.full((1, 10), 0.001)
    assert losses.reconstruction(x, torch.zeros(1, 10, dtype=torch.bfloat16)).dtype == torch.float32


def test_kl_against_torch_distributions() -> None:
    torch.manual_seed(0)
    mean, log_variance = torch.randn(2, 5, 7, dtype=F64)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(losses.kl_to_standard_normal(Gaussian(mean, log_variance)), expected)
    zero = torch.zeros(2, 3)
    assert losses.kl_to_standard_normal(Gaussian(zero, zero)) == 0


def test_confusion_is_least_at_the_uniform_prediction() -> None:
    assert losses.confusion(torch.zeros(3, 8)).item() == pytest.approx(math.log(8))
    logits = torch.tensor([[2.0, 0.0, -1.0]], dtype=F64)
    expected = -sum(math.log(p) for p in torch.softmax(logits[0], 0).tolist()) / 3
    assert losses.confusion(logits).item() == pytest.approx(expected)
    assert losses.confusion(logits) > math.log(3)


def test_latent_classification() -> None:
    logits = torch.tensor([[1.0, 2.0], [0.5, 0.0]], dtype=F64)
    expected = (math.log(1 + math.exp(1.0)) + math.log(1 + math.exp(-0.5))) / 2
    assert losses.classification(logits, torch.tensor([0, 0])).item() == pytest.approx(expected)


def test_logistic_forms_are_eq_10() -> None:
    s = torch.tensor([0.3, -2.0], dtype=F64)
    d = torch.sigmoid(s)
    torch.testing.assert_close(losses.discriminator(-s, "logistic"), -d.log().mean())
    torch.testing.assert_close(losses.discriminator(s, "logistic"), -(1 - d).log().mean())
    torch.testing.assert_close(losses.generator(s, "logistic"), -d.log().mean())


def test_hinge_forms() -> None:
    s = torch.tensor([0.25, -2.0, 3.0], dtype=F64)
    assert losses.discriminator(-s, "hinge").item() == pytest.approx((0.75 + 3.0 + 0.0) / 3)
    assert losses.discriminator(s, "hinge").item() == pytest.approx((1.25 + 0.0 + 4.0) / 3)
    assert losses.generator(s, "hinge").item() == pytest.approx(-1.25 / 3)


@pytest.mark.parametrize("form", ["logistic", "hinge"])
def test_extreme_scores_stay_finite(form: losses.Adversarial) -> None:
    s = torch.tensor([-1e4, 1e4])
    for loss in (losses.discriminator, losses.generator):
        assert torch.isfinite(loss(s, form))


def test_gm_classification_and_margin() -> None:
    """Two classes at squared distances 1 and 4 with unit variances; margin alpha scales the own one."""
    log_densities = torch.tensor([[-0.5, -2.0]], dtype=F64)
    label, distance = torch.tensor([0]), torch.tensor([1.0], dtype=F64)
    plain = losses.classification(log_densities, label)
    assert plain.item() == pytest.approx(math.log(1 + math.exp(-1.5)))
    margin = losses.classification(losses.with_margin(log_densities, label, distance, 0.4), label)
    assert margin.item() == pytest.approx(math.log(1 + math.exp(-2.0 + 0.5 * 1.4)))
