"""The network families as data: layer widths of the paper's tables and figures.

vgg64    FaceScrub, CUB-200: VGG16 with batch norm, mirrored decoder   (appendix B.2, Table 4)
conv32   CIFAR-10/100                                                  (Table 3)
small32  light 32x32 networks for trying things on a laptop            (ours)
small64  likewise for 64x64                                            (ours)
mlp2d    the toy example's points                                      (section 4.1)
"""

from __future__ import annotations

from dataclasses import dataclass

from dist_dsvae.types import ImageShape


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One convolution: output channels, kernel size, stride (an up-sampling factor in a decoder)."""

    channels: int
    kernel_size: int
    stride: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """What the network classes need to build one family.

    image_size: side of the square images it is made for; 0 for points.
    encoder, decoder, discriminator: convolutions in order; one more paints the decoder's image, with
        output_kernel_size. decoder_channels: of the feature map that the decoder's first one gets.
    max_pool_after, average_pool_after: indices of encoder layers followed by a 2x2 pool.
    discriminator_pools: averages over all places before the fully connected layers, else flattens.
    *_hidden: widths of the fully connected layers but the last; with image_size 0 there are no others.
    """

    image_size: int
    encoder: tuple[Layer, ...] = ()
    max_pool_after: tuple[int, ...] = ()
    average_pool_after: int | None = None
    encoder_hidden: tuple[int, ...] = (1024,)
    decoder_hidden: tuple[int, ...] = (1024,)
    decoder_channels: int = 0
    decoder: tuple[Layer, ...] = ()
    output_kernel_size: int = 3
    discriminator: tuple[Layer, ...] = ()
    discriminator_pools: bool = False
    discriminator_hidden: tuple[int, ...] = (1024,)
    latent_classifier_hidden: tuple[int, ...] = (256,)


def _layers(*triples: tuple[int, int, int]) -> tuple[Layer, ...]:
    return tuple(Layer(channels=c, kernel_size=k, stride=s) for c, k, s in triples)


def _vgg64() -> Architecture:
    stages = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
    ends = [sum(len(stage) for stage in stages[: i + 1]) - 1 for i in range(len(stages))]
    mirrored = ((512, 512, 512), (512, 512, 256), (256, 256, 128), (128, 64), (64,))
    return Architecture(
        image_size=64,
        encoder=_layers(*((c, 3, 1) for stage in stages for c in stage)),
        max_pool_after=tuple(ends[:-1]),
        average_pool_after=ends[-1],
        decoder_hidden=(1024, 2 * 2 * 512),
        decoder_channels=512,
        decoder=_layers(*((c, 3, 2 if i == 0 else 1) for stage in mirrored for i, c in enumerate(stage))),
        discriminator=_layers(
            (64, 3, 2), (128, 3, 2), (256, 3, 1), (256, 3, 2), (512, 3, 1), (512, 3, 2), (512, 3, 2)
        ),
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


ARCHITECTURES: dict[str, Architecture] = {
    "vgg64": _vgg64(),
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
    """The family called ``name``. Raises ValueError where it cannot take samples of this shape."""
    what = f"{shape.height}x{shape.width} images" if shape.is_image else f"{shape.channels}-D points"
    fitting = [n for n, a in ARCHITECTURES.items() if a.image_size == shape.height] or ["none"]
    if name not in ARCHITECTURES:
        raise ValueError(
            f"model.architecture is {name!r}, a classifier's, but this method needs an encoder and a "
            f"decoder. For {what} choose one of: {', '.join(fitting)}."
        )
    size = ARCHITECTURES[name].image_size
    if size and (shape.height, shape.width) != (size, size):
        raise ValueError(
            f"model.architecture is {name!r}, which takes {size}x{size} images, but the shards hold {what}. "
            f"Build them with --size {size}, or choose an architecture for their size: {', '.join(fitting)}."
        )
    if not size and shape.is_image:
        raise ValueError(
            f"model.architecture is {name!r}, which takes 2-D points, but the shards hold {what}. "
            "Choose vgg64, small64, conv32 or small32 instead."
        )
    return ARCHITECTURES[name]
