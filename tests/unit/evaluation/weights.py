"""Random weights in the layouts that judges know, scaled so that signals reach the last layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def random_state(network: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """A state dict for ``network``, which may stand on the meta device: batch norms do little."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in network.state_dict().items():
        if not value.is_floating_point():
            state[name] = torch.zeros((), dtype=value.dtype)
        elif value.dim() > 1:
            scale = math.sqrt(2 / value[0].numel())
            state[name] = torch.randn(value.shape, generator=generator) * scale
        else:
            level = 1.0 if name.endswith(("bn.weight", "running_var")) else 0.0
            state[name] = level + 0.1 * torch.rand(value.shape, generator=generator)
    return state
