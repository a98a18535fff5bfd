"""A classifier of the data set's own classes, to score generated images with.

x -> shifted by some pixels -> network -> logits -> cross-entropy
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dist_dsvae.config import ClassifierConfig, ModelConfig
from dist_dsvae.core.noise import Draw, Noise
from dist_dsvae.core.types import Batch, ImageShape
from dist_dsvae.methods.routing import RoutingTable
from dist_dsvae.methods.update import Update
from dist_dsvae.models.classifiers import classifier_network


class Classifier(nn.Module):
    """One network, trained with cross-entropy. Raises ValueError where it cannot take such samples."""

    def __init__(
        self, config: ClassifierConfig, model: ModelConfig, shape: ImageShape, num_classes: int
    ) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.network = classifier_network(model.architecture, shape, num_classes, config.width)
        self.averaged = ("network",)
        self.inference = ("network",)
        self.routing: RoutingTable = {"classification": {"network": 1.0}}
        self.updates = (Update(name="classification", terms=("classification",), trains=("network",)),)

    def forward(self, batch: Batch, noise: Noise, update: str) -> dict[str, Tensor]:
        """The cross-entropy, a scalar."""
        features = self.network.features(shifted(batch.images, noise, self.config.shift_pixels))
        features = dropped_out(features, noise, self.config.dropout)
        logits = self.network.head(features)
        smoothing = self.config.label_smoothing
        return {"classification": F.cross_entropy(logits, batch.labels, label_smoothing=smoothing)}

    # Once trained (``abilities``)

    def log_posterior(self, images: Tensor) -> Tensor:
        """log p(class | image), [B, num_classes], of images [B, C, H, W] in [-1, 1]."""
        return torch.log_softmax(self.logits_and_features(images)[0], dim=1)

    def logits_and_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, num_classes], and what they are computed from, [B, d], of images [B, C, H, W]."""
        features = self.network.features(images)
        return self.network.head(features), features


def shifted(images: Tensor, noise: Noise, pixels: int) -> Tensor:
    """Each image [B, C, H, W] moved by up to ``pixels`` up or down and left or right, black behind it."""
    if not pixels:
        return images
    height, width = images.shape[2:]
    offsets = (noise.uniform(Draw.SHIFT, 2) * (2 * pixels + 1)).long()  # [B, 2], 0..2 pixels
    padded = F.pad(images, [pixels] * 4, value=-1.0)
    rows = offsets[:, 0, None] + torch.arange(height, device=images.device)
    columns = offsets[:, 1, None] + torch.arange(width, device=images.device)
    image = torch.arange(len(images), device=images.device)[:, None, None]
    taken = padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]]
    return taken.permute(0, 3, 1, 2)


def dropped_out(features: Tensor, noise: Noise, share: float) -> Tensor:
    """[B, d] with ``share`` of the entries 0, chosen by the samples' positions, and the others enlarged."""
    if not share:
        return features
    kept = noise.uniform(Draw.DROPOUT, features.shape[1]) >= share
    return features * kept.to(features.dtype) / (1.0 - share)
