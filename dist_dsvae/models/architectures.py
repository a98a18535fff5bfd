"""The network families as data: layer widths of the paper's tables and figures, and rules for any size.

vgg      any square size of SIZES: VGG16 with batch norm, mirrored decoder, by one rule; at 64 it is vgg64
small    any square size of SIZES: light residual networks for a CPU, or a first look     (ours)
vgg64    FaceScrub, CUB-200: VGG16 with batch norm, mirrored decoder   (appendix B.2, Table 4)
conv32   CIFAR-10/100                                                  (Table 3)
small32, small64   the light networks of older runs                    (ours)
mlp2d    the toy example's points                                      (section 4.1)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from dist_dsvae.core.types import ImageShape


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One convolution: output channels, kernel size, stride (an up-sampling factor in a decoder)."""

    channels: int
    kernel_size: int
    stride: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Residual:
    """Two 3x3 convolutions beside a shortcut; stride 2 halves the side, in a decoder doubles it."""

    channels: int
    stride: Literal[1, 2] = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """What the network classes need to build one family.

    image_size: side of the square images it is made for; 0 for points.
    encoder, decoder, discriminator: convolutions or blocks in order; one convolution more paints the
        decoder's image, with output_kernel_size. decoder_channels: of the feature map that the
        decoder's first one gets.
    max_pool_after, average_pool_after: indices of encoder layers followed by a 2x2 pool.
    discriminator_pools: averages over all places before the fully connected layers, else flattens.
    *_hidden: widths of the fully connected layers but the last; with image_size 0 there are no others.
    """

    image_size: int
    encoder: tuple[Layer | Residual, ...] = ()
    max_pool_after: tuple[int, ...] = ()
    average_pool_after: int | None = None
    encoder_hidden: tuple[int, ...] = (1024,)
    decoder_hidden: tuple[int, ...] = (1024,)
    decoder_channels: int = 0
    decoder: tuple[Layer | Residual, ...] = ()
    output_kernel_size: int = 3
    discriminator: tuple[Layer, ...] = ()
    discriminator_pools: bool = False
    discriminator_hidden: tuple[int, ...] = (1024,)
    latent_classifier_hidden: tuple[int, ...] = (256,)


def _layers(*triples: tuple[int, int, int]) -> tuple[Layer, ...]:
    return tuple(Layer(channels=c, kernel_size=k, stride=s) for c, k, s in triples)


