"""The joint step: one forward and one backward under DistributedDataParallel or DeepSpeed (lines 10-29).

Serves every step whose reduction is OVERLAPPED. All networks' gradients are taken at the same
parameters and applied together.
"""

from __future__ import annotations

from torch import Tensor, nn

from dist_dsvae.core import distributed
from dist_dsvae.core.noise import Noise
from dist_dsvae.core.types import Batch
from dist_dsvae.engine.iteration.guard import Guard
from dist_dsvae.engine.iteration.optimizer import Optimizer
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.methods.step import Method, Step, objective_and_terms
from dist_dsvae.models.casting import JointCasts


class OverlappedStep:
    """Callable: one update from one batch; returns this rank's loss terms in the step's order, detached."""

    def __init__(
        self,
        method: nn.Module,
        wrapped: nn.Module,
        step: Step,
        optimizer: Optimizer,
        guard: Guard,
        runtime: Runtime,
    ) -> None:
        assert isinstance(method, Method)
        self.method: Method = method
        self.wrapped = wrapped
        self.step = step
        self.optimizer = optimizer
        self.guard = guard
        self.runtime = runtime
        networks = [method.get_submodule(network) for network in step.trains]
        self.casts = JointCasts(networks, jointly=runtime.world_size == 1)

    def __call__(self, batch: Batch, noise: Noise) -> Tensor:
        with self.casts(self.runtime.half):
            terms: dict[str, Tensor] = self.wrapped(batch, noise, self.step.name)
        loss, values = objective_and_terms(self.method, self.step.terms, terms)
        self.runtime.backward(loss)
        bad = self.guard.inspect(self.step.name, values, batch.positions[0])
        self.guard.record(distributed.all_reduce_sum(bad))
        self.optimizer.step(self.guard.tripped, self.runtime.scaler)
        return values
