"""The choices on which paper and reference differ: each does what its name says."""

from __future__ import annotations

import copy

import pytest
import torch

from dist_dsvae.core.noise import Draw
from dist_dsvae.models import losses
from tests.unit.methods.making import NUM_CLASSES, SHAPES, make_batch, make_method, noise_for, summed

BATCH = make_batch(SHAPES["small32"])


def test_hinge_trains_decoder_and_discriminator_as_plain_autograd_would() -> None:
    method = make_method(adversarial="hinge")
    plain = copy.deepcopy(method)
    terms = method(BATCH, noise_for(BATCH), "joint")
    summed(method, {name: terms[name] for name in ("generator", "discriminator")}).backward()

    noise, y = noise_for(BATCH), BATCH.labels
    posterior = plain.encoder_u(BATCH.images)
    epsilon = noise.normal(Draw.POSTERIOR_ZU, plain.zu_dim)
    zu = posterior.mean + (0.5 * posterior.log_variance).exp() * epsilon
    fake = plain.decoder(torch.cat([plain.encoder_s(BATCH.images), zu], 1))
    prior_fake = plain.decoder(plain.training_prior(y, noise)[1])
    real_score = plain.discriminator(BATCH.images, y)
    plain.discriminator.eval()
    scores = [plain.discriminator(images, y) for images in (fake, prior_fake)]
    generator = -scores[0].mean() - scores[1].mean()
    detached = [plain.discriminator(images.detach(), y) for images in (fake, prior_fake)]
    discriminator = torch.relu(1 - real_score).mean() + sum(torch.relu(1 + s).mean() for s in detached)
    torch.testing.assert_close(terms["generator"], generator)
    torch.testing.assert_close(terms["discriminator"], discriminator)
    for network, loss in (("decoder", generator), ("discriminator", discriminator)):
        parameters = list(plain.get_submodule(network).parameters())
        expected = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        for p, e in zip(method.get_submodule(network).parameters(), expected, strict=True):
            torch.testing.assert_close(p.grad, e, rtol=1e-8, atol=1e-10)


def test_prior_labels() -> None:
    of_batch, *_ = make_method().training_prior(BATCH.labels, noise_for(BATCH))
    assert torch.equal(of_batch, BATCH.labels)
    many = make_batch(SHAPES["mlp2d"], size=500)
    uniform, codes, _ = make_method(prior_labels="uniform").training_prior(many.labels, noise_for(many))
    assert not torch.equal(uniform, many.labels)
    assert torch.bincount(uniform, minlength=NUM_CLASSES).min() > 60
    assert not codes.requires_grad


def test_joint_batch() -> None:
    fresh, last = make_method(gm_updates=3), make_method(gm_updates=3, joint_batch="last")
    assert [step.num_batches for step in fresh.updates] == [3, 1]
    assert [step.num_batches for step in last.updates] == [3, 0]


@pytest.mark.parametrize("term", ["reconstruction", "kl", "confusion", "generator"])
def test_weights_scale_their_term_and_zero_switches_it_off(term: str) -> None:
    usual = make_method().routing[term]
    scaled = make_method(**{f"{term}_weight": 2.5}).routing[term]
    assert scaled == {network: 2.5 * weight for network, weight in usual.items()}
    off = make_method(**{f"{term}_weight": 0.0})
    assert set(off.routing[term].values()) == {0.0}
    summed(off, {term: off(BATCH, noise_for(BATCH), "joint")[term]}).backward()
    assert not any(p.grad is not None and p.grad.any() for p in off.parameters())


def test_logistic_and_hinge_agree_on_who_is_real() -> None:
    good, bad = torch.tensor([3.0]), torch.tensor([-3.0])
    for form in ("logistic", "hinge"):
        assert losses.discriminator(-good, form) < losses.discriminator(-bad, form)
        assert losses.discriminator(bad, form) < losses.discriminator(good, form)
        assert losses.generator(good, form) < losses.generator(bad, form)


@pytest.mark.parametrize("fit", ["gradient", "fixed"])
def test_a_mixture_that_does_not_follow_moments_cannot_be_held_apart(fit: str) -> None:
    with pytest.raises(ValueError, match=f'mixture_separation is 2, but method.mixture_fit is "{fit}"'):
        make_method(mixture_fit=fit, mixture_separation=2.0)
    with pytest.raises(ValueError, match=r"mixture_pair_separation is 3, .*or mixture_pair_separation to 0"):
        make_method(mixture_fit=fit, mixture_pair_separation=3.0)
    with pytest.raises(ValueError, match=f'mixture_variance is "unit", but method.mixture_fit is "{fit}"'):
        make_method(mixture_fit=fit, mixture_variance="unit")
