"""Moments of the global batch inside loss terms: a term does not depend on the number of processes.

A moment over all processes is a mean of the processes' own moments. Each process differentiates its
own rows alone: a term F of global moments is replaced by

    F(global) + F'(global) * (own moments - own moments, detached)

whose value is F on every process, and whose gradients, averaged over the processes as every gradient
is, are those of one process that holds all rows. All processes hold equally many rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dist_dsvae.core import distributed


def mean_feature(real: Tensor, fake: Tensor) -> Tensor:
    """Mean over units of the squared difference of two sets' mean features, [B, hidden] each."""
    own = real.mean(dim=0) - fake.mean(dim=0)
    everyone = distributed.all_gather(own.detach()).mean(dim=0)
    return (2.0 * everyone * own - everyone.square()).mean()


def aggregate_divergence(codes: Tensor) -> Tensor:
    """KL(N(m, v) || N(0, 1)) of the codes' mean m and variance v by dimension, averaged over them: [B, d].

    Where the divergence of every single posterior is weak, it leaves their aggregate off N(0, I), and
    samples of the prior are codes that the decoder has seldom seen. This holds the aggregate alone.
    """
    own_variance, own_mean = torch.var_mean(codes, dim=0, correction=0)
    with torch.no_grad():
        mean, variance = distributed.global_moments(own_mean, own_variance)
        variance = variance.clamp_min(_LEAST_VARIANCE)
        value = 0.5 * (mean.square() + variance - 1.0 - torch.log(variance))
        by_variance = 0.5 * (1.0 - 1.0 / variance)
    around = (codes - mean).square().mean(dim=0)  # its derivative is the global variance's
    own = mean * own_mean + by_variance * around
    return (value + own - own.detach()).mean()


_LEAST_VARIANCE = 1e-6


def all_rows(rows: Tensor) -> Tensor:
    """The rows of all processes, [B, ...] -> [world size * B, ...], without a gradient."""
    return distributed.all_gather(rows.detach()).flatten(0, 1)
