"""Projection discriminator with spectral normalisation (Tables 3 and 4; Miyato and Koyama, 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from dist_dsvae.models.architectures import Architecture
from dist_dsvae.models.blocks import full_precision
from dist_dsvae.types import ImageShape

_LEAK = 0.1


class Discriminator(nn.Module):
    """(images, labels [B]) -> scores [B]; higher means more real.

    score = linear(h) + <embed(y), h>, with h [B, hidden] the activated output of the first fully
    connected part. Leaky ReLU 0.1, no batch norm, spectral norm on every weight, the label
    embedding's too. One forward takes one power iteration, however many images it is given.
    """

    def __init__(self, architecture: Architecture, shape: ImageShape, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        features = shape.channels
        if shape.is_image:
            channels, size = shape.channels, shape.height
            for layer in architecture.discriminator:
                padding = (layer.kernel_size - 1) // 2
                convolution = nn.Conv2d(channels, layer.channels, layer.kernel_size, layer.stride, padding)
                layers += [spectral_norm(convolution), nn.LeakyReLU(_LEAK, inplace=True)]
                channels, size = layer.channels, size // layer.stride
            if architecture.discriminator_pools:
                layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
                features = channels
            else:
                layers.append(nn.Flatten())
                features = channels * size * size
        for width in architecture.discriminator_hidden:
            layers += [spectral_norm(nn.Linear(features, width)), nn.LeakyReLU(_LEAK, inplace=True)]
            features = width
        self.layers = nn.Sequential(*layers)
        self.head = spectral_norm(nn.Linear(features, 1))
        self.embedding = spectral_norm(nn.Embedding(num_classes, features))
        self._normalised = [m for m in self.modules() if parametrize.is_parametrized(m)]

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.scores_and_features(images, labels)[0]

    def scores_and_features(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Scores [B] and h [B, hidden]."""
        with parametrize.cached():
            # The singular values are estimated in full precision, once, before autocast sees them.
            with torch.autocast(images.device.type, enabled=False):
                for layer in self._normalised:
                    _ = layer.weight
            hidden = self.layers(images)
            linear = full_precision(self.head, hidden)[:, 0]
            embedded = self.embedding(labels)
            scores: Tensor = linear + (embedded * hidden.to(embedded.dtype)).sum(dim=1)
            return scores, hidden
