"""Decoder: the concatenated codes [B, zs_dim + zu_dim] to an image in [-1, 1] or to a point.

Codes of pictures and codes of the prior disagree, and the running statistics of the batch norms are a
mixture over both. So a decoder may be given statistics of each kind, measured for its present weights
(``models.norm_statistics``). They are part of its state (``statistics.prior.mean_0``, ...) from then on; in
training there are none.
"""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from dist_dsvae.core.types import CodeKind, ImageShape
from dist_dsvae.models.architectures import Architecture, Layer, Residual
from dist_dsvae.models.blocks import (
    ConvBlock,
    LinearBlock,
    ResidualBlock,
    Unflatten,
    UpConv2d,
    UpConvBlock,
    mlp,
)
from dist_dsvae.models.norm_statistics import Moments, Statistics, batch_norms, normalised_by


class Decoder(nn.Module):
    """[B, code_dim] -> [B, C, H, W] in [-1, 1] (tanh), or [B, C] for points (linear output)."""

    def __init__(self, architecture: Architecture, shape: ImageShape, code_dim: int) -> None:
        super().__init__()
        self.statistics = nn.ModuleDict()
        widths = (code_dim, *architecture.decoder_hidden)
        if not shape.is_image:
            self.layers = nn.Sequential(mlp(widths), nn.Linear(widths[-1], shape.channels))
            return
        blocks: list[nn.Module] = [LinearBlock(a, b) for a, b in itertools.pairwise(widths)]
        channels = architecture.decoder_channels
        size = round((widths[-1] / channels) ** 0.5)
        blocks.append(Unflatten(channels, size, size))
        for layer in architecture.decoder:
            blocks.append(_decoding(channels, layer))
            channels = layer.channels
        kernel_size = architecture.output_kernel_size
        blocks += [nn.Conv2d(channels, shape.channels, kernel_size, padding=kernel_size // 2), nn.Tanh()]
        self.layers = nn.Sequential(*blocks)

    def forward(self, codes: Tensor, statistics: Statistics | None = None) -> Tensor:
        """statistics: to normalise by in evaluation mode, in place of the running ones."""
        if not statistics or self.training:
            images: Tensor = self.layers(codes)
        else:
            with normalised_by(self.layers, statistics):
                images = self.layers(codes)
        return images

    def decode(self, codes: Tensor, code_kind: CodeKind) -> Tensor:
        """Images of codes of one kind: in evaluation mode by that kind's statistics, if there are any."""
        images: Tensor = self(codes, self.statistics_of(code_kind))
        return images

    def statistics_of(self, code_kind: CodeKind) -> Statistics | None:
        """Those that ``set_statistics`` gave."""
        if code_kind not in self.statistics:
            return None
        found = dict(self.statistics[code_kind].named_buffers())
        return tuple(Moments(found[f"mean_{i}"], found[f"variance_{i}"]) for i in range(len(found) // 2))

    def set_statistics(self, code_kind: CodeKind, statistics: Statistics | None) -> None:
        """Normalise codes of this kind by ``statistics`` from now on; None: by the running ones."""
        if code_kind in self.statistics:
            del self.statistics[code_kind]
        if statistics:
            self.statistics[code_kind] = _Statistics(statistics)

    def blank_statistics(self) -> Statistics:
        """Of the right shapes, to load others into."""
        weights = (norm.weight.detach() for norm in batch_norms(self.layers))
        # not zeros_like, for which the meta device imports sympy
        return tuple(
            Moments(weight.new_zeros(weight.shape), weight.new_ones(weight.shape)) for weight in weights
        )


class _Statistics(nn.Module):
    """Buffers mean_i and variance_i, so that statistics move and are saved with the decoder."""

    def __init__(self, statistics: Statistics) -> None:
        super().__init__()
        for number, moments in enumerate(statistics):
            for name, tensor in moments._asdict().items():
                self.register_buffer(f"{name}_{number}", tensor.detach().clone())


def _decoding(in_channels: int, layer: Layer | Residual) -> nn.Module:
    channels, stride = layer.channels, layer.stride
    if isinstance(layer, Layer):
        return UpConvBlock(in_channels, channels, layer.kernel_size, stride)
    last = UpConv2d(channels, channels) if stride == 2 else nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
    main = nn.Sequential(ConvBlock(in_channels, channels, 3), last, nn.BatchNorm2d(channels))
    shortcut = nn.Sequential()
    if in_channels != channels:
        shortcut.append(nn.Conv2d(in_channels, channels, 1, bias=False))
    if stride == 2:
        shortcut.append(nn.Upsample(scale_factor=2))
    return ResidualBlock(main, shortcut)
