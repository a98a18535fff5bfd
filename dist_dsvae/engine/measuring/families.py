"""Networks to measure and try out, at the code sizes of their experiments."""

from __future__ import annotations

from typing import NamedTuple

from dist_dsvae.core.types import ImageShape


class Family(NamedTuple):
    """The networks of one experiment at the paper's code sizes."""

    shape: ImageShape
    zs_dim: int
    zu_dim: int


FAMILIES = {
    "vgg64": Family(ImageShape(3, 64, 64), 512, 512),
    "conv32": Family(ImageShape(3, 32, 32), 100, 200),
    "small": Family(ImageShape(1, 32, 32), 16, 12),
    "small32": Family(ImageShape(1, 32, 32), 32, 16),
    "mlp2d": Family(ImageShape(2, 0, 0), 2, 2),
}
