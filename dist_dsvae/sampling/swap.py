"""Swap codes between pictures: row i, column j shows decoder(zs of picture i, zu of picture j)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dist_dsvae.sampling.generate import Decode

Encode = Callable[[Tensor], Tensor]


@torch.no_grad()
def swap_grid(encode_s: Encode, encode_u: Encode, decode: Decode, rows: Tensor, columns: Tensor) -> Tensor:
    """Images [R, K, C, H, W] from pictures giving zs (rows [R, C, H, W]) and zu (columns [K, ...]).

    encode_u returns the posterior's mean, so that the grid shows codes, not noise.
    """
    zs, zu = encode_s(rows), encode_u(columns)
    codes = torch.cat([zs.repeat_interleave(len(columns), dim=0), zu.repeat(len(rows), 1)], dim=1)
    images = decode(codes)
    return images.view(len(rows), len(columns), *images.shape[1:])
