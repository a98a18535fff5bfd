"""Baseline cVAE-GAN: a conditional VAE whose images are judged by the projection discriminator.

x ++ y -> encoder_u -> N(mu, var) -> z -----> kl
y ++ z -> decoder -> x'_f ------------------> reconstruction
y ++ z ~ N(0, I) -> decoder -> x'_p
x, x'_f, x'_p -> discriminator -------------> generator | discriminator
                 its features of x and x'_f -> feature_reconstruction
                 their means over x and x'_p -> mean_feature

The last two terms are those of Bao et al., "CVAE-GAN: Fine-grained image generation through asymmetric
training" (ICCV 2017), with this discriminator in place of theirs and without their classifier's features.
"""

from __future__ import annotations

from torch import Tensor

from dist_dsvae.config import CVAEGANConfig, ModelConfig
from dist_dsvae.core.noise import Draw, Noise
from dist_dsvae.core.types import Batch, Gaussian, ImageShape
from dist_dsvae.methods import conditional
from dist_dsvae.methods.adversarial import discriminator_term, judge, prior_labels
from dist_dsvae.methods.global_batch import mean_feature
from dist_dsvae.methods.routing import Route, RoutingTable, largest_weight, scale_gradient, shared_pass
from dist_dsvae.methods.update import Update
from dist_dsvae.models import losses
from dist_dsvae.models.architectures import architecture_for
from dist_dsvae.models.augmentation import Group, augmentation
from dist_dsvae.models.discriminator import Discriminator
from dist_dsvae.models.encoder import sample_gaussian


def routing_table(config: CVAEGANConfig, shape: ImageShape, zu_dim: int) -> RoutingTable:
    """Which term trains which network with which weight; terms of weight 0 are left out."""
    encoder, decoder, kl = conditional.autoencoder_weights(config.loss_weights, shape, zu_dim)
    r, f = config.reconstruction_weight, config.feature_weight
    table = {
        "reconstruction": {"encoder_u": r * encoder, "decoder": r * decoder},
        "kl": {"encoder_u": config.kl_weight * kl},
        "generator": {"decoder": config.generator_weight},
        "discriminator": {"discriminator": 1.0},
    }
    if f:
        table["feature_reconstruction"] = {"encoder_u": f * encoder / decoder, "decoder": f}
    if config.mean_feature_weight:
        table["mean_feature"] = {"decoder": config.mean_feature_weight}
    return table


class CVAEGAN(conditional.ConditionalAutoencoder):
    """Networks, routing table and forward of the cVAE-GAN.

    Raises ValueError where the architecture does not fit the shape of the samples.
    """

    def __init__(
        self, config: CVAEGANConfig, model: ModelConfig, shape: ImageShape, num_classes: int
    ) -> None:
        architecture = architecture_for(model.architecture, shape)
        super().__init__(architecture, shape, model.zu_dim, num_classes)
        self.config = config
        self.discriminator = Discriminator(architecture, shape, num_classes, config.discriminator_gain)
        self.routing = routing_table(config, shape, model.zu_dim)
        self.updates = (
            Update(name="joint", terms=tuple(self.routing), trains=("encoder_u", "decoder", "discriminator")),
        )

    def forward(self, batch: Batch, noise: Noise, update: str) -> dict[str, Tensor]:
        """The raw loss terms, each a scalar."""
        images, labels, form = batch.images, batch.labels, self.config.adversarial
        posterior: Gaussian = self.encode(images, labels).zu
        z = sample_gaussian(posterior, noise.normal(Draw.POSTERIOR_ZU, self.zu_dim))
        z = scale_gradient(z, self._encoder_share())
        codes = conditional.conditional_codes(labels, z, self.num_classes)
        # The decoder's two outputs are one image: the generator term trains the decoder only.
        reconstructed, fake = shared_pass(self.decoder, [codes], [Route.BOTH, Route.PARAMETERS])

        drawn = prior_labels(self.config.prior_labels, labels, noise, self.num_classes)
        prior_z = noise.normal(Draw.PRIOR_ZU, self.zu_dim)
        prior_fake = self.decoder(conditional.conditional_codes(drawn, prior_z, self.num_classes))

        # The features of x'_f train the encoder as well, so they are those of its other output. They are to
        # match the real image's, so that one shares the real image's augmentation: with another, the term
        # would ask of x'_f to look like x moved, recoloured and cut elsewhere.
        matched = "feature_reconstruction" in self.routing
        judged = judge(
            self.discriminator,
            [images, fake, prior_fake, *([reconstructed] if matched else [])],
            [labels, labels, drawn, *([labels] if matched else [])],
            form,
            augment=augmentation(
                self.config.augmentation, noise, [*Group, *([Group.REAL] if matched else [])]
            ),
            with_features=matched or "mean_feature" in self.routing,
        )
        terms = {
            "reconstruction": losses.reconstruction(images, reconstructed),
            "kl": losses.kl_to_standard_normal(posterior),
            "generator": losses.generator(judged.judging[1:3], form),
            "discriminator": discriminator_term(judged.learning[:3], form),
        }
        if matched:
            assert judged.features is not None
            real, *_, rebuilt = judged.features
            terms["feature_reconstruction"] = losses.reconstruction(real.detach(), rebuilt)
        if "mean_feature" in self.routing:
            assert judged.features is not None
            terms["mean_feature"] = mean_feature(judged.features[0].detach(), judged.features[2])
        return terms

    def _encoder_share(self) -> float:
        """The encoder's weight in a term as a share of the decoder's, the same in both that train it."""
        for term in ("reconstruction", "feature_reconstruction"):
            if term in self.routing and (largest := largest_weight(self.routing, term)):
                return self.routing[term]["encoder_u"] / largest
        return 0.0
