"""Loss terms: pure functions of tensors, each a mean over the batch unless it says otherwise."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from dist_dsvae.core.types import Gaussian

Adversarial = Literal["logistic", "hinge"]


def classification(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy to the labels: L_adv^C of Eq. 4 from the latent classifier's logits [B, C].

    L_cls of Eq. 8 from log p(zs | c): the uniform log p(c) of the mixture's posterior cancels in the softmax.
    """
    return F.cross_entropy(logits, labels)


def gm(
    log_densities: Tensor, labels: Tensor, likelihood_weight: float, *, margined: Tensor | None = None
) -> Tensor:
    """Eq. 9 of a certain zs: ``classification`` and likelihood_weight times -log p(zs | label).

    margined: log-densities with a margin (``with_margin``), for the classification alone.
    """
    log_posterior = torch.log_softmax(log_densities if margined is None else margined, dim=1)
    return F.nll_loss(torch.add(log_posterior, log_densities, alpha=likelihood_weight), labels)


def with_margin(log_densities: Tensor, labels: Tensor, own_distance: Tensor, margin: float) -> Tensor:
    """log p(zs | c) [B, C] with the true class's squared distance scaled by 1 + margin.

    own_distance [B]: sum_d (zs - mean_y)^2 / var_y. The margin is that of Wan et al., "Rethinking
        feature distribution for loss functions in image classification", CVPR 2018.
    """
    return log_densities.scatter_add(1, labels[:, None], (-0.5 * margin * own_distance)[:, None])


def reconstruction(images: Tensor, reconstructed: Tensor) -> Tensor:
    """Mean over batch and values of the squared error (L_rec of Algorithm 1 is num_values / 2 of it)."""
    return F.mse_loss(reconstructed.to(images.dtype), images)


def kl_to_standard_normal(gaussian: Gaussian) -> Tensor:
    """KL(N(mean, var) || N(0, I)) of Eq. 3, averaged over batch and dimensions."""
    divergence: Tensor = _KLToStandardNormal.apply(*gaussian)
    return divergence


class _KLToStandardNormal(torch.autograd.Function):
    """1/2 (m m + (v - 1) - log v), averaged, in half as many operators as autograd's own derivative."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, log_variance: Tensor) -> Tensor:
        excess = torch.expm1(log_variance)
        ctx.save_for_backward(mean, excess)
        return torch.addcmul(excess, mean, mean).sub_(log_variance).mean().mul_(0.5)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        mean, excess = ctx.saved_tensors
        each = gradients[0] / mean.numel()
        return mean * each, (excess * each).mul_(0.5)


def likelihood(zs: Tensor, prior: Gaussian) -> Tensor:
    """-log N(zs; prior) without the constant, averaged over the batch; a gradient for zs [B, d] alone.

    prior: mean and log-variance, [B, d], or [1, d] for all alike.
    """
    loss: Tensor = _Likelihood.apply(zs, *prior)
    return loss


class _Likelihood(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, zs: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        away = zs - mean
        scaled = away * torch.exp(-log_variance)
        ctx.save_for_backward(scaled)
        return torch.addcmul(log_variance, away, scaled).sum().mul_(0.5 / len(zs))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (scaled,) = ctx.saved_tensors
        return scaled * (gradients[0] / len(scaled)), None, None


def code_recovery(gaussian: Gaussian, codes: Tensor) -> Tensor:
    """-log N(codes; mean, var) without the constant, averaged over batch and dimensions."""
    mean, log_variance = gaussian
    return 0.5 * ((codes - mean).square() * torch.exp(-log_variance) + log_variance).mean()


def confusion(logits: Tensor) -> Tensor:
    """L_adv^E of Eq. 5: cross-entropy of the latent classifier to the uniform target."""
    return torch.log_softmax(logits, dim=1).sum() * (-1.0 / logits.numel())


def discriminator(fakeness: Tensor, form: Adversarial) -> Tensor:
    """The discriminator's loss: -log(1 - D(x', y)) of generated images, -log D(x, y) of real ones, or hinges.

    fakeness: a generated image's score, and minus a real one's, [B]. Of [groups, B] it is the groups' sum.
    """
    each = F.softplus(fakeness) if form == "logistic" else F.relu(1.0 + fakeness)
    return each.sum() * (1.0 / fakeness.shape[-1])


def generator(scores: Tensor, form: Adversarial) -> Tensor:
    """L_adv^GD of Algorithm 1, line 24: the non-saturating -log D(x', y), or -score.

    scores: of generated images, [B]. Of [groups, B] it is the groups' sum.
    """
    each = F.logsigmoid(scores) if form == "logistic" else scores
    return each.sum() * (-1.0 / scores.shape[-1])
