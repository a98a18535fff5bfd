"""Layers that several networks share: a convolution or linear layer + batch norm + ReLU, residual blocks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dist_dsvae.models.casting import OwnArithmetic
from dist_dsvae.models.norm_statistics import batch_norms


class ConvBlock(nn.Sequential):
    """[B, in, H, W] -> [B, out, H/stride, W/stride]: convolution, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        padding = (kernel_size - 1) // 2
        super().__init__(
            # batch norm subtracts the mean, so a bias before it would never matter
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class UpConvBlock(nn.Sequential):
    """[B, in, H, W] -> [B, out, H*stride, W*stride]: transposed convolution, batch norm, ReLU.

    At stride 1 a transposed convolution is a convolution with the kernel flipped and transposed,
    that is the same family of functions, and the plain one is faster.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int) -> None:
        padding = (kernel_size - 1) // 2
        convolution: nn.Module
        if stride == 1:
            convolution = nn.Conv2d(in_channels, out_channels, kernel_size, 1, padding, bias=False)
        else:
            convolution = nn.ConvTranspose2d(
                in_channels,
                out_channels,
                kernel_size,
                stride,
                padding,
                output_padding=stride - kernel_size + 2 * padding,
                bias=False,
            )
        super().__init__(convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


class UpConv2d(OwnArithmetic, nn.Conv2d):
    """[B, in, H, W] -> [B, out, 2H, 2W]: nearest-neighbour up-sampling, then a 3x3 convolution.

    Each output sees 2x2 different inputs, so the nine weights add up to four: the two are computed as
    one transposed convolution, whose 4x4 kernel is the sum of shifted copies of the 3x3 one. That is
    exact, less than half the arithmetic, and unlike a free 4x4 kernel it cannot paint checkerboards.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        kernel = _smeared(self.weight.flip(2, 3)).transpose(0, 1)
        return F.conv_transpose2d(features, kernel, stride=2, padding=1)


def _smeared(kernel: Tensor) -> Tensor:
    """[out, in, 3, 3] -> [out, in, 4, 4]: the sum of the kernel's four copies inside a 4x4 frame."""
    rows = F.pad(kernel, (0, 0, 0, 1)) + F.pad(kernel, (0, 0, 1, 0))
    return F.pad(rows, (0, 1)) + F.pad(rows, (1, 0))


class ResidualBlock(nn.Module):
    """ReLU(main(x) + shortcut(x)).

    The input is never changed in place: the shortcut and the first convolution's backward need it.
    """

    def __init__(self, main: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.main = main
        self.shortcut = shortcut
        self.activation = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        output: Tensor = self.activation(self.main(features) + self.shortcut(features))
        return output


class LinearBlock(nn.Sequential):
    """[B, in] -> [B, out]: linear layer, batch norm, ReLU."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(
            nn.Linear(in_features, out_features, bias=False),
            nn.BatchNorm1d(out_features),
            nn.ReLU(inplace=True),
        )


def mlp(widths: Sequence[int]) -> nn.Sequential:
    """[B, widths[0]] -> [B, widths[-1]]: linear layers, each followed by a ReLU."""
    layers: list[nn.Module] = []
    for in_features, out_features in itertools.pairwise(widths):
        layers += [nn.Linear(in_features, out_features), nn.ReLU()]
    return nn.Sequential(*layers)


class Unflatten(nn.Module):
    """[B, C*H*W] -> [B, C, H, W] in channels-last memory, which convolutions prefer on CPU and CUDA."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.shape = (channels, height, width)

    def forward(self, features: Tensor) -> Tensor:
        images = features.view(features.shape[0], *self.shape)
        return images.contiguous(memory_format=torch.channels_last)


@contextmanager
def running_statistics_kept(network: nn.Module) -> Iterator[None]:
    """Batch norms inside ``network`` normalise by their batch, but do not move their running statistics."""
    norms = batch_norms(network)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
