"""Draw samples of classes: zs ~ N(mean_c, var_c), zu ~ N(0, I), x' = decoder(zs ++ zu)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dist_dsvae.models.mixture_prior import MixturePrior
from dist_dsvae.noise import Draw, Noise

Decode = Callable[[Tensor], Tensor]


def sample_codes(
    prior: MixturePrior, labels: Tensor, zu_dim: int, *, seed: int, zu_positions: Tensor | None = None
) -> Tensor:
    """Codes [N, zs_dim + zu_dim] of N samples of classes ``labels`` [N].

    Sample i's noise depends on (seed, i) only. zu_positions [N]: samples with equal entries share
    their zu; by default each has its own.
    """
    positions = torch.arange(len(labels), device=labels.device)
    dtype, zs_dim = prior.mean.dtype, prior.mean.shape[1]
    zs = prior.sample(labels, Noise(seed, positions, dtype).normal(Draw.SAMPLE_ZS, zs_dim))
    zu_noise = Noise(seed, positions if zu_positions is None else zu_positions, dtype)
    return torch.cat([zs, zu_noise.normal(Draw.SAMPLE_ZU, zu_dim)], dim=1)


@torch.no_grad()
def class_grid(
    decode: Decode, prior: MixturePrior, classes: Sequence[int], num_columns: int, zu_dim: int, seed: int
) -> Tensor:
    """Images [len(classes), num_columns, C, H, W]: a row per class, one zu shared by each column."""
    device = prior.mean.device
    labels = torch.tensor(classes, device=device).repeat_interleave(num_columns)
    columns = torch.arange(num_columns, device=device).repeat(len(classes))
    images = decode(sample_codes(prior, labels, zu_dim, seed=seed, zu_positions=columns))
    return images.view(len(classes), num_columns, *images.shape[1:])


def spread(num_classes: int, wanted: int) -> list[int]:
    """At most ``wanted`` class ids, spread evenly over 0..num_classes-1."""
    wanted = min(wanted, num_classes)
    return [i * num_classes // wanted for i in range(wanted)]
