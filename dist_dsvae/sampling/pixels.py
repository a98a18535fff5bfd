"""Between the range of the networks, [-1, 1], and the 256 values of a saved picture."""

from __future__ import annotations

import torch
from torch import Tensor


def to_bytes(images: Tensor) -> Tensor:
    """Values in [-1, 1] -> uint8, rounded; what is beyond is clamped."""
    return _rounded(images).to(torch.uint8)


def from_bytes(pixels: Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1]; ``to_bytes`` of them are the same bytes."""
    return _normalised(pixels.float())


def as_saved(images: Tensor) -> Tensor:
    """Values in [-1, 1] -> float32, rounded to those that a saved picture can have.

    What is not a number stays: images of a model that broke must not be scored as black ones.
    """
    return _normalised(_rounded(images))


def _rounded(images: Tensor) -> Tensor:
    return images.float().add(1.0).mul(127.5).round().clamp(0, 255)


def _normalised(values: Tensor) -> Tensor:
    return values.div(127.5).sub(1.0)
