"""The paper's method: Algorithm 1 as one module, one forward and one backward per step.

step "gm"     x -> encoder_s -> zs -> mixture prior -> L_GM                       (lines 3-8)

step "joint"  x -> encoder_s -> zs ------------------> likelihood                 (lines 10-29)
              x -> encoder_u -> N(mu, var) -> zu ----> kl, confusion | latent_classification
              zs ++ zu -> decoder -> x'_f -----------> reconstruction
              zs ~ N(mean_y, var_y) ++ zu ~ N(0, I) -> decoder -> x'_p
              x, x'_f, x'_p -> discriminator --------> generator | discriminator

step "unlabelled" is the joint step without labels (Sec. 3.6): zs ~ N(mean_t, var_t), the moments of the
whole mixture, takes the place of a class's Gaussian in the likelihood and in x'_p; the discriminator
judges without a label; nothing is classified, and the mixture and the latent classifier stay.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dist_dsvae import losses
from dist_dsvae.config import DSVAEConfig, ModelConfig
from dist_dsvae.methods.adversarial import discriminator_term, generator_term, judge, prior_labels
from dist_dsvae.methods.conditional import autoencoder_weights
from dist_dsvae.methods.routing import Route, RoutingTable, largest_weight, scale_gradient, shared_pass
from dist_dsvae.methods.step import Reduction, Step
from dist_dsvae.models.architectures import architecture_for
from dist_dsvae.models.decoder import Decoder
from dist_dsvae.models.discriminator import Discriminator
from dist_dsvae.models.encoder import EncoderS, EncoderU, sample_gaussian
from dist_dsvae.models.latent_classifier import LatentClassifier
from dist_dsvae.models.mixture_prior import (
    MixturePrior,
    gaussian_log_density,
    squared_distance,
    standard_normal_log_density,
)
from dist_dsvae.noise import Draw, Noise, Normals
from dist_dsvae.types import Batch, Codes, Gaussian, ImageShape


def routing_table(config: DSVAEConfig, shape: ImageShape, zu_dim: int) -> RoutingTable:
    """Which term trains which network with which weight (Algorithm 1, lines 25-29).

    Weights multiply the terms as ``losses`` defines them. "reference" is what the authors' code
    runs: 10 x mean squared error in all three networks, likelihood 10 x lambda_lkd, KL averaged
    over zu. "paper" is the text taken literally: 1/2 of the summed squared error for encoder_s and
    decoder, lambda_rec = 1/N_zu of that for encoder_u, lambda_kl = 10/N_pixel of the summed KL.
    """
    rec_u, rec, kl = autoencoder_weights(config.loss_weights, shape, zu_dim)
    scale = 10.0 if config.loss_weights == "reference" else 1.0
    r = config.reconstruction_weight
    without_labels: RoutingTable = {
        "reconstruction": {"encoder_s": r * rec, "encoder_u": r * rec_u, "decoder": r * rec},
        "likelihood": {"encoder_s": scale * config.likelihood_weight},
        "kl": {"encoder_u": config.kl_weight * kl},
        "generator": {"decoder": config.generator_weight},
        "discriminator": {"discriminator": 1.0},
    }
    return {
        "gm": {"encoder_s": 1.0, "mixture_prior": 1.0},
        **without_labels,
        "confusion": {"encoder_u": config.confusion_weight},
        "latent_classification": {"latent_classifier": 1.0},
        **{_UNLABELLED + term: trained for term, trained in without_labels.items()},
        f"{_UNLABELLED}likelihood": {"encoder_s": scale * config.unlabelled_likelihood_weight},
    }


_UNLABELLED = "unlabelled_"


class _Autoencoded(NamedTuple):
    """Codes of images, and the decoder's image of them twice.

    reconstructed: its gradient goes into decoder and encoders. fake: into the decoder alone.
    """

    zs: Tensor
    zu: Tensor
    posterior: Gaussian
    reconstructed: Tensor
    fake: Tensor


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
        self.encoder_s = EncoderS(architecture, shape, model.zs_dim)
        self.encoder_u = EncoderU(architecture, shape, model.zu_dim)
        self.decoder = Decoder(architecture, shape, model.zs_dim + model.zu_dim)
        self.latent_classifier = LatentClassifier(architecture, model.zu_dim, num_classes)
        self.discriminator = Discriminator(architecture, shape, num_classes)
        self.mixture_prior = MixturePrior(num_classes, model.zs_dim, config.log_variance_floor)
        self.averaged = "decoder"
        self.routing = routing_table(config, shape, model.zu_dim)
        self.steps = _steps(config, self.routing)

    def forward(self, batch: Batch, noise: Noise, step: str) -> dict[str, Tensor]:
        """The raw loss terms of one step, each a scalar."""
        if step == "gm":
            return self._gm_terms(batch)
        return self._joint_terms(batch, noise) if step == "joint" else self._unlabelled_terms(batch, noise)

    # Stage 1: the GM loss (Eq. 9)

    def _gm_terms(self, batch: Batch) -> dict[str, Tensor]:
        zs, labels = self.encoder_s(batch.images), batch.labels
        log_densities = self.mixture_prior.log_densities(zs)
        likelihood = -log_densities.gather(1, labels[:, None]).mean()
        if self.config.gm_margin:
            distance = squared_distance(zs, self.mixture_prior.component(labels))
            log_densities = losses.with_margin(log_densities, labels, distance, self.config.gm_margin)
        classification = losses.gm_classification(log_densities, labels)
        return {"gm": classification + self.config.likelihood_weight * likelihood}

    # The joint step (Algorithm 1, lines 10-29)

    def _joint_terms(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        images, labels = batch.images, batch.labels
        zs, zu, posterior, reconstructed, fake = self._autoencoded(images, noise)

        # The mixture is trained by stage 1 alone: here it is a constant.
        own_class = Gaussian(*(t.detach() for t in self.mixture_prior.component(labels)))
        likelihood = -gaussian_log_density(zs, own_class).mean()

        confused_logits, learning_logits = shared_pass(
            self.latent_classifier, [zu], [Route.INPUTS, Route.PARAMETERS]
        )
        drawn_labels, drawn_codes = self._training_prior(labels, noise)
        prior_fake = self.decoder(drawn_codes)

        form = self.config.adversarial
        judged = judge(self.discriminator, [images, fake, prior_fake], [labels, labels, drawn_labels], form)
        real, *fakes = judged.learning
        return {
            "reconstruction": losses.reconstruction(images, reconstructed),
            "likelihood": likelihood,
            "kl": losses.kl_to_standard_normal(posterior),
            "confusion": losses.confusion(confused_logits),
            "latent_classification": losses.latent_classification(learning_logits, labels),
            "generator": generator_term(judged.judging[1:], form),
            "discriminator": discriminator_term(real, fakes, form),
        }

    def _autoencoded(self, images: Tensor, noise: Noise) -> _Autoencoded:
        zs = self.encoder_s(images)
        posterior: Gaussian = self.encoder_u(images)
        zu = sample_gaussian(posterior, noise.normal(Draw.POSTERIOR_ZU, self.zu_dim))
        # The decoder's two outputs are one image: the generator term trains the decoder only.
        weights = self.routing["reconstruction"]
        largest = largest_weight(self.routing, "reconstruction")
        codes = torch.cat(
            [
                scale_gradient(zs, weights["encoder_s"] / largest if largest else 0.0),
                scale_gradient(zu, weights["encoder_u"] / largest if largest else 0.0),
            ],
            dim=1,
        )
        reconstructed, fake = shared_pass(self.decoder, [codes], [Route.BOTH, Route.PARAMETERS])
        return _Autoencoded(zs, zu, posterior, reconstructed, fake)

    def _training_prior(self, labels: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Labels [B] and codes [B, zs_dim + zu_dim] of the prior samples x'_p; no gradient."""
        labels = prior_labels(self.config.prior_labels, labels, noise, self.num_classes)
        with torch.no_grad():
            zs = self.mixture_prior.sample(labels, noise.normal(Draw.PRIOR_ZS, self.zs_dim))
            zu = noise.normal(Draw.PRIOR_ZU, self.zu_dim)
            return labels, torch.cat([zs, zu], dim=1)

    # The unlabelled step (Sec. 3.6)

    def _unlabelled_terms(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        images = batch.images
        zs, _, posterior, reconstructed, fake = self._autoencoded(images, noise)
        with torch.no_grad():
            moments = self.mixture_prior.total_moments()
            whole = Gaussian(*(moment.to(noise.dtype)[None] for moment in moments))
            drawn_zs = sample_gaussian(whole, noise.normal(Draw.PRIOR_ZS, self.zs_dim))
            codes = torch.cat([drawn_zs, noise.normal(Draw.PRIOR_ZU, self.zu_dim)], dim=1)
        prior_fake = self.decoder(codes)
        form = self.config.adversarial
        judged = judge(self.discriminator, [images, fake, prior_fake], None, form)
        real, *fakes = judged.learning
        terms = {
            "reconstruction": losses.reconstruction(images, reconstructed),
            "likelihood": -gaussian_log_density(zs, whole).mean(),
            "kl": losses.kl_to_standard_normal(posterior),
            "generator": generator_term(judged.judging[1:], form),
            "discriminator": discriminator_term(real, fakes, form),
        }
        return {_UNLABELLED + name: term for name, term in terms.items()}

    # Once trained (``abilities``)

    def prior_codes(self, labels: Tensor, zs_noise: Normals, zu_noise: Normals) -> Tensor:
        """[B, zs_dim + zu_dim]: zs ~ N(mean_y, var_y), zu ~ N(0, I)."""
        zs = self.mixture_prior.sample(labels, zs_noise.normal(Draw.SAMPLE_ZS, self.zs_dim))
        return torch.cat([zs, zu_noise.normal(Draw.SAMPLE_ZU, self.zu_dim)], dim=1)

    def log_prior(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        """[B]: of zs under its class's Gaussian, or the whole mixture, and of zu under N(0, I)."""
        zs, zu = codes[:, : self.zs_dim], codes[:, self.zs_dim :]
        return self.mixture_prior.log_prior(zs, labels) + standard_normal_log_density(zu)

    def decode(self, codes: Tensor) -> Tensor:
        images: Tensor = self.decoder(codes)
        return images

    def encode(self, images: Tensor, labels: Tensor) -> Codes:
        return self.encode_unlabelled(images)

    def encode_unlabelled(self, images: Tensor) -> Codes:
        return Codes(self.encoder_s(images), self.encoder_u(images))

    def log_posterior(self, images: Tensor) -> Tensor:
        """log p(label | zs) of the mixture."""
        return self.mixture_prior.log_posterior(self.encoder_s(images))


def _steps(config: DSVAEConfig, routing: RoutingTable) -> tuple[Step, ...]:
    """The steps of one iteration; those with 0 repeats are left out."""
    unlabelled_terms = tuple(term for term in routing if term.startswith(_UNLABELLED))
    if config.joint_batch == "last" and config.joint_steps and not config.gm_steps:
        raise ValueError(
            'method.joint_batch is "last", the batch of the last stage-1 update, but method.gm_steps is 0. '
            'Set one to 1 or more, or the other to "fresh".'
        )
    steps = (
        Step(
            name="gm",
            repeats=config.gm_steps,
            terms=("gm",),
            trains=("encoder_s", "mixture_prior"),
            reduction=Reduction.FLAT,
            variances=("mixture_prior.log_variance",),
        ),
        Step(
            name="joint",
            repeats=config.joint_steps,
            terms=tuple(term for term in routing if term != "gm" and term not in unlabelled_terms),
            trains=("encoder_s", "encoder_u", "decoder", "latent_classifier", "discriminator"),
            reduction=Reduction.OVERLAPPED,
            fresh_batch=config.joint_batch == "fresh",
        ),
        Step(
            name="unlabelled",
            repeats=config.unlabelled_steps,
            terms=unlabelled_terms,
            # without the label embedding, which gets no gradient
            trains=("encoder_s", "encoder_u", "decoder", "discriminator.layers", "discriminator.head"),
            reduction=Reduction.FLAT,
            split="unlabelled",
        ),
    )
    taken = tuple(step for step in steps if step.repeats)
    if not taken:
        raise ValueError(
            "method.gm_steps, method.joint_steps and method.unlabelled_steps are all 0, so there is nothing "
            "to train. Set at least one to 1 or more."
        )
    return taken
