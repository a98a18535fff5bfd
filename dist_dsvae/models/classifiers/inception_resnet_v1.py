"""Inception-ResNet-v1 for faces, with the parameter names of the facenet-pytorch project.

Weights published in that layout load into this module key by key, and a network trained here fits there.
The architecture is that of Szegedy et al., *Inception-v4, Inception-ResNet and the Impact of Residual
Connections on Learning* (2017), in the variant of David Sandberg's facenet: 512 features after a linear
bottleneck with batch norm. For images of 160x160:

    stem            conv2d_1a .. conv2d_4b   [B, 256, 17, 17]
    repeat_1        5 blocks                 [B, 256, 17, 17]
    mixed_6a        reduction                [B, 896, 8, 8]
    repeat_2        10 blocks                [B, 896, 8, 8]
    mixed_7a        reduction                [B, 1792, 3, 3]
    repeat_3        5 blocks, then block8    [B, 1792, 3, 3]
    mean, last_linear, last_bn               [B, 512]
    logits                                   [B, num_classes], optional

facenet's dropout after the mean is left out: nobody trains with it here.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dist_dsvae.models.casting import FullPrecisionLinear

NUM_FEATURES = 512
EPSILON = 1e-3  # of every batch norm, as in the TensorFlow original


class FaceOutput(NamedTuple):
    """What the network says about a batch of faces."""

    logits: Tensor | None  # [B, num_classes]; None without a classifier
    embedding: Tensor  # [B, 512], rows of length 1


class ConvUnit(nn.Module):
    """Convolution without bias, batch norm, ReLU. Without padding an odd kernel shrinks the image."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        *,
        padded: bool = False,
    ) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if padded else 0
        self.conv = nn.Conv2d(in_channels, out_channels, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=EPSILON)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.relu(self.bn(self.conv(images)))
        return output


class Branches(nn.Module):
    """Applies branch0, branch1, ... to the same features and joins their channels."""

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        for number, branch in enumerate(branches):
            self.add_module(f"branch{number}", branch)
        self.num_branches = len(branches)

    def forward(self, features: Tensor) -> Tensor:
        """Features [B, C, H, W] -> the branches' outputs, one after the other along the channels."""
        branches = (self.get_submodule(f"branch{number}") for number in range(self.num_branches))
        return torch.cat([branch(features) for branch in branches], dim=1)


class ResidualInception(Branches):
    """features + scale * conv2d(branches), then ReLU unless it is the last of its kind."""

    def __init__(
        self, branches: Sequence[nn.Module], joined: int, channels: int, scale: float, *, relu: bool = True
    ) -> None:
        super().__init__(branches)
        self.conv2d = nn.Conv2d(joined, channels, 1)
        self.scale = scale
        self.activation: nn.Module = nn.ReLU() if relu else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        output: Tensor = self.activation(features + self.scale * self.conv2d(super().forward(features)))
        return output


def chain(channels: Sequence[int], kernels: Sequence[int | tuple[int, int]]) -> nn.Module:
    """Units that keep the image's size, from channels[0] to channels[-1]; a single one stands alone."""
    units = [
        ConvUnit(a, b, kernel, padded=True)
        for (a, b), kernel in zip(itertools.pairwise(channels), kernels, strict=True)
    ]
    return units[0] if len(units) == 1 else nn.Sequential(*units)


def block_35() -> ResidualInception:
    """The block of the 35x35 grid of the paper (17x17 here), 256 channels."""
    branches = [
        chain((256, 32), (1,)),
        chain((256, 32, 32), (1, 3)),
        chain((256, 32, 32, 32), (1, 3, 3)),
    ]
    return ResidualInception(branches, joined=96, channels=256, scale=0.17)


def block_17() -> ResidualInception:
    """The block of the 17x17 grid of the paper (8x8 here), 896 channels."""
    branches = [chain((896, 128), (1,)), chain((896, 128, 128, 128), (1, (1, 7), (7, 1)))]
    return ResidualInception(branches, joined=256, channels=896, scale=0.10)


