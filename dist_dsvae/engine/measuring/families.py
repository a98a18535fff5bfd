"""Networks to measure and try out, at the code sizes of their experiments."""

from __future__ import annotations

from typing import Any, NamedTuple

from dist_dsvae.config import ModelConfig
from dist_dsvae.core.types import ImageShape


class Family(NamedTuple):
    """The networks of one experiment at the paper's code sizes."""

    shape: ImageShape
    zs_dim: int
    zu_dim: int


FAMILIES: dict[str, Family] = {
    "vgg": Family(ImageShape(3, 128, 128), 512, 512),
    "vgg64": Family(ImageShape(3, 64, 64), 512, 512),
    "conv32": Family(ImageShape(3, 32, 32), 100, 200),
    "small": Family(ImageShape(1, 32, 32), 16, 12),
    "small32": Family(ImageShape(1, 32, 32), 32, 16),
    "mlp2d": Family(ImageShape(2, 0, 0), 2, 2),
}


def model_of(architecture: str) -> ModelConfig:
    """The section ``model`` of one of ``FAMILIES``."""
    _, zs_dim, zu_dim = FAMILIES[architecture]
    name: Any = architecture
    return ModelConfig(architecture=name, zs_dim=zs_dim, zu_dim=zu_dim)
