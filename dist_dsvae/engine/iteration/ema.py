"""Exponential moving average of the weights of a method's networks, at the pace of their updates.

    weight = 1 - 2^(-1/h)     of the live weights, per update of the averaged networks
    h = min(half-life, ramp-up x updates made before)

The ramp-up forgets the initial weights, which would dominate the average of a young run (Karras et al.,
"Elucidating the Design Space of Diffusion-Based Generative Models", 2022, code: ``ema_rampup_ratio``).

The weight is a function of ``samples_seen``, and lies in a tensor that the host fills before an iteration, as
it does with the learning rates: a captured graph reads it anew at every replay.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from dist_dsvae.config import TrainConfig
from dist_dsvae.core import distributed
from dist_dsvae.methods.update import Method, averaged_networks, in_network, put_weights, weights_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How fast an average follows the live weights, in iterations of the training loop.

    half_life: after so many, more than 0, half of what the average was is gone.
    ramp_up: the half-life is at most this share of the iterations made; 0: it is ``half_life`` throughout.
    """

    half_life: float
    ramp_up: float

    def weight(self, iteration: int) -> float:
        """Of the live weights in the average after ``iteration`` earlier ones; 1 at the start of a ramp."""
        half_life = min(self.half_life, self.ramp_up * iteration) if self.ramp_up else self.half_life
        return -math.expm1(-math.log(2.0) / half_life) if half_life else 1.0


def moving_average(
    method: nn.Module, train: TrainConfig, samples_per_iteration: int
) -> ExponentialMovingAverage | None:
    """The average that the configuration asks for, starting at the live weights; None if it asks for none.

    Raises ValueError if its half-life counts updates that no update makes.
    """
    if not train.averages:
        return None
    networks = averaged_networks(method, train)
    return ExponentialMovingAverage(method, networks, _pace(method, train, samples_per_iteration))


class ExponentialMovingAverage:
    """Averages the parameters of ``method``'s ``networks``; buffers are copied.

    In a network with batch norm the running statistics belong to the live weights; they are
    averages themselves, so the copies fit the averaged weights as well as anything does.
    """

    def __init__(self, method: nn.Module, networks: tuple[str, ...], pace: Pace) -> None:
        self.method = method
        self.networks = networks
        self.pace = pace
        live = weights_of(method, networks)
        self.averaged = {name: t.detach().clone() for name, t in live.items()}
        parameters = {
            name
            for network in networks
            for name, _ in method.get_submodule(network).named_parameters(
                prefix=in_network(networks, network)
            )
        }
        self._parameters = [name for name in live if name in parameters]
        self._buffers: dict[torch.dtype, list[str]] = {}  # by type: lists of one type take one launch
        for name, t in live.items():
            if name not in parameters:
                self._buffers.setdefault(t.dtype, []).append(name)
        first = live[self._parameters[0]]
        self.weight = torch.zeros((), dtype=first.dtype, device=first.device)
        self._filled = math.nan
        self.set_weight(0)

    def set_weight(self, iteration: int) -> None:
        """Set the pace for the iteration after ``iteration`` earlier ones; before it."""
        weight = self.pace.weight(iteration)
        if weight != self._filled:  # else not even a launch
            self._filled = weight
            self.weight.fill_(weight)

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the live weights by an iteration's worth."""
        live = weights_of(self.method, self.networks)
        averages = [self.averaged[name] for name in self._parameters]
        # torch's lerp over lists takes a weight on the host alone, or one as large as each tensor
        updates = torch._foreach_sub([live[name] for name in self._parameters], averages)
        torch._foreach_mul_(updates, self.weight)
        torch._foreach_add_(averages, updates)
        for names in self._buffers.values():
            torch._foreach_copy_([self.averaged[name] for name in names], [live[name] for name in names])

    @torch.no_grad()
    def restart(self) -> None:
        """Begin anew at the live weights."""
        for name, live in weights_of(self.method, self.networks).items():
            self.averaged[name].copy_(live)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The networks hold the averaged weights inside, and their own again, to the bit, after."""
        own = {name: t.detach().clone() for name, t in weights_of(self.method, self.networks).items()}
        put_weights(self.method, self.networks, self.averaged)
        try:
            yield
        finally:
            put_weights(self.method, self.networks, own)


@contextmanager
def weights_applied(
    ema: ExponentialMovingAverage | None, weights: Literal["auto", "ema", "raw"]
) -> Iterator[Literal["ema", "raw"]]:
    """Inside, the networks hold what ``evaluation.weights`` names; "auto": the average where there is one."""
    if ema is None or weights == "raw":
        yield "raw"
    else:
        with ema.applied():
            yield "ema"


def _pace(method: nn.Module, train: TrainConfig, samples_per_iteration: int) -> Pace:
    assert isinstance(method, Method)
    updates_per_iteration = sum(s.repeats for s in method.updates if set(method.averaged) <= set(s.trains))
    if train.ema_half_life_samples is not None:
        half_life = train.ema_half_life_samples / samples_per_iteration
        if distributed.is_main():
            logger.warning(
                "train.ema_half_life_samples is deprecated, because methods draw different numbers of "
                "samples for an update; train.ema_half_life_updates=%.3g is the same half-life, ramped up.",
                half_life * updates_per_iteration,
            )
        return Pace(half_life=half_life, ramp_up=0.0)
    if not updates_per_iteration:
        raise ValueError(
            f"train.ema_half_life_updates counts updates of {' and '.join(method.averaged)}, and no update "
            f"of this method makes any (its updates: {', '.join(u.name for u in method.updates)}). "
            "Set it to 0."
        )
    return Pace(half_life=train.ema_half_life_updates / updates_per_iteration, ramp_up=train.ema_ramp_up)
