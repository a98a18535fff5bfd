"""What the batch norms of a network in evaluation mode normalise by: other statistics than the running ones.

Running statistics are moving averages over all that training put through a network, weights and inputs of
long ago among it. Statistics of one kind of inputs and of the very weights in use ("precise batch norm": Wu
and Johnson, "Rethinking Batch in BatchNorm", 2021) are measured and used here without touching the network:
its batch norms are answered with them, in the calling thread alone. So several threads may evaluate one
network, each with statistics of its own.

    network, batches --batch_sums--> sums, additive over batches and processes --statistics_of--> statistics
    network, statistics, inputs --normalised_by--> outputs

A network that only ever sees one kind of inputs has no need of that: better statistics may take the place of
its running ones (``replace_running``).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode


class Moments(NamedTuple):
    """Of what one batch norm is given, by channel [C]."""

    mean: Tensor
    variance: Tensor


Statistics = tuple[Moments, ...]  # of a network's batch norms, in the order of ``batch_norms``


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """The batch norms of a network, in the order of its modules."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


def normalised_by(network: nn.Module, statistics: Sequence[Moments]) -> AbstractContextManager[object]:
    """Inside, in this thread, ``network`` in evaluation mode normalises by ``statistics``."""
    return _Answering(network, lambda number, features: statistics[number])


def replace_running(network: nn.Module, statistics: Sequence[Moments]) -> Statistics:
    """Let ``statistics`` be the running ones of ``network``; returns those that were.

    The tensors change places and nothing is copied: given back what was returned, a network is as it was, to
    the bit and to the address. A network in training mode would move the tensors that it is given.
    """
    former = []
    for norm, (mean, variance) in zip(batch_norms(network), statistics, strict=True):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        former.append(Moments(norm.running_mean, norm.running_var))
        norm.running_mean, norm.running_var = mean, variance
    return tuple(former)


@torch.no_grad()
def batch_sums(network: nn.Module, inputs: Tensor) -> Tensor:
    """Sums of one batch [B, ...], B at least 2, through ``network`` in evaluation mode, float64 [1 + 2 * C].

    B, and B times the mean and the mean square of what each batch norm is given, over all C channels of
    all of them. Every one normalises by the batch's own statistics, as in training, but alone: without
    collectives.
    """
    found: dict[int, Moments] = {}

    def own(number: int, features: Tensor) -> Moments:
        dims = [0, *range(2, features.dim())]
        wide = features.float() if features.dtype.itemsize < 4 else features
        variance, mean = torch.var_mean(wide, dims, correction=0)
        found[number] = Moments(mean, variance)
        return found[number]

    with _Answering(network, own):
        network(inputs)
    means, variances = (torch.cat([found[n][i].double() for n in range(len(found))]) for i in (0, 1))
    count = len(inputs)
    return torch.cat([means.new_tensor([count]), count * means, count * (variances + means.square())])


def statistics_of(network: nn.Module, sums: Tensor) -> Statistics:
    """The statistics in added up ``batch_sums``, in the precision of the network's own.

    Of batches of equal size: the mean of the means, and E[variance] + Var[mean].
    """
    means, squares = (sums[1:] / sums[0]).chunk(2)
    variances = (squares - means.square()).clamp_min(0.0)
    norms = batch_norms(network)
    widths = [norm.num_features for norm in norms]
    by_norm = zip(norms, torch.split(means, widths), torch.split(variances, widths), strict=True)
    return tuple(
        Moments(mean.to(norm.weight.dtype), variance.to(norm.weight.dtype))
        for norm, mean, variance in by_norm
    )


class _Answering(TorchFunctionMode):
    """Answers the batch norms of ``network``, called in this thread, with ``moments(number, features)``.

    A batch norm in evaluation mode comes down to one call of torch's function, which knows it by its weight.
    """

    def __init__(self, network: nn.Module, moments: Callable[[int, Tensor], Moments]) -> None:
        super().__init__()
        self._numbers = {id(norm.weight): number for number, norm in enumerate(batch_norms(network))}
        self._moments = moments

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.batch_norm:
            given = _CALL.bind(*args, **(kwargs or {}))
            if (number := self._numbers.get(id(given.arguments.get("weight")))) is not None:
                mean, variance = self._moments(number, given.arguments["input"])
                given.arguments |= {"running_mean": mean, "running_var": variance, "training": False}
                return func(*given.args, **given.kwargs)
        return func(*args, **(kwargs or {}))


_CALL = inspect.signature(F.batch_norm)
