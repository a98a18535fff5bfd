"""The classifiers that can be trained here, by the name of their architecture."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from dist_dsvae.models.resnet import ResNet
from dist_dsvae.types import ImageShape


class ClassifierNetwork(Protocol):
    """images [B, C, H, W] in [-1, 1] -> features [B, d] -> head -> logits [B, num_classes]."""

    head: nn.Linear

    def features(self, images: Tensor) -> Tensor: ...


def classifier_network(name: str, shape: ImageShape, num_classes: int, width: int) -> nn.Module:
    """The ``ClassifierNetwork`` called ``name``.

    Raises ValueError if it is not a classifier, or cannot take samples of this shape.
    """
    if not shape.is_image:
        raise ValueError("A classifier needs images, but the shards hold points. Give shards of images.")
    if name == "resnet32":
        return ResNet(num_classes, channels=shape.channels, width=width)
    raise ValueError(
        f"model.architecture is {name!r}, but a classifier is one of: resnet32, inception-resnet-v1."
    )
