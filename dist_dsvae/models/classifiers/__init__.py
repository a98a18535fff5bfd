"""The classifiers that can be trained here, by the name of their architecture."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from dist_dsvae.core.types import ImageShape
from dist_dsvae.models.casting import FullPrecisionLinear
from dist_dsvae.models.classifiers.inception_resnet_v1 import NUM_FEATURES, InceptionResNetV1
from dist_dsvae.models.classifiers.resnet import ResNet


class FaceClassifier(nn.Module):
    """Inception-ResNet-v1 on images in [-1, 1], enlarged to the 160x160 it is made for (bilinear)."""

    SIDE = 160

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body = InceptionResNetV1()
        self.head = FullPrecisionLinear(NUM_FEATURES, num_classes)

    def features(self, images: Tensor) -> Tensor:
        rgb = images.expand(-1, 3, -1, -1)
        large = F.interpolate(rgb, size=(self.SIDE, self.SIDE), mode="bilinear", align_corners=False)
        return self.body.features(large)


def classifier_network(name: str, shape: ImageShape, num_classes: int, width: int) -> ResNet | FaceClassifier:
    """The one called ``name``: images [B, C, H, W] in [-1, 1] -> features [B, d] -> head -> logits.

    Raises ValueError if it is not a classifier, or cannot take samples of this shape.
    """
    if not shape.is_image:
        raise ValueError("A classifier needs images, but the shards hold points. Give shards of images.")
    if name == "resnet32":
        return ResNet(num_classes, channels=shape.channels, width=width)
    if name == "inception-resnet-v1":
        return FaceClassifier(num_classes)
    raise ValueError(
        f"model.architecture is {name!r}, but a classifier is one of: resnet32, inception-resnet-v1."
    )
