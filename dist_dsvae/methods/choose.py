"""The one place where a configuration chooses the method."""

from __future__ import annotations

from torch import nn

from dist_dsvae.config import (
    CGANConfig,
    ClassifierConfig,
    CVAEConfig,
    CVAEGANConfig,
    DSVAEConfig,
    MethodConfig,
    ModelConfig,
)
from dist_dsvae.core.types import ImageShape
from dist_dsvae.methods.cgan import CGAN
from dist_dsvae.methods.classifier import Classifier
from dist_dsvae.methods.cvae import CVAE
from dist_dsvae.methods.cvae_gan import CVAEGAN
from dist_dsvae.methods.dsvae import DSVAE


def make_method(config: MethodConfig, model: ModelConfig, shape: ImageShape, num_classes: int) -> nn.Module:
    """The method that ``config`` describes, an ``update.Method``, with fresh weights from torch's generator.

    Raises ValueError where its architecture does not fit the shape of the samples.
    """
    match config:
        case DSVAEConfig():
            return DSVAE(config, model, shape, num_classes)
        case CVAEConfig():
            return CVAE(config, model, shape, num_classes)
        case CGANConfig():
            return CGAN(config, model, shape, num_classes)
        case CVAEGANConfig():
            return CVAEGAN(config, model, shape, num_classes)
        case ClassifierConfig():
            return Classifier(config, model, shape, num_classes)
