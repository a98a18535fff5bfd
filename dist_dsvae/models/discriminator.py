"""The adversaries of decoder and encoder_u: discriminator and latent classifier."""

from __future__ import annotations

from torch import Tensor, nn

from dist_dsvae.core.types import ImageShape
from dist_dsvae.models.architectures import Architecture
from dist_dsvae.models.blocks import mlp
from dist_dsvae.models.casting import FullPrecisionLinear
from dist_dsvae.models.spectral import normalised_together, spectral_norm

_LEAK = 0.1


class Discriminator(nn.Module):
    """(images, labels [B]) -> scores [B]; higher means more real (Tables 3 and 4; Miyato and Koyama, 2018).

    score = gain * (linear(h) + <embed(y), h>), with h [B, hidden] the activated output of the first fully
    connected part. Leaky ReLU 0.1, no batch norm, spectral norm on every weight, the label
    embedding's too. One forward takes one power iteration, however many images it is given.

    gain: multiplies the score. Spectral norm on every weight keeps the score of an image within a few
        tenths of 0, where the logistic loss cannot tell "certainly real" from "perhaps".
    """

    def __init__(
        self, architecture: Architecture, shape: ImageShape, num_classes: int, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.gain = gain
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
        self.head = spectral_norm(FullPrecisionLinear(features, 1))
        self.embedding = spectral_norm(nn.Embedding(num_classes, features))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.scores_and_features(images, labels)[0]

    def scores_and_features(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Scores [B] and h [B, hidden]."""
        with normalised_together(self, images.device.type):
            hidden = self.layers(images)
            embedded = self.embedding(labels)
            wide = hidden.to(embedded.dtype)
            scores: Tensor = self.head(wide).squeeze(1) + (embedded * wide).sum(dim=1)
            return _gained(scores, self.gain), hidden

    def without_labels(self) -> nn.Module:
        """images -> linear(h) [B], by the same weights: what is left of the score without a label."""
        return _WithoutLabels(self)


class _WithoutLabels(nn.Module):
    """A view of a discriminator; its parameters are all but the embedding's."""

    def __init__(self, discriminator: Discriminator) -> None:
        super().__init__()
        self.layers = discriminator.layers
        self.head = discriminator.head
        self.gain = discriminator.gain

    def forward(self, images: Tensor) -> Tensor:
        with normalised_together(self, images.device.type):
            scores: Tensor = self.head(self.layers(images)).squeeze(1)
            return _gained(scores, self.gain)


def _gained(scores: Tensor, gain: float) -> Tensor:
    return scores if gain == 1.0 else gain * scores


class LatentClassifier(nn.Module):
    """zu [B, zu_dim] -> logits [B, num_classes]; encoder_u is trained to make it fail (Eqs. 4, 5)."""

    def __init__(self, architecture: Architecture, zu_dim: int, num_classes: int) -> None:
        super().__init__()
        widths = (zu_dim, *architecture.latent_classifier_hidden)
        self.hidden = mlp(widths)
        self.head = FullPrecisionLinear(widths[-1], num_classes)

    def forward(self, zu: Tensor) -> Tensor:
        logits: Tensor = self.head(self.hidden(zu))
        return logits
