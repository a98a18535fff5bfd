"""The two ways of an update: forward, backward, gradients reduced over the processes, Adam.

flat         own gradients, ONE all-reduce of one flat tensor, fused Adam (Algorithm 1, lines 3-8)
overlapped   one forward and one backward under DistributedDataParallel or DeepSpeed (lines 10-29)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from dist_dsvae.core import distributed
from dist_dsvae.core.noise import Noise
from dist_dsvae.core.types import Batch
from dist_dsvae.engine.iteration.guard import Guard
from dist_dsvae.engine.iteration.zero import Optimizer
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.methods.update import Method, Reduction, Update, objective, seed_gradient
from dist_dsvae.models.casting import JointCasts


@dataclass(eq=False)
class _OneUpdate:
    """Callable: one update from one batch; returns this rank's loss terms in the update's order, detached."""

    method: Method
    update: Update
    optimizer: Optimizer
    guard: Guard
    runtime: Runtime

    def __post_init__(self) -> None:
        networks = [cast(nn.Module, self.method).get_submodule(network) for network in self.update.trains]
        jointly = self.update.reduction is Reduction.FLAT or self.runtime.world_size == 1
        self.casts = JointCasts(networks, jointly=jointly)


class FlatUpdate(_OneUpdate):
    """Its gradients are reduced once all of them are there."""

    def __call__(self, batch: Batch, noise: Noise) -> Tensor:
        with self.runtime.autocast(), self.casts(self.runtime.half):
            terms = self.method.forward(batch, noise, self.update.name)
            loss, values = objective(self.method, self.update.terms, terms)
        scaler = self.runtime.scaler
        if scaler is not None:
            loss = scaler.scale(loss)
        # autograd.grad, not backward: DistributedDataParallel's hooks must not see this update
        parameters = self.optimizer.parameters
        found = torch.autograd.grad(loss, parameters, seed_gradient(loss))
        gradients = [_laid_out_like(gradient, p) for gradient, p in zip(found, parameters, strict=True)]
        bad = self.guard.inspect(self.update.name, values, batch.positions[0])
        *averaged, bad_anywhere = distributed.all_reduce_flat([*gradients, bad.to(gradients[0].dtype)])
        for parameter, gradient in zip(self.optimizer.parameters, averaged, strict=True):
            parameter.grad = gradient
        self.guard.record(bad_anywhere)
        self.optimizer.step(self.guard.tripped, scaler)
        return values


def _laid_out_like(gradient: Tensor, parameter: Tensor) -> Tensor:
    """The gradient with the parameter's strides.

    backward() promises that, autograd.grad does not, and the fused optimiser reads both linearly.
    """
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


@dataclass(eq=False)
class OverlappedUpdate(_OneUpdate):
    """Its gradients are reduced by ``wrapped``, as ``Runtime.wrap`` gives it, while backward runs."""

    wrapped: nn.Module

    def __call__(self, batch: Batch, noise: Noise) -> Tensor:
        values = self._backward(batch, noise)
        bad = self.guard.inspect(self.update.name, values, batch.positions[0])
        self.guard.record(distributed.all_reduce_sum(bad))
        self.optimizer.step(self.guard.tripped, self.runtime.scaler)
        return values

    def _backward(self, batch: Batch, noise: Noise) -> Tensor:
        """Leaves the gradients in ``.grad``; returns the terms."""
        with self.casts(self.runtime.half):
            terms: dict[str, Tensor] = self.wrapped(batch, noise, self.update.name)
        loss, values = objective(self.method, self.update.terms, terms)
        self.runtime.backward(loss)
        return values

    def warm_up_buckets(self, batch: Batch, noise: Noise) -> None:
        """Have DistributedDataParallel lay its buckets out as they will stay. Changes buffers alone.

        It does so after its first backward pass, by the order in which gradients came. Where a sum over three
        ranks or more is rounded depends on its place in a bucket, so no pass before that may count: which one
        was the first differs between a run that was resumed and one that was not.
        """
        self._backward(batch, noise)
        self.wrapped.zero_grad(set_to_none=True)
