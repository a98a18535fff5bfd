"""Values that pass between the floors of the package: tensors with names, no behaviour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:  # whoever builds shards needs no torch
    from torch import Tensor

# Where the codes that a decoder is given come from: pictures, by the encoders, or the prior. Their
# distributions differ, and with them what the decoder's batch norms should normalise by.
CodeKind = Literal["images", "prior"]


class Batch(NamedTuple):
    """One rank's slice of a global batch.

    images: [B, C, H, W] float in [-1, 1], or [B, 2] float for point sets.
    labels: [B] int64 in 0..num_classes-1.
    positions: [B] int64, each sample's place in the endless concatenation of epochs.
        Noise, flips and prior labels are functions of it (see ``noise``).
    """

    images: Tensor
    labels: Tensor
    positions: Tensor


class Gaussian(NamedTuple):
    """A diagonal Gaussian; mean and log_variance have one shape, [..., d]."""

    mean: Tensor
    log_variance: Tensor


class Codes(NamedTuple):
    """What an encoder makes of images: zs [B, zs_dim] and the posterior of zu [B, zu_dim].

    Where zs has a Gaussian posterior, too, zs is its mean. In the conditional baselines zs is the one-hot
    label, and zu is z.
    """

    zs: Tensor
    zu: Gaussian


MOST_VALUES = 2**26  # of one sample: larger ones are no pictures for any network here


class ImageShape(NamedTuple):
    """What one sample looks like: an image (channels, height, width) or a point (channels, 0, 0)."""

    channels: int
    height: int
    width: int

    @property
    def is_image(self) -> bool:
        return self.height > 0

    @property
    def is_possible(self) -> bool:
        """Whether it is that of pictures in grey or colour, or of points, within ``MOST_VALUES``."""
        image = self.channels in (1, 3) and min(self.height, self.width) > 0
        point = self.channels > 0 and self.height == self.width == 0
        return (image or point) and self.num_values <= MOST_VALUES

    @property
    def num_pixels(self) -> int:
        """Pixels of an image (height * width), coordinates of a point."""
        return self.height * self.width if self.is_image else self.channels

    @property
    def num_values(self) -> int:
        return self.channels * self.height * self.width if self.is_image else self.channels
