"""Latent classifier: guesses the label from zu; encoder_u is trained to make it fail (Eqs. 4, 5)."""

from __future__ import annotations

from torch import Tensor, nn

from dist_dsvae.models.architectures import Architecture
from dist_dsvae.models.blocks import mlp
from dist_dsvae.models.casting import FullPrecisionLinear


class LatentClassifier(nn.Module):
    """zu [B, zu_dim] -> logits [B, num_classes]."""

    def __init__(self, architecture: Architecture, zu_dim: int, num_classes: int) -> None:
        super().__init__()
        widths = (zu_dim, *architecture.latent_classifier_hidden)
        self.hidden = mlp(widths)
        self.head = FullPrecisionLinear(widths[-1], num_classes)

    def forward(self, zu: Tensor) -> Tensor:
        logits: Tensor = self.head(self.hidden(zu))
        return logits
