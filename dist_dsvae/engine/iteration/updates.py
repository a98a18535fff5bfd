"""The two ways of an update: forward, backward, gradients reduced over the processes, Adam.

flat         own gradients, ONE all-reduce of one flat tensor, fused Adam (Algorithm 1, lines 3-8)
overlapped   one forward and one backward under DistributedDataParallel or DeepSpeed (lines 10-29)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dist_dsvae.core import distributed
from dist_dsvae.core.noise import Noise
from dist_dsvae.core.types import Batch
from dist_dsvae.engine.iteration.guard import Guard
from dist_dsvae.engine.iteration.optimizer import Optimizer
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.methods.update import Method, Update, objective_and_terms, seed_gradient
from dist_dsvae.models.casting import JointCasts


class FlatUpdate:
    """Callable: one update from one batch; returns this rank's loss terms in the update's order, detached."""

    def __init__(
        self, method: nn.Module, update: Update, optimizer: Optimizer, guard: Guard, runtime: Runtime
    ) -> None:
        assert isinstance(method, Method)
        self.method: Method = method
        self.update = update
        self.optimizer = optimizer
        self.guard = guard
        self.runtime = runtime
        self.casts = JointCasts([method.get_submodule(network) for network in update.trains], jointly=True)

    def __call__(self, batch: Batch, noise: Noise) -> Tensor:
        with self.runtime.autocast(), self.casts(self.runtime.half):
            terms = self.method.forward(batch, noise, self.update.name)
            loss, values = objective_and_terms(self.method, self.update.terms, terms)
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


class OverlappedUpdate:
    """Callable: one update from one batch; returns this rank's loss terms in the update's order, detached."""

    def __init__(
        self,
        method: nn.Module,
        wrapped: nn.Module,
        update: Update,
        optimizer: Optimizer,
        guard: Guard,
        runtime: Runtime,
    ) -> None:
        assert isinstance(method, Method)
        self.method: Method = method
        self.wrapped = wrapped
        self.update = update
        self.optimizer = optimizer
        self.guard = guard
        self.runtime = runtime
        networks = [method.get_submodule(network) for network in update.trains]
        self.casts = JointCasts(networks, jointly=runtime.world_size == 1)

    def __call__(self, batch: Batch, noise: Noise) -> Tensor:
        with self.casts(self.runtime.half):
            terms: dict[str, Tensor] = self.wrapped(batch, noise, self.update.name)
        loss, values = objective_and_terms(self.method, self.update.terms, terms)
        self.runtime.backward(loss)
        bad = self.guard.inspect(self.update.name, values, batch.positions[0])
        self.guard.record(distributed.all_reduce_sum(bad))
        self.optimizer.step(self.guard.tripped, self.runtime.scaler)
        return values