def _num_halvings(size: int, last: int) -> int:
    """How often a side of ``size`` is halved until it is ``last``; both are powers of 2."""
    return (size // last).bit_length() - 1


def _vgg(size: int) -> Architecture:
    """VGG16's stages, as many as lead from ``size`` to 2x2: 64, 128, 256, then 512 channels."""
    widths = [min(64 * 2**i, 512) for i in range(_num_halvings(size, 2))]
    stages = [[width] * (2 if i < 2 else 3) for i, width in enumerate(widths)]
    encoder = list(itertools.chain.from_iterable(stages))
    ends = [end - 1 for end in itertools.accumulate(map(len, stages))]
    # A stage of the decoder undoes one of the encoder: its outputs are that one's inputs, the image left out.
    inputs = iter([0, *encoder])
    mirrored = [list(itertools.islice(inputs, len(stage)))[::-1] for stage in stages][::-1]
    doubled = [(c, 3, 1 if i else 2) for stage in mirrored for i, c in enumerate(stage) if c]
    halved = [(c, 3, s) for i, c in enumerate(widths) for s in ((1, 2) if i in (2, 3) else (2,))]
    return Architecture(
        image_size=size,
        encoder=_layers(*((c, 3, 1) for c in encoder)),
        max_pool_after=tuple(ends[:-1]),
        average_pool_after=ends[-1],
        decoder_hidden=(1024, 2 * 2 * widths[-1]),
        decoder_channels=widths[-1],
        decoder=_layers(*doubled),
        discriminator=_layers(*halved),
        discriminator_pools=True,
    )


def _conv32(late_kernel_size: int) -> Architecture:
    k = late_kernel_size
    return Architecture(
        image_size=32,
        encoder=_layers((32, 5, 2), (64, 5, 2), (128, k, 2), (256, k, 2)),
        decoder_channels=256,
        decoder=_layers((256, 5, 2), (256, 5, 1), (128, 5, 2), (64, 5, 2), (32, 5, 2)),
        output_kernel_size=5,
        discriminator=_layers((32, 5, 1), (128, 5, 2), (256, 5, 2), (256, 5, 2)),
        discriminator_hidden=(512,),
    )


def _small(size: int) -> Architecture:
    """Residual networks between ``size`` and 4x4 feature maps, twice the channels at half the side.

    The discriminator is plain: residual blocks with averages contract so much under spectral norm that its
    scores cannot leave 0.
    """
    stages = _num_halvings(size, 4)
    first, *later = _doubling(16, stages)
    lowest, *rising = reversed(_doubling(16, stages + 1))
    return Architecture(
        image_size=size,
        encoder=(
            Layer(channels=first, kernel_size=3, stride=2),
            *(Residual(channels=c, stride=2) for c in later),
        ),
        encoder_hidden=(256,),
        decoder_hidden=(256, 4 * 4 * lowest),
        decoder_channels=lowest,
        decoder=tuple(Residual(channels=c, stride=2) for c in rising),
        discriminator=tuple(Layer(channels=c, kernel_size=4, stride=2) for c in _doubling(32, stages)),
        discriminator_hidden=(256,),
        latent_classifier_hidden=(128,),
    )


def _doubling(first: int, count: int) -> list[int]:
    return [min(first * 2**i, 256) for i in range(count)]


SIZES = (32, 64, 128, 256)
RULES: dict[str, Callable[[int], Architecture]] = {
    "vgg": _vgg,
    "small": _small,
}

ARCHITECTURES: dict[str, Architecture] = {
    "vgg64": _vgg(64),
    "conv32": _conv32(late_kernel_size=3),
    # the authors' own code has 5x5 kernels in the encoder's third and fourth layer, the paper 3x3
    "conv32-reference": _conv32(late_kernel_size=5),
    "small32": Architecture(
        image_size=32,
        encoder=_layers((32, 3, 2), (64, 3, 2), (128, 3, 2)),
        encoder_hidden=(256,),
        decoder_hidden=(256, 4 * 4 * 128),
        decoder_channels=128,
        decoder=_layers((64, 4, 2), (32, 4, 2), (16, 4, 2)),
        discriminator=_layers((32, 4, 2), (64, 4, 2), (128, 4, 2)),
        discriminator_hidden=(256,),
        latent_classifier_hidden=(128,),
    ),
    "small64": Architecture(
        image_size=64,
        encoder=_layers((32, 3, 2), (64, 3, 2), (128, 3, 2), (256, 3, 2)),
        encoder_hidden=(256,),
        decoder_hidden=(256, 4 * 4 * 256),
        decoder_channels=256,
        decoder=_layers((128, 4, 2), (64, 4, 2), (32, 4, 2), (32, 4, 2)),
        discriminator=_layers((32, 4, 2), (64, 4, 2), (128, 4, 2), (256, 4, 2)),
        discriminator_hidden=(256,),
        latent_classifier_hidden=(128,),
    ),
    "mlp2d": Architecture(
        image_size=0,
        encoder_hidden=(32, 64, 64),
        decoder_hidden=(64, 64, 32),
        discriminator_hidden=(32, 64, 64),
        latent_classifier_hidden=(32,),
    ),
}


def architecture_for(name: str, shape: ImageShape) -> Architecture:
    """The family called ``name``, for samples of this shape. Raises ValueError where it cannot take them."""
    what = _described(shape)
    fitting = ", ".join(_fitting(shape)) or "none"
    if name in RULES:
        if name not in _fitting(shape):
            sizes = ", ".join(f"{size}x{size}" for size in SIZES[:-1])
            raise ValueError(
                f"model.architecture is {name!r}, which takes images of {sizes} or {SIZES[-1]}x{SIZES[-1]} "
                f"with 1 to {_MOST_CHANNELS} channels, but the shards hold {what}. Build them with one of "
                f"these sizes as --size, or choose an architecture for what they hold: {fitting}."
            )
        return RULES[name](shape.height)
    if name not in ARCHITECTURES:
        raise ValueError(
            f"model.architecture is {name!r}, a classifier's, but this method needs an encoder and a "
            f"decoder. For {what} choose one of: {fitting}."
        )
    size = ARCHITECTURES[name].image_size
    if size and (shape.height, shape.width) != (size, size):
        raise ValueError(
            f"model.architecture is {name!r}, which takes {size}x{size} images, but the shards hold {what}. "
            f"Build them with --size {size}, or choose an architecture for what they hold: {fitting}."
        )
    if not size and shape.is_image:
        raise ValueError(
            f"model.architecture is {name!r}, which takes 2-D points, but the shards hold {what}. "
            f"Choose an architecture for them: {fitting}."
        )
    return ARCHITECTURES[name]


_MOST_CHANNELS = 4


def _fitting(shape: ImageShape) -> list[str]:
    """Names of what takes samples of this shape, rules first."""
    square = shape.height == shape.width
    by_rule = square and shape.height in SIZES and 1 <= shape.channels <= _MOST_CHANNELS
    fixed = [name for name, a in ARCHITECTURES.items() if square and a.image_size == shape.height]
    return [*(RULES if by_rule else ()), *fixed]


def _described(shape: ImageShape) -> str:
    if not shape.is_image:
        return f"{shape.channels}-D points"
    channels = f" with {shape.channels} channels" if shape.channels > _MOST_CHANNELS else ""
    return f"{shape.height}x{shape.width} images{channels}"
