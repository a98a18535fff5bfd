"""What the engine needs to know of any method: its updates, its terms, its networks and their averages."""

from __future__ import annotations

import enum
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from dist_dsvae.config import TrainConfig
from dist_dsvae.core.noise import Noise
from dist_dsvae.core.types import Batch
from dist_dsvae.methods.routing import RoutingTable, largest_weight

Split = Literal["train", "unlabelled"]


class Reduction(enum.Enum):
    """How an update's gradients are averaged over processes."""

    # one all-reduce of one flat tensor: for small updates, and for those that leave out a part of what
    # the others train, which DistributedDataParallel's buckets would wait for
    FLAT = "flat"
    OVERLAPPED = "overlapped"  # DistributedDataParallel: buckets reduced while backward runs


@dataclass(frozen=True, kw_only=True, slots=True)
class Update:
    """One kind of update.

    name: key of the forward's ``update`` argument, of the optimiser and of the timings.
    repeats: how often it runs per iteration.
    terms: the loss terms that the forward returns for it.
    trains: the sub-modules of the method whose parameters it updates.
    variances: names of the parameters among those that follow the variances' learning rate.
    fresh_batch: draws a batch of its own; otherwise takes the batch of the update before it.
    split: the data that its batches come from: "train", or "unlabelled", whose labels mean nothing.
    """

    name: str
    repeats: int = 1
    terms: tuple[str, ...]
    trains: tuple[str, ...]
    reduction: Reduction = Reduction.OVERLAPPED
    variances: tuple[str, ...] = ()
    fresh_batch: bool = True
    split: Split = "train"

    @property
    def num_batches(self) -> int:
        return self.repeats if self.fresh_batch else 0


@runtime_checkable
class Method(Protocol):
    """An nn.Module with updates and a routing table.

    forward returns the raw terms of an update by name; ``objective`` adds them up with the weights of
    the routing table, and ONE backward of it gives every network the gradient the table says.

    averaged: the sub-modules whose weights a moving average of the decoder follows, and whose updates it
        counts.
    inference: those that a trained method still needs, to draw, encode or classify; an average of all
        follows them.
    """

    updates: tuple[Update, ...]
    routing: RoutingTable
    averaged: tuple[str, ...]
    inference: tuple[str, ...]
    num_classes: int

    def forward(self, batch: Batch, noise: Noise, update: str) -> dict[str, Tensor]: ...


def objective(method: Method, names: Sequence[str], terms: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The sum whose gradient is the routing table's: each term with its largest weight.

    Networks with a smaller weight in the same term have their gradient scaled in the forward.
    With it, the terms side by side in the order of ``names``, [number of terms], detached.
    """
    weights = tuple(largest_weight(method.routing, name) for name in names)
    if weights == (1.0,):
        (term,) = (terms[name] for name in names)
        return term, term.detach()[None]
    total, values = _WeightedSum.apply(weights, *(terms[name] for name in names))
    return total, values


class _WeightedSum(torch.autograd.Function):
    """Of scalars, and the scalars side by side; all products at once, forward and backward."""

    @staticmethod
    def forward(ctx: Any, weights: tuple[float, ...], *terms: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        values = torch.stack(terms)
        ctx.weights = constants(weights, values.dtype, values.device)
        ctx.mark_non_differentiable(values)
        return torch.dot(values, ctx.weights), values

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return None, *(gradients[0] * ctx.weights).unbind()


@functools.cache
def constants(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """On the device once and for all: a captured graph must not copy them there."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


def seed_gradient(loss: Tensor) -> Tensor:
    """The 1 that a backward pass of a scalar begins with; autograd would make one every time."""
    return constants((1.0,), loss.dtype, loss.device)[0]


def parameter_groups(method: Method, update: Update) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """Named parameters of one update's optimiser by group: "weights", and "variances" where there are any."""
    groups: dict[str, list[tuple[str, nn.Parameter]]] = {"weights": [], "variances": []}
    for network in update.trains:
        module = cast(nn.Module, method).get_submodule(network)
        for name, parameter in module.named_parameters(prefix=network):
            groups["variances" if name in update.variances else "weights"].append((name, parameter))
    return {name: parameters for name, parameters in groups.items() if parameters}


def averaged_networks(method: nn.Module, train: TrainConfig) -> tuple[str, ...]:
    """The sub-modules of ``method`` that ``train.ema_networks`` names."""
    assert isinstance(method, Method)
    return method.averaged if train.ema_networks == "decoder" else method.inference


def weights_of(method: nn.Module, networks: tuple[str, ...]) -> dict[str, Tensor]:
    """Parameters and buffers of the networks, live, under the names that an average gives them.

    Those of a single network have the names that they have in it, as checkpoints always had them.
    """
    weights: dict[str, Tensor] = {}
    for network in networks:
        prefix = in_network(networks, network)
        weights |= method.get_submodule(network).state_dict(prefix=f"{prefix}." if prefix else "")
    return weights


def in_network(networks: tuple[str, ...], network: str) -> str:
    """The prefix of a network's names among those of ``weights_of``."""
    return network if len(networks) > 1 else ""


@torch.no_grad()
def put_weights(method: nn.Module, networks: tuple[str, ...], weights: Mapping[str, Tensor]) -> None:
    """Copy what ``weights_of`` names into the networks."""
    for name, live in weights_of(method, networks).items():
        live.copy_(weights[name])
