"""Augmentation of what discriminator and encoder_s see, against learning a small data set by heart.

    real images, x'_f, x'_p --colour--> --translation--> --cutout--> discriminator
    images of stage 1 --turn, scale, move--> --half of the colour--> encoder_s

Real and generated pictures are changed alike, so the decoder is never asked to draw changed ones, and the
gradient flows through the changes into the pictures: Zhao et al., "Differentiable Augmentation for
Data-Efficient GAN Training" (NeurIPS 2020), with their three policies and strengths. encoder_s is shown
changed images only where it learns labels: what it tells the decoder is of images as they are.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from dist_dsvae.core.noise import Draw, Noise

NUM_NUMBERS = 7  # per picture: 3 for colour, 2 for translation, 2 for cutout
NUM_POSE_NUMBERS = 7  # per picture: 3 for colour, one each for angle and scale, 2 for translation

# How far ``posed`` goes at most: radians, a share of the size, and of half of each side
_ANGLE, _SCALE, _MOVE = math.radians(10), 0.15, 0.125


class Group(enum.IntEnum):
    """Whose augmentation some pictures take. Values are part of a run's identity: append, never renumber."""

    REAL = 0
    RECONSTRUCTED = 1
    PRIOR = 2


def augmentation(
    setting: str, noise: Noise, groups: Sequence[Group] = tuple(Group)
) -> Callable[[Tensor], Tensor] | None:
    """What ``adversarial.judge`` does to all groups of pictures together, [len(groups) * B, C, H, W].

    setting: of ``method.augmentation``; None unless it is "on" (the trainer resolves "auto").
    groups: in the order in which they are judged. Groups of one kind are augmented alike; kinds are
        augmented independently, each by columns of its own of one draw.
    """
    if setting != "on":
        return None
    numbers = noise.uniform(Draw.AUGMENTATION, len(Group) * NUM_NUMBERS).view(-1, len(Group), NUM_NUMBERS)
    return partial(augmented, numbers=torch.cat([numbers[:, int(group)] for group in groups]))


def augmented(images: Tensor, numbers: Tensor) -> Tensor:
    """All three policies, in the paper's order; row i of the result depends on row i of both arguments alone.

    images: [B, C, H, W] float in [-1, 1]; the result may leave that range. Its dtype and memory format
        stay. numbers: [B, 7], uniform in (0, 1).
    """
    channels_last = images.is_contiguous(memory_format=torch.channels_last)
    # Plane by plane whatever the format: a CPU is three times as slow with 3 channels innermost.
    changed = moved_and_cut(coloured(images.contiguous(), numbers[:, :3]), numbers[:, 3:])
    return changed.contiguous(memory_format=torch.channels_last) if channels_last else changed


def stage_1_images(setting: str, images: Tensor, noise: Noise) -> Tensor:
    """What encoder_s sees of ``images`` [B, C, H, W] where it learns labels: ``posed``, if it is "on"."""
    if setting != "on":
        return images
    return posed(images, noise.uniform(Draw.STAGE_1_AUGMENTATION, NUM_POSE_NUMBERS))