def block_8(scale: float, *, relu: bool = True) -> ResidualInception:
    """The block of the 8x8 grid of the paper (3x3 here), 1792 channels."""
    branches = [chain((1792, 192), (1,)), chain((1792, 192, 192, 192), (1, (1, 3), (3, 1)))]
    return ResidualInception(branches, joined=384, channels=1792, scale=scale, relu=relu)


def reduction_6a() -> Branches:
    """[B, 256, H, W] -> [B, 896, (H - 1) / 2, (W - 1) / 2], by strides of 2 and a max pool."""
    deep = nn.Sequential(
        ConvUnit(256, 192, 1), ConvUnit(192, 192, 3, padded=True), ConvUnit(192, 256, 3, stride=2)
    )
    return Branches([ConvUnit(256, 384, 3, stride=2), deep, nn.MaxPool2d(3, 2)])


def reduction_7a() -> Branches:
    """[B, 896, H, W] -> [B, 1792, (H - 1) / 2, (W - 1) / 2], by strides of 2 and a max pool."""
    wide = nn.Sequential(ConvUnit(896, 256, 1), ConvUnit(256, 384, 3, stride=2))
    narrow = nn.Sequential(ConvUnit(896, 256, 1), ConvUnit(256, 256, 3, stride=2))
    deep = nn.Sequential(
        ConvUnit(896, 256, 1), ConvUnit(256, 256, 3, padded=True), ConvUnit(256, 256, 3, stride=2)
    )
    return Branches([wide, narrow, deep, nn.MaxPool2d(3, 2)])


class InceptionResNetV1(nn.Module):
    """Faces [B, 3, H, W] in [-1, 1] -> FaceOutput.

    Made for 160x160 (23.5 million parameters and 1.4 billion multiplications per image); 75x75 is the
    smallest size that leaves every layer something to see. ``num_classes`` adds the layer ``logits``, which
    reads the features before they are scaled to length 1.

    Raises ValueError if num_classes is not positive.
    """

    def __init__(self, num_classes: int | None = None) -> None:
        super().__init__()
        if num_classes is not None and num_classes < 1:
            raise ValueError(
                f"num_classes of an InceptionResNetV1 is {num_classes}; it must be 1 or more, or None"
            )
        self.conv2d_1a = ConvUnit(3, 32, 3, stride=2)
        self.conv2d_2a = ConvUnit(32, 32, 3)
        self.conv2d_2b = ConvUnit(32, 64, 3, padded=True)
        self.maxpool_3a = nn.MaxPool2d(3, 2)
        self.conv2d_3b = ConvUnit(64, 80, 1)
        self.conv2d_4a = ConvUnit(80, 192, 3)
        self.conv2d_4b = ConvUnit(192, 256, 3, stride=2)
        self.repeat_1 = nn.Sequential(*(block_35() for _ in range(5)))
        self.mixed_6a = reduction_6a()
        self.repeat_2 = nn.Sequential(*(block_17() for _ in range(10)))
        self.mixed_7a = reduction_7a()
        self.repeat_3 = nn.Sequential(*(block_8(0.20) for _ in range(5)))
        self.block8 = block_8(1.0, relu=False)
        self.last_linear = nn.Linear(1792, NUM_FEATURES, bias=False)
        self.last_bn = nn.BatchNorm1d(NUM_FEATURES, eps=EPSILON)
        self.logits = None if num_classes is None else FullPrecisionLinear(NUM_FEATURES, num_classes)

    def features(self, faces: Tensor) -> Tensor:
        """The 512 features [B, 512] before they are scaled to length 1."""
        maps = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(faces)))
        maps = self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(self.maxpool_3a(maps))))
        maps = self.mixed_6a(self.repeat_1(maps))
        maps = self.mixed_7a(self.repeat_2(maps))
        maps = self.block8(self.repeat_3(maps))
        features: Tensor = self.last_bn(self.last_linear(maps.mean(dim=(2, 3))))
        return features

    def forward(self, faces: Tensor) -> FaceOutput:
        features = self.features(faces)
        logits = None if self.logits is None else self.logits(features)
        return FaceOutput(logits, F.normalize(features.to(self.last_linear.weight.dtype), dim=1))
