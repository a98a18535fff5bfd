"""What the conditional baselines share: networks that are told the label as a one-hot vector.

    image ++ one-hot planes -> encoder -> N(mu, var) -> z
    one-hot y ++ z -> decoder -> x'

In the terms of the paper's method the one-hot label stands for zs, and z for zu; so sampling, swapping
and evaluation treat all methods alike.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dist_dsvae.core.noise import Draw, Normals
from dist_dsvae.core.types import CodeKind, Codes, Gaussian, ImageShape
from dist_dsvae.models.architectures import Architecture
from dist_dsvae.models.decoder import Decoder
from dist_dsvae.models.encoder import GaussianEncoder, sample_gaussian
from dist_dsvae.models.mixture_prior import standard_normal_log_density


def with_label_planes(images: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """[B, C, H, W] -> [B, C + num_classes, H, W]: plane C + y is 1, the others 0; points alike."""
    planes = one_hot(labels, num_classes, images.dtype)
    if images.dim() == 4:
        planes = planes[:, :, None, None].expand(-1, -1, *images.shape[2:])
    return torch.cat([images, planes], dim=1)


def first_class_place(network: str, shape: ImageShape) -> int:
    """Where the classes begin along the axis that a weight of ``network`` has for them, in every method.

    Behind the channels of the image in an encoder that is told the label, first elsewhere.
    """
    return shape.channels if network == "encoder_u" else 0


def one_hot(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """[B] -> [B, num_classes]."""
    return F.one_hot(labels, num_classes).to(dtype)


def conditional_codes(labels: Tensor, z: Tensor, num_classes: int) -> Tensor:
    """What the decoder is given: [B] and [B, zu_dim] -> [B, num_classes + zu_dim]."""
    return torch.cat([one_hot(labels, num_classes, z.dtype), z], dim=1)


class ConditionalGenerator(nn.Module):
    """What the baselines do with their decoder once trained (``abilities``)."""

    num_classes: int
    zu_dim: int
    decoder: Decoder

    def prior_codes(self, labels: Tensor, zs_noise: Normals, zu_noise: Normals) -> Tensor:
        """[B, num_classes + zu_dim]: the one-hot label and z ~ N(0, I)."""
        return conditional_codes(labels, zu_noise.normal(Draw.SAMPLE_ZU, self.zu_dim), self.num_classes)

    def decode(self, codes: Tensor, code_kind: CodeKind) -> Tensor:
        return self.decoder.decode(codes, code_kind)

    def decoding_network(self) -> Decoder:
        return self.decoder


class ConditionalAutoencoder(ConditionalGenerator):
    """The networks of the baselines that encode, and what they do once trained (``abilities``)."""

    averaged = ("decoder",)
    inference = ("encoder_u", "decoder")

    def __init__(self, architecture: Architecture, shape: ImageShape, zu_dim: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes, self.zu_dim = num_classes, zu_dim
        with_labels = shape._replace(channels=shape.channels + num_classes)
        self.encoder_u = GaussianEncoder(architecture, with_labels, zu_dim)
        self.decoder = Decoder(architecture, shape, num_classes + zu_dim)

    def log_prior(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        """Of z alone, as the one-hot label is given."""
        return standard_normal_log_density(codes[:, -self.zu_dim :])

    def encode(self, images: Tensor, labels: Tensor) -> Codes:
        posterior: Gaussian = self.encoder_u(self.encoding_input(images, labels))
        return Codes(one_hot(labels, self.num_classes, posterior.mean.dtype), posterior)

    def encoding_networks(self) -> dict[str, nn.Module]:
        return {"encoder_u": self.encoder_u}

    def encoding_input(self, images: Tensor, labels: Tensor) -> Tensor:
        return with_label_planes(images, labels, self.num_classes)

    def draw_codes(self, images: Tensor, labels: Tensor, noise: Normals) -> Tensor:
        """[B, num_classes + zu_dim]: the one-hot label and z drawn from its posterior."""
        zs, posterior = self.encode(images, labels)
        z = sample_gaussian(posterior, noise.normal(Draw.POSTERIOR_ZU, self.zu_dim))
        return torch.cat([zs, z], dim=1)


def autoencoder_weights(loss_weights: str, shape: ImageShape, zu_dim: int) -> tuple[float, float, float]:
    """Weights of reconstruction in encoder and in decoder, and of kl: dsvae's, for either preset."""
    if loss_weights == "reference":
        return 10.0, 10.0, 1.0
    decoder = shape.num_values / 2
    return decoder / zu_dim, decoder, 10.0 / shape.num_pixels * zu_dim
