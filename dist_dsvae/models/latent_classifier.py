"""Latent classifier: guesses the label from zu; encoder_u is trained to make it fail (Eqs. 4, 5)."""

from __future__ import annotations

from torch import Tensor, nn

from dist_dsvae.models.architectures import Architecture
from dist_dsvae.models.blocks import full_precision, mlp


class LatentClassifier(nn.Module):
    """zu [B, zu_dim] -> logits [B, num_classes]."""

    def __init__(self, architecture: Architecture, zu_dim: int, num_classes: int) -> None:
        super().__init__()
        widths = (zu_dim, *architecture.latent_classifier_hidden)
        self.hidden = mlp(widths)
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, zu: Tensor) -> Tensor:
        return full_precision(self.head, self.hidden(zu))
