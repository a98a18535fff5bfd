"""Exponential moving average of a network's weights, driven by the samples seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class ExponentialMovingAverage:
    """Averages ``network``'s parameters with a half-life in samples; buffers are copied.

    In a network with batch norm the running statistics belong to the live weights; they are
    averages themselves, so the copies fit the averaged weights as well as anything does.
    """

    def __init__(self, network: nn.Module, half_life_samples: float) -> None:
        self.network = network
        self.half_life_samples = half_life_samples
        self.averaged = {name: t.detach().clone() for name, t in network.state_dict().items()}

    @torch.no_grad()
    def update(self, num_samples: int) -> None:
        """Move towards the live weights by ``num_samples`` samples' worth."""
        weight = 1.0 - 0.5 ** (num_samples / self.half_life_samples)
        parameters = dict(self.network.named_parameters())
        for name, live in self.network.state_dict().items():
            if name in parameters:
                self.averaged[name].lerp_(live, weight)
            else:
                self.averaged[name].copy_(live)

    def restart(self) -> None:
        """Begin anew at the live weights."""
        for name, live in self.network.state_dict().items():
            self.averaged[name].copy_(live)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The network holds the averaged weights inside, and its own again, to the bit, after."""
        own = {name: t.detach().clone() for name, t in self.network.state_dict().items()}
        self.network.load_state_dict(self.averaged)
        try:
            yield
        finally:
            self.network.load_state_dict(own)
