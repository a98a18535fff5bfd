"""The one place where a configuration chooses the method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

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


def sketch_method(config: MethodConfig, model: ModelConfig, shape: ImageShape, num_classes: int) -> nn.Module:
    """``make_method``'s names and shapes, on the meta device: no memory, and no values. Raises as it does."""
    with torch.device("meta"), _Undrawn():
        return make_method(config, model, shape, num_classes)


class _Undrawn(TorchFunctionMode):
    """Normal weights are not drawn: PyTorch would import its compiler for what has no memory, in seconds."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if func in (Tensor.normal_, nn.init.normal_):
            return args[0] if args else named["tensor"]
        return func(*args, **named)
