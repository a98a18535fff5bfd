"""All that the scores of a set of images are computed from, added up batch by batch, rank by rank."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dist_dsvae.core.noise import Draw, permutation
from dist_dsvae.evaluation.frechet import FeatureMoments
from dist_dsvae.evaluation.inception_score import InceptionScore
from dist_dsvae.evaluation.judging.judge import Judge


class ImageSums:
    """Sums over images at positions 0..num_images-1, each added once, on any process.

    classifier: gives logits, where it has any, for the Inception Score and the labels' accuracy.
    feature_network: gives features for FID, precision and recall; may be the same one.
    knows_labels: whether the classifier's classes are those of the images' labels.
    num_kept: the features of so many images, chosen by the seed, are kept for their neighbours.
    """

    def __init__(
        self,
        classifier: Judge,
        feature_network: Judge,
        num_images: int,
        *,
        seed: int,
        num_splits: int,
        num_kept: int,
        knows_labels: bool,
        device: torch.device,
    ) -> None:
        self.classifier, self.feature_network = classifier, feature_network
        self.knows_labels = knows_labels
        self.is_kept = torch.zeros(num_images, dtype=torch.bool, device=device)
        self.is_kept[permutation(num_images, seed, Draw.NEIGHBOURS)[:num_kept].to(device)] = True
        self.inception: InceptionScore | None = None
        if classifier.num_classes is not None:
            self.inception = InceptionScore(classifier.num_classes, num_images, seed, num_splits, device)
        self.moments = FeatureMoments(feature_network.num_features, device)
        self.num_right = torch.zeros((), dtype=torch.int64, device=device)
        self.kept = torch.empty(0, feature_network.num_features, device=device)

    def add(self, images: Tensor, labels: Tensor, positions: Tensor) -> None:
        """Add images [B, C, H, W] in [-1, 1] with labels and positions [B]."""
        scores = self.classifier(images)
        if self.inception is not None and scores.logits is not None:
            self.inception.add(scores.logits, positions)
            if self.knows_labels:
                self.num_right += (scores.logits.argmax(1) == labels).sum()
        features = scores.features
        if self.feature_network is not self.classifier:
            features = self.feature_network(images).features
        self.moments.add(features)
        self.kept = torch.cat([self.kept, features[self.is_kept[positions]]])

    def state(self) -> dict[str, Tensor]:
        """The live sums, by name: additive over processes. ``kept``, which is not, stands apart."""
        found = {f"moments.{name}": tensor for name, tensor in self.moments.state().items()}
        if self.inception is not None:
            found |= {f"inception.{name}": tensor for name, tensor in self.inception.state().items()}
        return found | {"num_right": self.num_right}

    def merge(self, sums: Mapping[str, Tensor], kept: Tensor) -> None:
        """Add another's sums and kept features, of other images."""
        for name, tensor in self.state().items():
            tensor += sums[name].to(tensor.device)
        self.kept = torch.cat([self.kept, kept.to(self.kept.device)])

    @property
    def count(self) -> int:
        return int(self.moments.count)

    @property
    def label_accuracy(self) -> float:
        """Share of images that the classifier takes for their own class."""
        return int(self.num_right) / self.count
