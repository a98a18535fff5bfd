"""Swap codes between pictures: row i, column j shows decoder(zs of picture i, zu of picture j)."""

from __future__ import annotations

import torch
from torch import Tensor

from dist_dsvae.core.types import Codes
from dist_dsvae.methods.abilities import Autoencoding


@torch.no_grad()
def swap_grid(method: Autoencoding, rows: Codes, columns: Codes) -> Tensor:
    """Images [R, K, C, H, W] from R pictures' codes giving zs and K pictures' giving zu.

    zu is its posterior's mean, so that the grid shows codes, not noise.
    """
    zs, zu = rows.zs, columns.zu.mean
    codes = torch.cat([zs.repeat_interleave(len(zu), dim=0), zu.repeat(len(zs), 1)], dim=1)
    images = method.decode(codes, "images")
    return images.view(len(zs), len(zu), *images.shape[1:])
