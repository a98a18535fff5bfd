"""What a method can do once it is trained, for those who sample and evaluate it.

    Generative    draws images of classes        dsvae, cvae, cgan, cvae_gan
    Autoencoding  encodes and decodes images     dsvae, cvae, cvae_gan
    LabelFree     the same, of unknown classes   dsvae
    PriorDensity  knows how likely codes are     dsvae, cvae, cvae_gan
    Classifying   guesses labels of images       dsvae, classifier

Whoever needs an ability asks for it with isinstance, and never for a method by name. From Python 3.12 on,
isinstance does not see what nn.Module finds only when it is asked for: an ability has no sub-module among
its members. All functions take and return tensors on the method's device. A method in training mode
normalises by the batch's own statistics. In evaluation mode its decoder does so by those of the kind of codes
that it is asked to decode, where they have been measured (``sampling.statistics_codes``), else by the
running ones; and its encoders by the running ones, which measured ones may replace.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from dist_dsvae.core.noise import Normals
from dist_dsvae.core.types import CodeKind, Codes
from dist_dsvae.models.decoder import Decoder


@runtime_checkable
class Generative(Protocol):
    """Draws codes of classes from its prior, and makes images of codes."""

    num_classes: int
    zu_dim: int

    def prior_codes(self, labels: Tensor, zs_noise: Normals, zu_noise: Normals) -> Tensor:
        """Codes [B, code_dim] of classes ``labels`` [B] from the draws SAMPLE_ZS and SAMPLE_ZU.

        Noise at equal positions gives equal codes: equal zu for equal positions of ``zu_noise``.
        """

    def decode(self, codes: Tensor, code_kind: CodeKind) -> Tensor:
        """[B, code_dim] -> images [B, C, H, W] in [-1, 1], or points [B, C]. code_kind: whose they are."""

    def decoding_network(self) -> Decoder:
        """What makes images of codes, and holds the statistics of each kind of them."""


@runtime_checkable
class Autoencoding(Generative, Protocol):
    """Encodes images; ``decode(cat([zs, zu]), "images")`` gives them back."""

    def encode(self, images: Tensor, labels: Tensor) -> Codes:
        """Codes of images [B, C, H, W] of classes ``labels`` [B]; dsvae does not look at the labels."""

    def encoding_networks(self) -> dict[str, nn.Module]:
        """What makes codes of images, by the names that the networks have in the method."""

    def encoding_input(self, images: Tensor, labels: Tensor) -> Tensor:
        """What ``encode`` gives each of them of images [B, C, H, W] of classes ``labels`` [B]."""

    def draw_codes(self, images: Tensor, labels: Tensor, noise: Normals) -> Tensor:
        """[B, code_dim]: the codes drawn from their posteriors, as training gives them to the decoder."""


@runtime_checkable
class LabelFree(Autoencoding, Protocol):
    """Encodes images also where there is no label, or one of a class that training never saw."""

    def encode_unlabelled(self, images: Tensor) -> Codes:
        """Codes of images [B, C, H, W]."""


@runtime_checkable
class PriorDensity(Protocol):
    """Knows how likely codes are before any image is seen."""

    def log_prior(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        """log p(codes | labels) [B] of codes [B, code_dim], differentiable; log p(codes) for None.

        Where a label is part of the code, it counts as given.
        """


@runtime_checkable
class Classifying(Protocol):
    """Guesses labels."""

    num_classes: int

    def log_posterior(self, images: Tensor) -> Tensor:
        """log p(label | image): [B, C, H, W] -> [B, num_classes]."""
