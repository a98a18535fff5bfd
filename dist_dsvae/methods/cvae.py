"""Baseline cVAE: a VAE whose encoder and decoder are told the label.

x ++ y -> encoder_u -> N(mu, var) -> z ---> kl
y ++ z -> decoder -> x' ------------------> reconstruction
"""

from __future__ import annotations

from torch import Tensor, nn

from dist_dsvae.config import CVAEConfig, ModelConfig
from dist_dsvae.core.noise import Draw, Noise, Normals
from dist_dsvae.core.types import Batch, CodeKind, Codes, Gaussian, ImageShape
from dist_dsvae.methods import conditional
from dist_dsvae.methods.routing import RoutingTable, largest_weight, scale_gradient
from dist_dsvae.methods.update import Reduction, Update
from dist_dsvae.models import losses
from dist_dsvae.models.architectures import architecture_for
from dist_dsvae.models.decoder import Decoder
from dist_dsvae.models.encoder import sample_gaussian


def routing_table(config: CVAEConfig, shape: ImageShape, zu_dim: int) -> RoutingTable:
    """Which term trains which network with which weight."""
    encoder, decoder, kl = conditional.autoencoder_weights(config.loss_weights, shape, zu_dim)
    r = config.reconstruction_weight
    return {
        "reconstruction": {"encoder_u": r * encoder, "decoder": r * decoder},
        "kl": {"encoder_u": config.kl_weight * kl},
    }


class CVAE(nn.Module):
    """Networks, routing table and forward of the conditional VAE.

    Raises ValueError where the architecture does not fit the shape of the samples.
    """

    def __init__(self, config: CVAEConfig, model: ModelConfig, shape: ImageShape, num_classes: int) -> None:
        super().__init__()
        architecture = architecture_for(model.architecture, shape)
        self.config = config
        self.num_classes, self.zu_dim = num_classes, model.zu_dim
        widths = (architecture, shape, model.zu_dim, num_classes)
        self.encoder_u = conditional.conditional_encoder(*widths)
        self.decoder = conditional.conditional_decoder(*widths)
        self.averaged = ("decoder",)
        self.inference = ("encoder_u", "decoder")
        self.routing = routing_table(config, shape, model.zu_dim)
        self.updates = (
            Update(
                name="joint",
                repeats=1,
                terms=tuple(self.routing),
                trains=("encoder_u", "decoder"),
                reduction=Reduction.OVERLAPPED,
            ),
        )

    def forward(self, batch: Batch, noise: Noise, update: str) -> dict[str, Tensor]:
        """The raw loss terms, each a scalar."""
        posterior: Gaussian = self.encode(batch.images, batch.labels).zu
        z = sample_gaussian(posterior, noise.normal(Draw.POSTERIOR_ZU, self.zu_dim))
        largest = largest_weight(self.routing, "reconstruction")
        z = scale_gradient(z, self.routing["reconstruction"]["encoder_u"] / largest if largest else 0.0)
        reconstructed = self.decoder(conditional.conditional_codes(batch.labels, z, self.num_classes))
        return {
            "reconstruction": losses.reconstruction(batch.images, reconstructed),
            "kl": losses.kl_to_standard_normal(posterior),
        }

    # Once trained (``abilities``)

    def prior_codes(self, labels: Tensor, zs_noise: Normals, zu_noise: Normals) -> Tensor:
        """[B, num_classes + zu_dim]: the one-hot label and z ~ N(0, I)."""
        return conditional.prior_codes(labels, zu_noise, self.num_classes, self.zu_dim)

    def log_prior(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        return conditional.log_prior(codes, self.zu_dim)

    def decode(self, codes: Tensor, kind: CodeKind) -> Tensor:
        return self.decoder.decode(codes, kind)

    def decoding_network(self) -> Decoder:
        return self.decoder

    def encode(self, images: Tensor, labels: Tensor) -> Codes:
        return conditional.encode(self.encoder_u, images, labels, self.num_classes)

    def encoding_networks(self) -> dict[str, nn.Module]:
        return {"encoder_u": self.encoder_u}

    def encoding_input(self, images: Tensor, labels: Tensor) -> Tensor:
        return conditional.with_label_planes(images, labels, self.num_classes)

    def draw_codes(self, images: Tensor, labels: Tensor, noise: Normals) -> Tensor:
        """[B, num_classes + zu_dim]: the one-hot label and z drawn from its posterior."""
        sizes = (self.num_classes, self.zu_dim)
        return conditional.draw_codes(self.encoder_u, images, labels, noise, *sizes)
