"""Decoder: the concatenated codes [B, zs_dim + zu_dim] to an image in [-1, 1] or to a point."""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from dist_dsvae.models.architectures import Architecture, Layer, Residual
from dist_dsvae.models.blocks import (
    ConvBlock,
    LinearBlock,
    ResidualBlock,
    Unflatten,
    UpConv2d,
    UpConvBlock,
    mlp,
)
from dist_dsvae.types import ImageShape


class Decoder(nn.Module):
    """[B, code_dim] -> [B, C, H, W] in [-1, 1] (tanh), or [B, C] for points (linear output)."""

    def __init__(self, architecture: Architecture, shape: ImageShape, code_dim: int) -> None:
        super().__init__()
        widths = (code_dim, *architecture.decoder_hidden)
        if not shape.is_image:
            self.layers = nn.Sequential(mlp(widths), nn.Linear(widths[-1], shape.channels))
            return
        blocks: list[nn.Module] = [LinearBlock(a, b) for a, b in itertools.pairwise(widths)]
        channels = architecture.decoder_channels
        size = round((widths[-1] / channels) ** 0.5)
        blocks.append(Unflatten(channels, size, size))
        for layer in architecture.decoder:
            blocks.append(_decoding(channels, layer))
            channels = layer.channels
        kernel_size = architecture.output_kernel_size
        blocks += [nn.Conv2d(channels, shape.channels, kernel_size, padding=kernel_size // 2), nn.Tanh()]
        self.layers = nn.Sequential(*blocks)

    def forward(self, codes: Tensor) -> Tensor:
        images: Tensor = self.layers(codes)
        return images


def _decoding(in_channels: int, layer: Layer | Residual) -> nn.Module:
    channels, stride = layer.channels, layer.stride
    if isinstance(layer, Layer):
        return UpConvBlock(in_channels, channels, layer.kernel_size, stride)
    last = UpConv2d(channels, channels) if stride == 2 else nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
    main = nn.Sequential(ConvBlock(in_channels, channels, 3), last, nn.BatchNorm2d(channels))
    shortcut = nn.Sequential()
    if in_channels != channels:
        shortcut.append(nn.Conv2d(in_channels, channels, 1, bias=False))
    if stride == 2:
        shortcut.append(nn.Upsample(scale_factor=2))
    return ResidualBlock(main, shortcut, nn.ReLU(inplace=True))
