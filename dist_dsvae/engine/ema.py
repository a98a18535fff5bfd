"""Exponential moving average of a network's weights, driven by the samples seen."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call


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

    def network_with_average(self) -> Callable[[Tensor], Tensor]:
        """The network as a function that runs on the averaged weights."""

        def call(inputs: Tensor) -> Tensor:
            output: Tensor = functional_call(self.network, self.averaged, (inputs,))
            return output

        return call
