"""A small residual classifier for 32x32 images: the judge of what class a generated image shows.

    stem 3x3                     [B, w, 32, 32]
    two blocks, stride 2 first   [B, 2w, 16, 16]
    two blocks, stride 2 first   [B, 4w, 8, 8]
    batch norm, ReLU, mean       [B, 4w]  features
    linear                       [B, num_classes]  logits

Blocks are those of He et al., *Identity Mappings in Deep Residual Networks* (2016): batch norm and ReLU come
before each convolution. No block works at full resolution, where a CPU would spend most of its time moving
memory; what that loses is bought back more cheaply with width.
"""

from __future__ import annotations

from torch import Tensor, nn

from dist_dsvae.models.casting import FullPrecisionLinear

BLOCKS_PER_STAGE = 2


class StridedBlock(nn.Module):
    """[B, in, H, W] -> [B, out, H/stride, W/stride]: x + f(x), the shortcut projected where shapes differ."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.activation = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True))
        self.residual = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        )
        self.shortcut: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        active = self.activation(images)
        # a projection sees the normalised images, as the residual does; the identity sees them untouched
        shortcut = images if self.shortcut is None else self.shortcut(active)
        output: Tensor = shortcut + self.residual(active)
        return output


class ResNet(nn.Module):
    """Images [B, channels, H, W] in [-1, 1] -> logits [B, num_classes].

    Made for 32x32; any size of at least 4x4 works. Width 16 has 166,000 parameters and 17 million
    multiplications per image, width 64 has 2.6 million and 270 million.

    ``num_features`` (4 * width) is the size of what ``features`` returns and ``head`` takes.

    Raises ValueError if a number is not positive.
    """

    def __init__(self, num_classes: int, *, channels: int = 3, width: int = 16) -> None:
        super().__init__()
        for name, number in (("num_classes", num_classes), ("channels", channels), ("width", width)):
            if number < 1:
                raise ValueError(f"{name} of a ResNet is {number}; it must be 1 or more")
        self.num_features = 4 * width
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        blocks = []
        in_channels = width
        for out_channels in (2 * width, 4 * width):
            for number in range(BLOCKS_PER_STAGE):
                blocks.append(StridedBlock(in_channels, out_channels, stride=2 if number == 0 else 1))
                in_channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(self.num_features)
        self.activation = nn.ReLU(inplace=True)
        self.head = FullPrecisionLinear(self.num_features, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def features(self, images: Tensor) -> Tensor:
        """The mean over all positions of the last block's channels, [B, num_features], not negative."""
        maps: Tensor = self.activation(self.norm(self.blocks(self.stem(images))))
        return maps.mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits
