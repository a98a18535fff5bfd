"""The paper's method: Algorithm 1 as one module, one forward and one backward per update.

update "gm"     x -> encoder_s -> zs -> mixture prior -> L_GM                       (lines 3-8)

update "joint"  x -> encoder_s -> zs ------------------> likelihood                 (lines 10-29)
              x -> encoder_u -> N(mu, var) -> zu ----> kl, confusion | latent_classification
              zs ++ zu -> decoder -> x'_f -----------> reconstruction
              zs ~ N(mean_y, var_y) ++ zu ~ N(0, I) -> decoder -> x'_p
              x, x'_f, x'_p -> discriminator --------> generator | discriminator

With a Gaussian posterior (Eq. 2 without the limit of Eq. 7) encoder_s gives N(mean, var), zs is a draw
from it, and the likelihood is the divergence from N(mean_y, var_y). Terms beyond the paper, each an option:

              zu of the global batch ----------------> aggregate
              x'_p -> encoders -> N(zs), N(zu) ------> code_recovery

update "unlabelled" is the joint update without labels (Sec. 3.6): zs ~ N(mean_t, var_t), the moments of the
whole mixture, takes the place of a class's Gaussian in the likelihood and in x'_p; the discriminator
judges without a label; nothing is classified, and the mixture and the latent classifier stay.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dist_dsvae.config import DSVAEConfig, ModelConfig
from dist_dsvae.core.noise import Draw, Noise, Normals
from dist_dsvae.core.types import Batch, CodeKind, Codes, Gaussian, ImageShape
from dist_dsvae.methods.adversarial import discriminator_term, judge, prior_labels
from dist_dsvae.methods.dsvae_routing import UNLABELLED, routing_table, updates_of
from dist_dsvae.methods.global_batch import aggregate_divergence, all_rows
from dist_dsvae.methods.routing import Pass, Route, joint_passes, largest_weight, scale_gradient, shared_pass
from dist_dsvae.models import losses
from dist_dsvae.models.architectures import architecture_for
from dist_dsvae.models.augmentation import augmentation, stage_1_images
from dist_dsvae.models.blocks import running_statistics_kept
from dist_dsvae.models.casting import in_half
from dist_dsvae.models.decoder import Decoder
from dist_dsvae.models.discriminator import Discriminator, LatentClassifier
from dist_dsvae.models.encoder import DeterministicEncoder, GaussianEncoder, sample_gaussian
from dist_dsvae.models.mixture_prior import (
    MixturePrior,
    kl_divergence,
    squared_distance,
    standard_normal_log_density,
)
from dist_dsvae.models.sampled_classes import draw_classes, is_sampled, sampled_densities


class _Zs(NamedTuple):
    """zs [B, zs_dim] as the decoder gets it, and its posterior, None for the Dirac limit."""

    code: Tensor
    posterior: Gaussian | None


class _Autoencoded(NamedTuple):
    """Codes of images, the decoder's image of them twice, and its image of codes of the prior.

    reconstructed: its gradient goes into decoder and encoders. fake, prior_fake: into the decoder alone.
    """

    zs: _Zs
    zu: Tensor
    posterior: Gaussian
    reconstructed: Tensor
    fake: Tensor
    prior_fake: Tensor


class DSVAE(nn.Module):
    """Networks, routing table and forward of the paper's method.

    Raises ValueError where the architecture does not fit the shape of the samples.
    """

    def __init__(self, config: DSVAEConfig, model: ModelConfig, shape: ImageShape, num_classes: int) -> None:
        super().__init__()
        architecture = architecture_for(model.architecture, shape)
        self.config = config
        self.num_classes = num_classes
        self.zs_dim, self.zu_dim = model.zs_dim, model.zu_dim
        encoder_s = GaussianEncoder if config.zs_posterior == "gaussian" else DeterministicEncoder
        self.encoder_s = encoder_s(architecture, shape, model.zs_dim)
        self.encoder_u = GaussianEncoder(architecture, shape, model.zu_dim)
        self.decoder = Decoder(architecture, shape, model.zs_dim + model.zu_dim)
        self.latent_classifier = LatentClassifier(architecture, model.zu_dim, num_classes)
        self.discriminator = Discriminator(architecture, shape, num_classes, config.discriminator_gain)
        self.mixture_prior = MixturePrior(
            num_classes,
            model.zs_dim,
            config.log_variance_floor,
            fit=config.mixture_fit,
            spread=config.mixture_spread,
            separation=config.mixture_separation,
            pair_separation=config.mixture_pair_separation,
            unit_variance=config.mixture_variance == "unit",
        )
        self.averaged = ("decoder",)
        self.inference = ("encoder_s", "encoder_u", "decoder", "mixture_prior")
        self.routing = routing_table(config, shape, model.zu_dim)
        self.updates = updates_of(config, self.routing)

    def forward(self, batch: Batch, noise: Noise, update: str) -> dict[str, Tensor]:
        """The raw loss terms of one update, each a scalar."""
        if update == "gm":
            return self._gm_terms(batch, noise)
        return self._joint_terms(batch, noise) if update == "joint" else self._unlabelled_terms(batch, noise)

    # Stage 1: the GM loss (Eq. 9)

    def _gm_terms(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        seen = stage_1_images(self.config.stage_1_augmentation, batch.images, noise)
        zs, posterior = self._encode_s(seen, noise, Draw.STAGE_1_ZS)
        logits, column, own = self._class_densities(zs, batch, noise)
        margined = None
        if self.config.gm_margin:
            distance = squared_distance(zs, own or self.mixture_prior.component(batch.labels))
            margined = losses.with_margin(logits, column, distance, self.config.gm_margin)
        weight = self.config.likelihood_weight
        if posterior is None:
            loss = losses.gm(logits, column, weight, margined=margined)
        else:
            classification = losses.classification(logits if margined is None else margined, column)
            own = own or self.mixture_prior.component(batch.labels)
            loss = classification + weight * kl_divergence(posterior, own).mean()
        if self.training and self.config.mixture_fit == "moments":
            self._follow(
                Gaussian(zs, torch.full_like(zs, -torch.inf)) if posterior is None else posterior,
                batch.labels,
            )
        return {"gm": loss}

    def _class_densities(
        self, zs: Tensor, batch: Batch, noise: Noise
    ) -> tuple[Tensor, Tensor, Gaussian | None]:
        """Log-densities [B, K] of zs under the classes that L_cls compares, and the own class's column [B].

        With its Gaussian, where that was looked up.
        """
        others = self.config.sampled_classes
        if not is_sampled(others, self.num_classes):
            return self.mixture_prior.log_densities(zs), batch.labels, None
        first = all_rows(batch.positions[:1])[0]  # of the global batch
        drawn = draw_classes(noise.seed, first, self.num_classes, others + 1)
        logits, own = sampled_densities(self.mixture_prior, zs, batch.labels, drawn)
        return logits, torch.zeros_like(batch.labels), own

    def _follow(self, posterior: Gaussian, labels: Tensor) -> None:
        """The mixture moves towards the moments of the global batch's zs."""
        everyone = Gaussian(all_rows(posterior.mean), all_rows(posterior.log_variance))
        self.mixture_prior.follow(everyone, all_rows(labels), self.config.mixture_rate)

    # The joint update (Algorithm 1, lines 10-29)

    def _joint_terms(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        images, labels = batch.images, batch.labels
        # The mixture is trained by stage 1 alone: here it is a constant.
        drawn_labels, drawn_codes, own_class = self.training_prior(labels, noise)
        seen = in_half(images)
        zs, zu, posterior, reconstructed, fake, prior_fake = self._autoencoded(seen, drawn_codes, noise)

        confused_logits, learning_logits = shared_pass(
            self.latent_classifier, [zu], [Route.INPUTS, Route.PARAMETERS]
        )
        form, augment = self.config.adversarial, augmentation(self.config.augmentation, noise)
        judged_images = [images if augment else seen, fake, prior_fake]
        told = [labels, labels, drawn_labels]
        judged = judge(self.discriminator, judged_images, told, form, augment=augment)
        terms = {
            "reconstruction": losses.reconstruction(images, reconstructed),
            "likelihood": _likelihood(zs, own_class),
            "kl": losses.kl_to_standard_normal(posterior),
            "confusion": losses.confusion(confused_logits),
            "latent_classification": losses.classification(learning_logits, labels),
            "generator": losses.generator(judged.judging[1:], form),
            "discriminator": discriminator_term(judged.learning, form),
        }
        if "aggregate" in self.routing:
            terms["aggregate"] = aggregate_divergence(zu)
        if "code_recovery" in self.routing:
            terms["code_recovery"] = self._code_recovery(prior_fake, drawn_codes, drawn_labels)
        return terms

    def _encode_s(self, images: Tensor, noise: Normals, draw: Draw) -> _Zs:
        encoded = self.encoder_s(images)
        if self.config.zs_posterior == "dirac":
            return _Zs(encoded, None)
        return _Zs(sample_gaussian(encoded, noise.normal(draw, self.zs_dim)), encoded)

    def _autoencoded(self, images: Tensor, drawn_codes: Tensor, noise: Noise) -> _Autoencoded:
        zs = self._encode_s(images, noise, Draw.POSTERIOR_ZS)
        posterior: Gaussian = self.encoder_u(images)
        zu = sample_gaussian(posterior, noise.normal(Draw.POSTERIOR_ZU, self.zu_dim))
        # The decoder's two outputs are one image: the generator term trains the decoder only.
        weights = self.routing["reconstruction"]
        largest = largest_weight(self.routing, "reconstruction")
        codes = torch.cat(
            [
                scale_gradient(zs.code, weights["encoder_s"] / largest if largest else 0.0),
                scale_gradient(zu, weights["encoder_u"] / largest if largest else 0.0),
            ],
            dim=1,
        )
        (reconstructed, fake), (prior_fake,) = joint_passes(
            self.decoder,
            [Pass([codes], [Route.BOTH, Route.PARAMETERS]), Pass([drawn_codes], [Route.PARAMETERS])],
        )
        return _Autoencoded(zs, zu, posterior, reconstructed, fake, prior_fake)

    @torch.no_grad()
    def training_prior(self, labels: Tensor, noise: Noise) -> tuple[Tensor, Tensor, Gaussian]:
        """Labels and codes [B, zs_dim + zu_dim] of the prior samples x'_p, and ``labels``' own Gaussians."""
        own_class = self.mixture_prior.component(labels)
        drawn = prior_labels(self.config.prior_labels, labels, noise, self.num_classes)
        # most often the batch's own labels, whose Gaussians are looked up already
        of_drawn = own_class if drawn is labels else self.mixture_prior.component(drawn)
        zs = sample_gaussian(of_drawn, noise.normal(Draw.PRIOR_ZS, self.zs_dim))
        return drawn, torch.cat([zs, noise.normal(Draw.PRIOR_ZU, self.zu_dim)], dim=1), own_class

    def _code_recovery(self, prior_fake: Tensor, codes: Tensor, labels: Tensor) -> Tensor:
        """-log q(zs | x'_p) - log q(zu | x'_p) at the codes of x'_p; its gradient goes into x'_p alone.

        The encoders' running statistics are those of real images, so they stay. A certain zs is taken
        to be as uncertain as its class is wide.
        """
        zs, zu = codes[:, : self.zs_dim], codes[:, self.zs_dim :]
        with running_statistics_kept(self.encoder_s), running_statistics_kept(self.encoder_u):
            (found_zs,) = shared_pass(_OneTensor(self.encoder_s), [prior_fake], [Route.INPUTS])
            (found_zu,) = shared_pass(_OneTensor(self.encoder_u), [prior_fake], [Route.INPUTS])
        if self.config.zs_posterior == "dirac":
            of_zs = Gaussian(found_zs, self.mixture_prior.component(labels).log_variance.detach())
        else:
            of_zs = Gaussian(*found_zs.chunk(2, dim=1))
        return losses.code_recovery(of_zs, zs) + losses.code_recovery(Gaussian(*found_zu.chunk(2, dim=1)), zu)

    # The unlabelled update (Sec. 3.6)

    def _unlabelled_terms(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        images = batch.images
        with torch.no_grad():
            moments = self.mixture_prior.total_moments()
            whole = Gaussian(*(moment.to(noise.dtype)[None] for moment in moments))
            drawn_zs = sample_gaussian(whole, noise.normal(Draw.PRIOR_ZS, self.zs_dim))
            codes = torch.cat([drawn_zs, noise.normal(Draw.PRIOR_ZU, self.zu_dim)], dim=1)
        zs, zu, posterior, reconstructed, fake, prior_fake = self._autoencoded(images, codes, noise)
        form = self.config.adversarial
        augment = augmentation(self.config.augmentation, noise)
        judged = judge(self.discriminator, [images, fake, prior_fake], None, form, augment=augment)
        terms = {
            "reconstruction": losses.reconstruction(images, reconstructed),
            "likelihood": _likelihood(zs, whole),
            "kl": losses.kl_to_standard_normal(posterior),
            "generator": losses.generator(judged.judging[1:], form),
            "discriminator": discriminator_term(judged.learning, form),
        }
        if "aggregate" in self.routing:
            terms["aggregate"] = aggregate_divergence(zu)
        return {UNLABELLED + name: term for name, term in terms.items()}

    # Once trained (``abilities``)

    def prior_codes(self, labels: Tensor, zs_noise: Normals, zu_noise: Normals) -> Tensor:
        """[B, zs_dim + zu_dim]: zs ~ N(mean_y, var_y), zu ~ N(0, I)."""
        own_class = self.mixture_prior.component(labels)
        zs = sample_gaussian(own_class, zs_noise.normal(Draw.SAMPLE_ZS, self.zs_dim))
        return torch.cat([zs, zu_noise.normal(Draw.SAMPLE_ZU, self.zu_dim)], dim=1)

    def log_prior(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        """[B]: of zs under its class's Gaussian, or the whole mixture, and of zu under N(0, I)."""
        zs, zu = codes[:, : self.zs_dim], codes[:, self.zs_dim :]
        return self.mixture_prior.log_prior(zs, labels) + standard_normal_log_density(zu)

    def decode(self, codes: Tensor, code_kind: CodeKind) -> Tensor:
        return self.decoder.decode(codes, code_kind)

    def decoding_network(self) -> Decoder:
        return self.decoder

    def encode(self, images: Tensor, labels: Tensor) -> Codes:
        return self.encode_unlabelled(images)

    def encode_unlabelled(self, images: Tensor) -> Codes:
        return Codes(self._mean_zs(images), self.encoder_u(images))

    def encoding_networks(self) -> dict[str, nn.Module]:
        return {"encoder_s": self.encoder_s, "encoder_u": self.encoder_u}

    def encoding_input(self, images: Tensor, labels: Tensor) -> Tensor:
        return images

    def draw_codes(self, images: Tensor, labels: Tensor, noise: Normals) -> Tensor:
        """[B, zs_dim + zu_dim]: both codes drawn from their posteriors, as training decodes them."""
        zs = self._encode_s(images, noise, Draw.POSTERIOR_ZS).code
        zu = sample_gaussian(self.encoder_u(images), noise.normal(Draw.POSTERIOR_ZU, self.zu_dim))
        return torch.cat([zs, zu], dim=1)

    def log_posterior(self, images: Tensor) -> Tensor:
        """log p(label | zs) of the mixture, at the mean of zs's posterior."""
        return self.mixture_prior.log_posterior(self._mean_zs(images))

    def _mean_zs(self, images: Tensor) -> Tensor:
        encoded = self.encoder_s(images)
        mean: Tensor = encoded if self.config.zs_posterior == "dirac" else encoded.mean
        return mean


def _likelihood(zs: _Zs, prior: Gaussian) -> Tensor:
    """-log N(zs; prior) without the constant, or the divergence of zs's posterior from the prior."""
    if zs.posterior is None:
        return losses.likelihood(zs.code, prior)
    return kl_divergence(zs.posterior, prior).mean()


class _OneTensor(nn.Module):
    """A view of an encoder whose output is one tensor: mean and log-variance side by side."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        encoded = self.encoder(images)
        return torch.cat(list(encoded), dim=1) if isinstance(encoded, tuple) else encoded
