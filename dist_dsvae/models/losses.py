"""Loss terms: pure functions of tensors, each a mean over the batch unless it says otherwise."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from dist_dsvae.core.types import Gaussian

Adversarial = Literal["logistic", "hinge"]


def gm_classification(log_densities: Tensor, labels: Tensor) -> Tensor:
    """L_cls of Eq. 8: cross-entropy of the mixture's posterior, from log p(zs | c) [B, C].

    The uniform log p(c) cancels in the softmax.
    """
    return F.cross_entropy(log_densities, labels)


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
    mean, log_variance = gaussian
    return 0.5 * (mean.square() + torch.exp(log_variance) - 1.0 - log_variance).mean()


def code_recovery(gaussian: Gaussian, codes: Tensor) -> Tensor:
    """-log N(codes; mean, var) without the constant, averaged over batch and dimensions."""
    mean, log_variance = gaussian
    return 0.5 * ((codes - mean).square() * torch.exp(-log_variance) + log_variance).mean()


def confusion(logits: Tensor) -> Tensor:
    """L_adv^E of Eq. 5: cross-entropy of the latent classifier to the uniform target."""
    return -torch.log_softmax(logits, dim=1).mean()


def latent_classification(logits: Tensor, labels: Tensor) -> Tensor:
    """L_adv^C of Eq. 4: cross-entropy of the latent classifier to the labels."""
    return F.cross_entropy(logits, labels)


def discriminator(fakeness: Tensor, form: Adversarial) -> Tensor:
    """The discriminator's loss: -log(1 - D(x', y)) of generated images, -log D(x, y) of real ones, or hinges.

    fakeness: a generated image's score, and minus a real one's.
    """
    return F.softplus(fakeness).mean() if form == "logistic" else F.relu(1.0 + fakeness).mean()


def generator(scores: Tensor, form: Adversarial) -> Tensor:
    """The generator's loss: the non-saturating -log D(x', y), or -score."""
    return F.softplus(-scores).mean() if form == "logistic" else -scores.mean()
