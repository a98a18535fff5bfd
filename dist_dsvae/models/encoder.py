"""Encoders: an image (or point) to a feature vector, and from there to a code or to its Gaussian."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from dist_dsvae.core.types import Gaussian, ImageShape
from dist_dsvae.models.architectures import Architecture, Layer, Residual
from dist_dsvae.models.blocks import ConvBlock, LinearBlock, ResidualBlock, mlp
from dist_dsvae.models.casting import FullPrecisionLinear


class Trunk(nn.Module):
    """[B, C, H, W] (or [B, C] points) -> [B, num_features]: convolutions, pools, fully connected."""

    def __init__(self, architecture: Architecture, shape: ImageShape) -> None:
        super().__init__()
        if not shape.is_image:
            self.layers: nn.Module = mlp((shape.channels, *architecture.encoder_hidden))
            self.num_features = architecture.encoder_hidden[-1]
            return
        layers: list[nn.Module] = []
        channels, size = shape.channels, shape.height
        for i, layer in enumerate(architecture.encoder):
            layers.append(_encoding(channels, layer))
            channels, size = layer.channels, size // layer.stride
            if i in architecture.max_pool_after:
                layers.append(nn.MaxPool2d(2))
                size //= 2
            elif i == architecture.average_pool_after:
                layers.append(nn.AvgPool2d(2))
                size //= 2
        widths = (channels * size * size, *architecture.encoder_hidden)
        blocks = [LinearBlock(a, b) for a, b in itertools.pairwise(widths)]
        self.layers = nn.Sequential(*layers, nn.Flatten(), *blocks)
        self.num_features = widths[-1]

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(images)
        return features


def _encoding(in_channels: int, layer: Layer | Residual) -> nn.Module:
    channels, stride = layer.channels, layer.stride
    if isinstance(layer, Layer):
        return ConvBlock(in_channels, channels, layer.kernel_size, stride)
    main = nn.Sequential(
        ConvBlock(in_channels, channels, 3, stride),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
    )
    shortcut = nn.Sequential()
    if stride == 2:
        shortcut.append(nn.AvgPool2d(2))
    if in_channels != channels:
        shortcut.append(nn.Conv2d(in_channels, channels, 1, bias=False))
    return ResidualBlock(main, shortcut)


class DeterministicEncoder(nn.Module):
    """Images -> codes [B, code_dim], the Dirac posterior of section 3.3: Encoder_s as the paper has it."""

    def __init__(self, architecture: Architecture, shape: ImageShape, code_dim: int) -> None:
        super().__init__()
        self.trunk = Trunk(architecture, shape)
        self.head = FullPrecisionLinear(self.trunk.num_features, code_dim)

    def forward(self, images: Tensor) -> Tensor:
        codes: Tensor = self.head(self.trunk(images))
        return codes


class GaussianEncoder(nn.Module):
    """Images -> the posterior Gaussian of a code, mean and log-variance [B, code_dim] each.

    Encoder_u of the paper; Encoder_s, too, with ``method.zs_posterior`` "gaussian".
    """

    def __init__(self, architecture: Architecture, shape: ImageShape, code_dim: int) -> None:
        super().__init__()
        self.trunk = Trunk(architecture, shape)
        # both heads in one matrix product
        self.head = FullPrecisionLinear(self.trunk.num_features, 2 * code_dim)

    def forward(self, images: Tensor) -> Gaussian:
        mean, log_variance = self.head(self.trunk(images)).chunk(2, dim=1)
        return Gaussian(mean, log_variance)


def sample_gaussian(gaussian: Gaussian, epsilon: Tensor) -> Tensor:
    """mean + sigma * epsilon: the reparametrised sample of Algorithm 1, line 14."""
    return torch.addcmul(gaussian.mean, torch.exp(0.5 * gaussian.log_variance), epsilon)
