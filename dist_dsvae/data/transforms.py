"""From the reader's bytes to the networks' input, on the device, where it is nearly free."""

from __future__ import annotations

import torch
from torch import Tensor

from dist_dsvae.core.noise import Draw, Noise
from dist_dsvae.core.types import Batch
from dist_dsvae.data.stream import HostBatch


def to_batch(
    images: Tensor,
    labels: Tensor,
    positions: Tensor,
    *,
    flips: Noise | None,
    dtype: torch.dtype = torch.float32,
) -> Batch:
    """Scale bytes to [-1, 1] and flip half of the images, where the tensors are.

    uint8 [B, H, W, C] becomes ``dtype`` [B, C, H, W] in channels-last memory, without a copy for it.
    flips: the batch's noise, which tells which images are flipped; None: none are.
    """
    if images.dtype != torch.uint8:
        return Batch(images.to(dtype), labels, positions)
    images = normalise(images.permute(0, 3, 1, 2), dtype)
    if flips is not None:
        flipped = flips.uniform(Draw.FLIP, 1) < 0.5
        images = torch.where(flipped[:, :, None, None], images.flip(3), images)
    return Batch(images, labels, positions)


def to_device_batch(host: HostBatch, device: torch.device, dtype: torch.dtype = torch.float32) -> Batch:
    """A batch of ``one_pass`` on the device, as ``to_batch`` makes it; nothing is flipped."""
    tensors = (t.to(device, non_blocking=True) for t in host[:3])
    return to_batch(*tensors, flips=None, dtype=dtype)


def normalise(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 0..255 -> [-1, 1]."""
    return images.to(dtype).mul_(2.0 / 255.0).sub_(1.0)
