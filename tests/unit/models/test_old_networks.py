"""Networks that exist in old runs and published models: names and shapes of what they store stay."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import pytest
import torch
from torch import nn

from dist_dsvae.config import DSVAEConfig, ModelConfig
from dist_dsvae.core.types import ImageShape
from dist_dsvae.methods.dsvae import DSVAE

# recorded when these were all the families there were; zs_dim 8, zu_dim 6, 4 classes, 3 channels
RECORDED = {
    "vgg64": ("033f38b27b379b4d", "ffaf56cb0cc40b59"),
    "conv32": ("6db0838f174d19f7", "73a1fdda2a7c192a"),
    "conv32-reference": ("e9a7609fa3899b26", "0239de14ff4fc21e"),
    "small32": ("e1eff7af0c540c34", "4271390d1e5a5d11"),
    "small64": ("b929ed5a5be084b9", "40703e12b711ff25"),
    "mlp2d": ("6b81233e47b0b0a5", "9ad231b9dd9ad9b1"),
}
RENAMED = {"FullPrecisionLinear": "Linear", "GaussianEncoder": "EncoderU", "DeterministicEncoder": "EncoderS"}
SHAPES = {"vgg64": ImageShape(3, 64, 64), "small64": ImageShape(3, 64, 64), "mlp2d": ImageShape(2, 0, 0)}


def on_meta(architecture: str, shape: ImageShape) -> DSVAE:
    model = ModelConfig(architecture=architecture, zs_dim=8, zu_dim=6)
    with torch.device("meta"):
        return DSVAE(DSVAEConfig(), model, shape, 4)


def fingerprint(method: nn.Module) -> str:
    """Of all that is stored, by name and shape."""
    return digest(f"{name} {tuple(tensor.shape)}" for name, tensor in method.state_dict().items())


def operations(method: nn.Module) -> str:
    """Of what the state does not show: strides, pools and activations, in order."""
    settings = ("kernel_size", "stride", "padding", "output_padding", "output_size", "negative_slope")
    return digest(
        " ".join([name, kind(module), *(str(getattr(module, s, "")) for s in settings)])
        for name, module in method.named_modules()
        if "parametrizations" not in name and name != "decoder.statistics"  # holds what is measured
    )


def kind(module: nn.Module) -> str:
    """By the name of its type then: heads always worked in full precision, as the present name says."""
    name = type(module).__name__
    for now, then in RENAMED.items():
        name = name.replace(now, then)
    return name


def digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def test_the_rule_at_64_is_the_papers_network() -> None:
    method = on_meta("vgg", ImageShape(3, 64, 64))
    assert (fingerprint(method), operations(method)) == RECORDED["vgg64"]


@pytest.mark.parametrize("architecture", RECORDED)
def test_old_names_build_the_same_networks(architecture: str) -> None:
    method = on_meta(architecture, SHAPES.get(architecture, ImageShape(3, 32, 32)))
    assert (fingerprint(method), operations(method)) == RECORDED[architecture]
