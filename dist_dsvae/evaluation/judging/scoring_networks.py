"""Networks that score images, each with the resizing and scaling it was trained with.

All take RGB images [N, 3, H, W], float32 in [-1, 1], of any size, and return (logits [N, C] or None,
features [N, d]). Resizing is bilinear; where an image shrinks, a pixel is the mean over all it covers
(antialias), as in the image libraries that prepare training sets. Enlarging is the same with and without.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from dist_dsvae.models.classifiers.inception_resnet_v1 import InceptionResNetV1

INCEPTION_SIDE = 299
INCEPTION_FEATURES = 2048
FACE_SIDE = 160
FACE_SCALE = 127.5 / 128  # faces were seen as (x - 127.5) / 128 of x in 0..255

Output = tuple[Tensor | None, Tensor]


def resized(images: Tensor, side: int) -> Tensor:
    """[N, C, H, W] -> [N, C, side, side], bilinear with antialias; aspect ratios are not kept."""
    if images.shape[-2:] == (side, side):
        return images
    return F.interpolate(images, (side, side), mode="bilinear", align_corners=False, antialias=True)


def eight_bit(images: Tensor) -> Tensor:
    """Values in [-1, 1] -> 0..255, rounded as when an image is saved, in the same floating type."""
    return ((images + 1) * 127.5).round().clamp(0, 255)


class FaceScores(nn.Module):
    """Identity: features are the embedding [N, 512] of length 1; logits if the network has a classifier."""

    def __init__(self, network: InceptionResNetV1) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Output:
        logits, embedding = self.network(resized(images, FACE_SIDE) * FACE_SCALE)
        return logits, embedding


class InceptionV3Scores(nn.Module):
    """torchvision's inception_v3: logits [N, C] and the 2048 averaged channels before them.

    The network is fed [-1, 1]. So are torchvision's own weights: torchvision normalises images with the
    moments of ImageNet and undoes just that inside the network (``transform_input``).

    ``tensorflow_pools`` leaves padding out of the blocks' average pools, which torchvision counts in: for
    weights that were trained in TensorFlow. It changes the network in place.
    """

    def __init__(self, network: nn.Module, *, tensorflow_pools: bool) -> None:
        super().__init__()
        self.head = network.get_submodule("fc")
        network.fc = nn.Identity()
        if tensorflow_pools:
            for block in network.children():
                if hasattr(block, "branch_pool"):
                    block.branch_pool = nn.Sequential(PaddingLeftOut(), block.get_submodule("branch_pool"))
        self.trunk = network

    def forward(self, images: Tensor) -> Output:
        features: Tensor = self.trunk(resized(images, INCEPTION_SIDE))
        return self.head(features), features


class PaddingLeftOut(nn.Module):
    """Turns a 3x3 average pool that counted padding in, as zeros, into the mean over the image alone."""

    def forward(self, means: Tensor) -> Tensor:
        ones = means.new_ones(1, 1, *means.shape[-2:])
        return means / F.avg_pool2d(ones, 3, stride=1, padding=1)  # the share of a window inside the image


class FidelityScores(nn.Module):
    """The FID Inception of 2015-12-05 in torch-fidelity's form: features [N, 2048], logits [N, 1008].

    The module rounds to 8 bits, resizes as TensorFlow 1 did and leaves the bias out of the logits: all three
    as the published figures of FID and Inception Score were computed.

    Raises ImportError without the package torch_fidelity.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        # torch-fidelity opens the file it is given with an unpickler that executes: it gets bytes made here
        buffer = io.BytesIO()
        torch.save(dict(tensors), buffer)
        buffer.seek(0)
        self.network = FeatureExtractorInceptionV3(
            "fid-inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=buffer
        )

    def forward(self, images: Tensor) -> Output:
        features, logits = self.network(eight_bit(images).to(torch.uint8))
        return logits, features


class TrunkScores(nn.Module):
    """A FID trunk without classifier: 8-bit values enlarged to 299x299 and given as (x - 128) / 128."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, images: Tensor) -> Output:
        features: Tensor = self.trunk((resized(eight_bit(images), INCEPTION_SIDE) - 128) / 128)
        return None, features


def empty_inception_v3(num_classes: int, *, aux_logits: bool) -> nn.Module:
    """torchvision's inception_v3 on the meta device: names and shapes, no values yet."""
    with torch.device("meta"):
        network: nn.Module = torchvision.models.inception_v3(
            weights=None,
            num_classes=num_classes,
            aux_logits=aux_logits,
            transform_input=False,
            init_weights=False,
        )
    return network


def empty_face_network(num_classes: int | None) -> InceptionResNetV1:
    """Inception-ResNet-v1 on the meta device: names and shapes, no values yet."""
    with torch.device("meta"):
        return InceptionResNetV1(num_classes)
