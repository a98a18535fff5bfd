"""Baseline cGAN: a generator that is told the label, and the projection discriminator.

y ++ z ~ N(0, I) -> decoder -> x'
x, x' -> discriminator --------> generator | discriminator

The generator has the other methods' decoder for its network, and its name.
"""

from __future__ import annotations

from torch import Tensor

from dist_dsvae.config import CGANConfig, ModelConfig
from dist_dsvae.core.noise import Draw, Noise
from dist_dsvae.core.types import Batch, ImageShape
from dist_dsvae.methods import conditional
from dist_dsvae.methods.adversarial import discriminator_term, judge, prior_labels
from dist_dsvae.methods.routing import RoutingTable
from dist_dsvae.methods.update import Update
from dist_dsvae.models import losses
from dist_dsvae.models.architectures import architecture_for
from dist_dsvae.models.augmentation import Group, augmentation
from dist_dsvae.models.decoder import Decoder
from dist_dsvae.models.discriminator import Discriminator


class CGAN(conditional.ConditionalGenerator):
    """Networks, routing table and forward of the conditional GAN.

    Raises ValueError where the architecture does not fit the shape of the samples.
    """

    def __init__(self, config: CGANConfig, model: ModelConfig, shape: ImageShape, num_classes: int) -> None:
        super().__init__()
        architecture = architecture_for(model.architecture, shape)
        self.config = config
        self.num_classes, self.zu_dim = num_classes, model.zu_dim
        self.decoder = Decoder(architecture, shape, num_classes + model.zu_dim)
        self.discriminator = Discriminator(architecture, shape, num_classes, config.discriminator_gain)
        self.averaged = ("decoder",)
        self.inference = ("decoder",)
        self.routing: RoutingTable = {
            "generator": {"decoder": 1.0},
            "discriminator": {"discriminator": 1.0},
        }
        self.updates = (Update(name="joint", terms=tuple(self.routing), trains=("decoder", "discriminator")),)

    def forward(self, batch: Batch, noise: Noise, update: str) -> dict[str, Tensor]:
        """The raw loss terms, each a scalar."""
        form = self.config.adversarial
        drawn = prior_labels(self.config.prior_labels, batch.labels, noise, self.num_classes)
        z = noise.normal(Draw.PRIOR_ZU, self.zu_dim)
        fake = self.decoder(conditional.conditional_codes(drawn, z, self.num_classes))
        augment = augmentation(self.config.augmentation, noise, [Group.REAL, Group.PRIOR])
        judged_images, labels = [batch.images, fake], [batch.labels, drawn]
        judged = judge(self.discriminator, judged_images, labels, form, augment=augment)
        return {
            "generator": losses.generator(judged.judging[1:], form),
            "discriminator": discriminator_term(judged.learning, form),
        }