def posed(images: Tensor, numbers: Tensor) -> Tensor:
    """As the same thing might have been photographed again: row i depends on row i of both arguments alone.

    Turned by up to 10 degrees, scaled by up to 15 % and moved by up to 1/16 of the sides (bilinear; the image
    is mirrored at its edges), then recoloured half as much as by ``coloured``.

    images: [B, C, H, W] float in [-1, 1]; the result may leave that range. Its dtype and memory format
        stay. numbers: [B, 7], uniform in (0, 1).
    """
    angle, scale, down, right = (2.0 * numbers[:, 3:].to(images.dtype) - 1.0).unbind(1)
    scale, cosine, sine = 1.0 + _SCALE * scale, torch.cos(_ANGLE * angle), torch.sin(_ANGLE * angle)
    height, width = images.shape[2:]
    # in affine_grid's coordinates both sides go from -1 to 1, so turning needs their ratio
    across = torch.stack([scale * cosine, -scale * sine * (height / width), _MOVE * right], dim=1)
    along = torch.stack([scale * sine * (width / height), scale * cosine, _MOVE * down], dim=1)
    with torch.autocast(images.device.type, enabled=False):  # in bf16 places are off by up to half a pixel
        grid = F.affine_grid(torch.stack([across, along], dim=1), list(images.shape), align_corners=False)
        changed = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    changed = coloured(changed, 0.25 + 0.5 * numbers[:, :3])
    channels_last = images.is_contiguous(memory_format=torch.channels_last)
    return changed.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def coloured(images: Tensor, numbers: Tensor) -> Tensor:
    """Brightness moved by -0.5..0.5, then saturation times 0..2, then contrast times 0.5..1.5.

    Saturation is the distance from a pixel's mean over red, green and blue (one channel has none, a fourth,
    alpha, is not part of it); contrast that from the image's mean. numbers: [B, 3].
    """
    brightness, saturation, contrast = numbers.to(images.dtype)[:, :, None, None, None].unbind(1)
    b, s, c = brightness - 0.5, 2.0 * saturation, contrast + 0.5
    # Multiplied out, as no step changes the means that the later ones look at but by adding b:
    # c (s (x + b) + (1 - s) (grey + b)) + (1 - c) (mean + b)
    offset = (1.0 - c) * images.mean(dim=(1, 2, 3), keepdim=True) + b
    if images.shape[1] < 3:
        return c * images + offset
    grey = images[:, :3].mean(dim=1, keepdim=True)
    changed = (c * s) * images[:, :3] + (c * (1.0 - s) * grey + offset)
    return torch.cat([changed, c * images[:, 3:] + offset], dim=1) if images.shape[1] > 3 else changed


def moved_and_cut(images: Tensor, numbers: Tensor) -> Tensor:
    """Each image moved by up to 1/8 of its sides, then a rectangle of half of them cut out; 0 in both gaps.

    numbers: [B, 4], for the shift down and to the right, in whole pixels, and for row and column of the
        rectangle's centre, which is anywhere in the image.
    One gather does it all: pixels of the gaps come from a pixel of 0 that is put beside the image's own.
    Tried and not faster: advanced indexing, rows and columns one after the other, products with 0/1 matrices.
    """
    batch, channels, height, width = images.shape
    rows, columns = _shifted(numbers[:, 0], height), _shifted(numbers[:, 1], width)
    cut = _is_cut(numbers[:, 2], height)[:, :, None] & _is_cut(numbers[:, 3], width)[:, None, :]
    inside = _is_inside(rows, height)[:, :, None] & _is_inside(columns, width)[:, None, :]
    places = torch.where(inside & ~cut, rows[:, :, None] * width + columns[:, None, :], height * width)
    pixels = F.pad(images.flatten(2), (0, 1))
    taken = pixels.gather(2, places.view(batch, 1, -1).expand(-1, channels, -1))
    return taken.view(batch, channels, height, width)


def _shifted(number: Tensor, side: int) -> Tensor:
    """Where each place along a side is taken from, int64 [B, side]; it may be outside the image."""
    most = side // 8
    shift = (number * (2 * most + 1)).long() - most
    return torch.arange(side, device=number.device) - shift[:, None]


def _is_inside(places: Tensor, side: int) -> Tensor:
    return (places >= 0) & (places < side)


def _is_cut(number: Tensor, side: int) -> Tensor:
    """Whether each place along a side is in the rectangle, bool [B, side]."""
    length = side // 2
    # An even length is centred between two places or at an edge, an odd one on a place.
    first = (number * (side + 1 - length % 2)).long()[:, None] - length // 2
    places = torch.arange(side, device=number.device)
    return (places >= first) & (places < first + length)
