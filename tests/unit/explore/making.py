"""Small models whose random pictures differ visibly from each other."""

from __future__ import annotations

import torch

from dist_dsvae.config import MethodConfig
from dist_dsvae.methods.published import Published
from dist_dsvae.pretrained.model import PretrainedModel
from tests.unit.pretrained.making import make_published

_CONTRAST = 8.0


def make_lively(config: MethodConfig, architecture: str = "small32") -> Published:
    """``make_published``, its decoder's last layer with more contrast."""
    published = make_published(config, architecture)
    with torch.no_grad():
        last = [weights for weights in published.method.decoder.parameters() if weights.dim() > 1][-1]
        last.mul_(_CONTRAST)
    return published


def make_model(config: MethodConfig, architecture: str = "small32") -> PretrainedModel:
    return PretrainedModel(make_lively(config, architecture))
