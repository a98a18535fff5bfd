"""Small models with random weights, as ``DSVAE.from_pretrained`` would open them."""

from __future__ import annotations

import torch

from dist_dsvae.config import CGANConfig, CVAEConfig, DSVAEConfig, MethodConfig, ModelConfig
from dist_dsvae.methods.choose import make_method
from dist_dsvae.methods.dsvae import DSVAE as Method
from dist_dsvae.methods.published import Published
from dist_dsvae.pretrained.model import DSVAE
from dist_dsvae.types import ImageShape

CLASSES = ("bag", "boot", "coat")
CONFIGS: dict[str, MethodConfig] = {"dsvae": DSVAEConfig(), "cvae": CVAEConfig(), "cgan": CGANConfig()}


def make_model(name: str = "dsvae", architecture: str = "small32", channels: int = 3) -> DSVAE:
    """Three classes that look different, zu of 8 dimensions."""
    torch.manual_seed(3)
    shape = ImageShape(2, 0, 0) if architecture == "mlp2d" else ImageShape(channels, 32, 32)
    model = ModelConfig(architecture=architecture, zs_dim=6, zu_dim=8)
    method = make_method(CONFIGS[name], model, shape, len(CLASSES))
    with torch.no_grad():
        for weights in method.decoder.parameters():
            weights.mul_(2)  # fresh weights draw nearly equal greys
        if isinstance(method, Method):
            method.mixture_prior.mean.normal_(0, 2)
    about = {"run": "tiny <b>model</b>"}
    return DSVAE(Published(method, shape, CLASSES, CONFIGS[name], model, about))
