"""What each method lets an experiment choose; the section ``method`` of a configuration.

Its ``name`` tells which of these dataclasses it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dist_dsvae.config.fields import LARGE, between, positive


@dataclass(frozen=True, kw_only=True, slots=True)
class DSVAEConfig:
    """The paper's method (Algorithm 1) with every choice on which paper and reference differ.

    name: which method the section describes.
    gm_updates: updates by L_GM (stage 1) per iteration, n_gm; each takes a fresh batch. Formerly gm_steps.
    joint_updates: joint updates per iteration (Algorithm 1: one). Formerly joint_steps.
    unlabelled_updates: updates per iteration from batches of data.unlabelled (Sec. 3.6). Their number beside
        the labelled ones' is the ratio in which both are mixed; with gm_updates and joint_updates 0 only
        unlabelled images are trained on. Formerly unlabelled_steps.
    unlabelled_likelihood_weight: lambda_lkd of the updates from data.unlabelled. It draws every zs towards
        one point, the mean of the mixture, so a large one takes from zs what tells new classes apart.
    likelihood_weight: lambda_lkd of Eq. 9.
    gm_margin: scales the true class's squared distance by 1 + margin in L_cls.
    sampled_classes: L_cls compares the own class with so many others, drawn anew for every batch, instead of
        with all: less time and memory where there are tens of thousands of classes. 0, or as many as there
        are others: all of them.
    loss_weights: "reference" (10 x mean squared error, KL averaged over the dimensions of the code) or
        "paper" (the text's lambdas, taken literally); see ``methods.conditional.autoencoder_weights``.
    reconstruction_weight: multiplies the weight of the reconstruction's squared error, which loss_weights
        gives.
    kl_weight: multiplies the weight of the label-irrelevant code's divergence from N(0, I), which
        loss_weights gives.
    confusion_weight: of L_adv^E (Eq. 5), by which encoder_u hides the label from the latent classifier.
    generator_weight: of the adversarial loss by which the discriminator trains the decoder.
    adversarial: form of the adversarial losses, "logistic" (non-saturating, Eq. 10) or "hinge" (reference).
    prior_labels: labels of the prior samples x'_p: the batch's ("batch") or uniform ("uniform").
    augmentation: the discriminator sees real and generated images recoloured, moved and partly covered, so
        that it cannot learn a small data set by heart (``models.augmentation``). "auto" is "on" below 5,000
        training images, "off" from there on and for points; the run's config.json records which. A run
        that is resumed keeps what it began with.
    stage_1_augmentation: "on": while encoder_s learns labels (stage 1) it sees images turned, scaled, moved
        and recoloured, so that it cannot learn those of a small data set by heart (``models.augmentation``).
    joint_batch: the joint update's batch: "fresh", or the last stage-1 batch ("last").
    log_variance_floor: the mixture's log-variances are clamped from below (the likelihood is
        unbounded as a variance goes to 0).
    zs_posterior: "dirac", the limit that the paper takes (Eq. 7): zs is the encoder's output. "gaussian":
        q(zs|x) = N(mean, var) by the encoder, as Eq. 2 has it; the likelihood is then the divergence
        KL(q || N(mean_y, var_y)), and the decoder and L_cls are given samples.
    mixture_fit: "gradient" trains the mixture by L_GM (Algorithm 1); "moments" lets it follow the moments of
        the classes' zs, where the likelihood has its optimum; "fixed" leaves it as it begins.
    mixture_rate: of a mixture that follows moments: the share of the way per stage-1 update. A class's
        moments are averages over about data.batch_size / (number of classes * mixture_rate) of its samples:
        lower it for many classes.
    mixture_spread: standard deviation of the means at the beginning, in each dimension; 0: Xavier's. Two
        classes are then about sqrt(2 zs_dim) times as far apart: for hard classes keep that below a dozen.
    mixture_separation: a mixture that follows moments keeps its means at least so many standard deviations
        of a component apart, root mean square per dimension; 0 for another mixture_fit.
    mixture_pair_separation: a mixture that follows moments keeps any two classes' means at least so many
        standard deviations of a component (root mean square over dimensions and both) apart; 0 for another
        mixture_fit. It has to be well below sqrt(zs_dim / (e (1 - e))) where a share e of codes is mistaken.
        For 4,096 classes at most.
    mixture_variance: of a mixture that follows moments: "per_class" follows each class's; "unit" leaves them
        at 1, for classes of few images, whose moments are those of a handful of codes learned by heart.
    aggregate_weight: of the divergence of the global batch's zu, by mean and variance per dimension, from
        N(0, I); trains encoder_u.
    code_weight: of -log q(zs, zu | x'_p) of the codes that x'_p was made of; trains the decoder.
    discriminator_gain: multiplies the discriminator's scores, which spectral norm holds close to 0.
    """

    name: Literal["dsvae"] = "dsvae"
    gm_updates: int = between(0, 1000, 3, former="gm_steps")
    joint_updates: int = between(0, 1000, 1, former="joint_steps")
    unlabelled_updates: int = between(0, 1000, 0, former="unlabelled_steps")
    unlabelled_likelihood_weight: float = between(0, LARGE, 0.1)
    likelihood_weight: float = between(0, LARGE, 0.1)
    gm_margin: float = between(0, LARGE, 0.0)
    sampled_classes: int = between(0, LARGE, 0)
    loss_weights: Literal["reference", "paper"] = "reference"
    reconstruction_weight: float = between(0, LARGE, 1.0)
    kl_weight: float = between(0, LARGE, 1.0)
    confusion_weight: float = between(0, LARGE, 1.0)
    generator_weight: float = between(0, LARGE, 1.0)
    adversarial: Literal["logistic", "hinge"] = "logistic"
    prior_labels: Literal["batch", "uniform"] = "batch"
    augmentation: Literal["auto", "on", "off"] = "auto"
    stage_1_augmentation: Literal["on", "off"] = "off"
    joint_batch: Literal["fresh", "last"] = "fresh"
    log_variance_floor: float = between(-80, 0, -10.0)
    zs_posterior: Literal["dirac", "gaussian"] = "dirac"
    mixture_fit: Literal["gradient", "moments", "fixed"] = "gradient"
    mixture_rate: float = between(0, 1, 0.01)
    mixture_spread: float = between(0, LARGE, 0.0)
    mixture_separation: float = between(0, LARGE, 0.0)
    mixture_pair_separation: float = between(0, LARGE, 0.0)
    mixture_variance: Literal["per_class", "unit"] = "per_class"
    aggregate_weight: float = between(0, LARGE, 0.0)
    code_weight: float = between(0, LARGE, 0.0)
    discriminator_gain: float = between(0, LARGE, 1.0)

    def __post_init__(self) -> None:
        for key in ("mixture_separation", "mixture_pair_separation"):
            if getattr(self, key) and self.mixture_fit != "moments":
                raise ValueError(
                    f"method.{key} is {getattr(self, key):g}, but method.mixture_fit is "
                    f'"{self.mixture_fit}", and only a mixture that follows moments is held apart. Set '
                    f'mixture_fit to "moments", or {key} to 0.'
                )
        if self.mixture_variance == "unit" and self.mixture_fit != "moments":
            raise ValueError(
                f'method.mixture_variance is "unit", but method.mixture_fit is "{self.mixture_fit}". Set '
                'mixture_fit to "moments", or mixture_variance to "per_class".'
            )
        if not (self.gm_updates or self.joint_updates or self.unlabelled_updates):
            raise ValueError(
                "method.gm_updates, method.joint_updates and method.unlabelled_updates are all 0, so there "
                "is nothing to train. Set at least one to 1 or more."
            )
        if self.joint_batch == "last" and self.joint_updates and not self.gm_updates:
            raise ValueError(
                'method.joint_batch is "last", the batch of the last stage-1 update, but method.gm_updates '
                'is 0. Set one to 1 or more, or the other to "fresh".'
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class CVAEConfig:
    """Conditional VAE: encoder and decoder are told the label. Fields as in ``DSVAEConfig``."""

    name: Literal["cvae"] = "cvae"
    loss_weights: Literal["reference", "paper"] = "reference"
    reconstruction_weight: float = between(0, LARGE, 1.0)
    kl_weight: float = between(0, LARGE, 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class CGANConfig:
    """Conditional GAN with the projection discriminator. Fields as in ``DSVAEConfig``."""

    name: Literal["cgan"] = "cgan"
    discriminator_gain: float = between(0, LARGE, 1.0)
    adversarial: Literal["logistic", "hinge"] = "logistic"
    prior_labels: Literal["batch", "uniform"] = "batch"
    augmentation: Literal["auto", "on", "off"] = "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class CVAEGANConfig:
    """Conditional VAE whose images are judged by that discriminator. Fields as in ``DSVAEConfig``.

    feature_weight: of the squared distance between the discriminator's features of an image and of its
        reconstruction; trains encoder and decoder. 0 switches it off.
    mean_feature_weight: of the squared distance between the mean features of the batch's images and
        of the prior samples; trains the decoder. 0 switches it off.
    """

    name: Literal["cvae_gan"] = "cvae_gan"
    loss_weights: Literal["reference", "paper"] = "reference"
    reconstruction_weight: float = between(0, LARGE, 1.0)
    kl_weight: float = between(0, LARGE, 1.0)
    generator_weight: float = between(0, LARGE, 1.0)
    feature_weight: float = between(0, LARGE, 1.0)
    mean_feature_weight: float = between(0, LARGE, 1.0)
    discriminator_gain: float = between(0, LARGE, 1.0)
    adversarial: Literal["logistic", "hinge"] = "logistic"
    prior_labels: Literal["batch", "uniform"] = "batch"
    augmentation: Literal["auto", "on", "off"] = "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierConfig:
    """A classifier of the data set's own classes, to score generated images with.

    name: which method the section describes.
    width: channels of resnet32's first stage.
    dropout: before the last layer, during training.
    shift_pixels: each image is moved by up to so many pixels in both directions.
    label_smoothing: share of the target that is spread over all classes.
    """

    name: Literal["classifier"] = "classifier"
    width: int = positive(32)
    dropout: float = between(0, 0.99, 0.0)
    shift_pixels: int = between(0, 64, 0)
    label_smoothing: float = between(0, 0.99, 0.0)


MethodConfig = DSVAEConfig | CVAEConfig | CGANConfig | CVAEGANConfig | ClassifierConfig
