"""L_cls over a few classes instead of all: the own one and others drawn uniformly, a new draw per batch.

Z = sum_c p(zs | c), the softmax's denominator, is estimated by the own class's density and those of N others,
drawn without replacement from the C - 1 others and each weighted with (C - 1) / N, the inverse of the
probability with which it is drawn:

    Z' = p(zs | y) + (C - 1) / N * sum_{j drawn, j != y} p(zs | j)          E[Z'] = Z;  Z' = Z for N = C - 1

In log space the weight is an addition to the logits of those that are drawn (Bengio and Senecal, "Adaptive
importance sampling to accelerate training of a neural probabilistic language model", 2008; Jean et al., "On
using very large target vocabulary for neural machine translation", ACL 2015, where it is -log Q). Classes
are drawn once for the global batch, by the position of its first sample: every process has the same, so the
loss of a sample does not depend on how many there are, and C densities are never computed.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from dist_dsvae.core.noise import Draw, hash_words
from dist_dsvae.core.types import Gaussian
from dist_dsvae.models.mixture_prior import MixturePrior, gaussian_log_density, log_densities


class SampledDensities(NamedTuple):
    """Logits of the classification over a few classes, and the Gaussians of the labels.

    logits: [B, N + 2]: log p(zs | label), then log p(zs | c) of the classes that were drawn, with the
        correction, and -inf where a class does not count for a sample. Nothing else is in column 0.
    own: mean and log-variance [B, d].
    """

    logits: Tensor
    own: Gaussian


def is_sampled(others: int, num_classes: int) -> bool:
    """Whether ``method.sampled_classes`` asks for fewer than all others; else L_cls compares all classes."""
    return 0 < others < num_classes - 1


def draw_classes(seed: int, position: Tensor, num_classes: int, count: int) -> Tensor:
    """``count`` different classes [count], in random order: a function of (seed, position) alone.

    position: int64, without dimensions. Its shape is fixed and nothing is read on the host.
    """
    key = hash_words(seed, int(Draw.SAMPLED_CLASSES), position)
    every = torch.arange(num_classes, device=position.device)
    return torch.topk(hash_words(key, every), count).indices


def sampled_densities(prior: MixturePrior, zs: Tensor, labels: Tensor, drawn: Tensor) -> SampledDensities:
    """Densities of ``zs`` [B, d] under their own classes and N = len(drawn) - 1 others each.

    drawn: [N + 1], of which a sample leaves out its own class, or the last where its own is not among them:
        so it has N others, which are a uniform draw without replacement whether its own was drawn or not.
    """
    others = len(drawn) - 1
    # One look-up: the gradient of each is a matrix [C, d]
    mean, log_variance = prior.component(torch.cat([drawn, labels]))
    own = Gaussian(mean[len(drawn) :], log_variance[len(drawn) :])
    with torch.autocast(zs.device.type, enabled=False):
        zs = zs.to(mean.dtype)
        own_density = gaussian_log_density(zs, own)
        densities = log_densities(zs, mean[: len(drawn)], log_variance[: len(drawn)])
        left_out = labels[:, None] == drawn
        last = torch.arange(len(drawn), device=drawn.device) == others
        left_out = left_out | (last & ~left_out.any(dim=1, keepdim=True))
        correction = math.log((prior.num_classes - 1) / others)
        corrected = (densities + correction).masked_fill(left_out, -torch.inf)
    return SampledDensities(torch.cat([own_density[:, None], corrected], dim=1), own)
