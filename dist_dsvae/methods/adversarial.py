"""The adversarial game that methods share: one discriminator pass judges all pictures and learns.

pictures, labels --discriminator--> scores --+--> discriminator term, into its parameters
                                             +--> generator term, into the pictures
                                 features ------> matching terms, into the pictures
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dist_dsvae.core.noise import Draw, Noise
from dist_dsvae.methods.routing import Route, shared_pass
from dist_dsvae.models import losses
from dist_dsvae.models.casting import in_half
from dist_dsvae.models.discriminator import Discriminator
from dist_dsvae.models.losses import Adversarial


class Judgement(NamedTuple):
    """One row per group of pictures.

    learning: scores [groups, B]; their gradient goes into the discriminator's parameters alone.
    judging: scores [groups, B]; their gradient goes into the pictures alone.
    features: [groups, B, hidden], gradient into the pictures alone; None if not asked for.
    """

    learning: Tensor
    judging: Tensor
    features: Tensor | None


def judge(
    discriminator: Discriminator,
    images: Sequence[Tensor],
    labels: Sequence[Tensor] | None,
    form: Adversarial,
    *,
    with_features: bool = False,
    augment: Callable[[Tensor], Tensor] | None = None,
) -> Judgement:
    """Judge groups of pictures, each [B, C, H, W] with labels [B], in one pass: there is no batch norm.

    labels: None judges without, by what all classes have in common; there are no features then.
    augment: what is done to all groups together before (``augmentation``); gradients flow back through it.
    """
    # in the type of the first layer, unless something is done in full precision before
    together = torch.cat([in_half(p) for p in images] if augment is None else list(images))
    if augment is not None:
        together = augment(together)
    if labels is None:
        network, inputs = discriminator.without_labels(), [together]
    else:
        network = _ScoresAndFeatures(discriminator) if with_features else discriminator
        inputs = [together, torch.cat(list(labels))]
    # One number per row allows one backward pass for both routes, but the hinge's gradient is exactly
    # 0 at most scores, and fp16's range is too small for the ratio of two losses' gradients.
    rowwise = form == "logistic" and not with_features and not _is_half(together)
    routes = [Route.PARAMETERS, Route.INPUTS]
    learning, judging = shared_pass(network, inputs, routes, rowwise=rowwise)
    learning, judging = (scores.view(len(images), -1, *scores.shape[1:]) for scores in (learning, judging))
    if not with_features:
        return Judgement(learning, judging, None)
    return Judgement(learning[:, :, 0], judging[:, :, 0], judging[:, :, 1:])


class _ScoresAndFeatures(nn.Module):
    """(images, labels) -> [B, 1 + hidden]: the score, and what it is computed from."""

    def __init__(self, discriminator: Discriminator) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        scores, features = self.discriminator.scores_and_features(images, labels)
        return torch.cat([scores[:, None], features.to(scores.dtype)], dim=1)


def discriminator_term(learning: Tensor, form: Adversarial) -> Tensor:
    """L_adv^D of Algorithm 1, line 23: the losses of real images (row 0) and of fakes, added up."""
    real, *fakes = learning.unbind()
    return losses.discriminator(torch.stack([-real, *fakes]), form)


def prior_labels(setting: str, labels: Tensor, noise: Noise, num_classes: int) -> Tensor:
    """Labels [B] of the prior samples: the batch's, or uniform ones (``config.DSVAEConfig``)."""
    return noise.integers(Draw.PRIOR_LABEL, num_classes) if setting == "uniform" else labels


def _is_half(images: Tensor) -> bool:
    device = images.device.type
    return torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
