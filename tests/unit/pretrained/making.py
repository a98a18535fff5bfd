"""Small models with random weights, published for tests."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from dist_dsvae.config import MethodConfig, ModelConfig
from dist_dsvae.methods.published import Published
from dist_dsvae.pretrained.model import PretrainedModel
from tests.unit.methods.making import NUM_CLASSES, SHAPES, make_any

CLASSES = ("boot", "bag", "coat", "dress", "T-shirt/top")
assert len(CLASSES) == NUM_CLASSES


def make_published(config: MethodConfig, architecture: str = "small32") -> Published:
    """A model whose batch norm has seen data, so that its pictures are more than grey."""
    method = make_any(config, architecture).float()
    method.apply(_stir)
    model = ModelConfig(architecture=architecture, zs_dim=6, zu_dim=4)
    return Published(method, SHAPES.get(architecture, SHAPES["small32"]), CLASSES, config, model, {})


def make_model(config: MethodConfig, architecture: str = "small32", batch_size: int = 256) -> PretrainedModel:
    return PretrainedModel(make_published(config, architecture), batch_size=batch_size)


def _stir(module: torch.nn.Module) -> None:
    if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
        assert module.running_var is not None
        module.running_var.fill_(0.3)


def pixels(count: int, channels: int = 1) -> npt.NDArray[np.uint8]:
    """uint8 [count, 32, 32, channels] noise."""
    rng = np.random.default_rng(count)
    return rng.integers(0, 256, (count, 32, 32, channels), dtype=np.uint8)
