"""Baseline cVAE: a VAE whose encoder and decoder are told the label.

x ++ y -> encoder_u -> N(mu, var) -> z ---> kl
y ++ z -> decoder -> x' ------------------> reconstruction
"""

from __future__ import annotations

from torch import Tensor

from dist_dsvae.config import CVAEConfig, ModelConfig
from dist_dsvae.core.noise import Draw, Noise
from dist_dsvae.core.types import Batch, Gaussian, ImageShape
from dist_dsvae.methods import conditional
from dist_dsvae.methods.routing import RoutingTable, largest_weight, scale_gradient
from dist_dsvae.methods.update import Update
from dist_dsvae.models import losses
from dist_dsvae.models.architectures import architecture_for
from dist_dsvae.models.encoder import sample_gaussian


def routing_table(config: CVAEConfig, shape: ImageShape, zu_dim: int) -> RoutingTable:
    """Which term trains which network with which weight."""
    encoder, decoder, kl = conditional.autoencoder_weights(config.loss_weights, shape, zu_dim)
    r = config.reconstruction_weight
    return {
        "reconstruction": {"encoder_u": r * encoder, "decoder": r * decoder},
        "kl": {"encoder_u": config.kl_weight * kl},
    }


class CVAE(conditional.ConditionalAutoencoder):
    """Networks, routing table and forward of the conditional VAE.

    Raises ValueError where the architecture does not fit the shape of the samples.
    """

    def __init__(self, config: CVAEConfig, model: ModelConfig, shape: ImageShape, num_classes: int) -> None:
        super().__init__(architecture_for(model.architecture, shape), shape, model.zu_dim, num_classes)
        self.config = config
        self.routing = routing_table(config, shape, model.zu_dim)
        self.updates = (Update(name="joint", terms=tuple(self.routing), trains=("encoder_u", "decoder")),)

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
