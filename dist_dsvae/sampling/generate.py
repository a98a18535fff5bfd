"""Draw samples of classes: codes from the method's prior, images from its decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dist_dsvae.core.noise import Noise
from dist_dsvae.methods.abilities import Generative


def sample_codes(
    method: Generative,
    labels: Tensor,
    *,
    seed: int,
    positions: Tensor | None = None,
    zu_positions: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Codes [N, code_dim] of N samples of classes ``labels`` [N].

    A sample's noise depends on (seed, its position) only. positions [N]: 0..N-1 by default.
    zu_positions [N]: samples with equal entries share their zu; ``positions`` by default.
    """
    if positions is None:
        positions = torch.arange(len(labels), device=labels.device)
    zu_positions = positions if zu_positions is None else zu_positions
    return method.prior_codes(labels, Noise(seed, positions, dtype), Noise(seed, zu_positions, dtype))


@torch.no_grad()
def class_grid(
    method: Generative,
    classes: Sequence[int],
    num_columns: int,
    *,
    seed: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Images [len(classes), num_columns, C, H, W]: a row per class, one zu shared by each column."""
    labels = torch.tensor(classes, device=device).repeat_interleave(num_columns)
    columns = torch.arange(num_columns, device=device).repeat(len(classes))
    images = method.decode(
        sample_codes(method, labels, seed=seed, zu_positions=columns, dtype=dtype), "prior"
    )
    return images.view(len(classes), num_columns, *images.shape[1:])


def spread(num_classes: int, wanted: int) -> list[int]:
    """At most ``wanted`` class ids, spread evenly over 0..num_classes-1."""
    wanted = min(wanted, num_classes)
    return [i * num_classes // wanted for i in range(wanted)]
