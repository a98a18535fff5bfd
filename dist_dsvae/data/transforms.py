"""From the reader's bytes to the networks' input, on the device, where it is nearly free."""

from __future__ import annotations

import torch
from torch import Tensor

from dist_dsvae.data.stream import HostBatch
from dist_dsvae.noise import Draw, Noise
from dist_dsvae.types import Batch


def to_device_batch(
    host: HostBatch, device: torch.device, *, seed: int, flip: bool, dtype: torch.dtype = torch.float32
) -> Batch:
    """Move a batch to the device, scale bytes to [-1, 1], flip half of the images.

    uint8 [B, H, W, C] becomes ``dtype`` [B, C, H, W] in channels-last memory, without a copy for it.
    Which images are flipped is a function of (seed, position); seed is not used where flip is off.
    """
    images, labels, positions = (t.to(device, non_blocking=True) for t in host[:3])
    if images.dtype != torch.uint8:
        return Batch(images.to(dtype), labels, positions)
    images = normalise(images.permute(0, 3, 1, 2), dtype)
    if flip:
        flipped = Noise(seed, positions).uniform(Draw.FLIP, 1) < 0.5
        images = torch.where(flipped[:, :, None, None], images.flip(3), images)
    return Batch(images, labels, positions)


def normalise(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 0..255 -> [-1, 1]."""
    return images.to(dtype).mul_(2.0 / 255.0).sub_(1.0)
