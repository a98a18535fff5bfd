"""Weights in the type of autocast, cast for a whole network at once.

Autocast casts each weight by itself before its layer, and each gradient by itself after it: two small
operators per weight and step. ``JointCasts`` takes one for all weights of a network, and one for
their gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_CAST = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


class FullPrecisionLinear(nn.Linear):
    """[B, in] -> [B, out]: a small output layer in its weights' own precision, also under autocast.

    Codes, logits and scores feed log-densities and logarithms; these layers cost next to nothing.
    """

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.to(next(self.parameters()).dtype))


class OwnArithmetic:
    """Marks a layer that computes with its weight before autocast sees it, and needs it in full for that."""


def in_half(tensor: Tensor) -> Tensor:
    """In autocast's type where it is on: once, for several layers that would each cast it for themselves."""
    device = tensor.device.type
    if not torch.is_autocast_enabled(device):
        return tensor
    return tensor.to(torch.get_autocast_dtype(device))


def takes_half(layer: nn.Module) -> bool:
    """Whether autocast casts the weight and the bias of this layer."""
    return isinstance(layer, _CAST) and not isinstance(layer, FullPrecisionLinear | OwnArithmetic)


class JointCasts:
    """Callable: a context inside which ``networks`` hold the weights that autocast would cast in its type.

    jointly: all networks' weights, and gradients, are cast together, when the last gradient is there. Else
        one network after the other, so that reducing the gradients over processes can begin with the first.
    """

    def __init__(self, networks: Sequence[nn.Module], *, jointly: bool) -> None:
        self._slots = [
            [
                (layer, name)
                for layer in network.modules()
                if takes_half(layer)
                for name, parameter in layer._parameters.items()
                if parameter is not None
            ]
            for network in ([nn.ModuleList(networks)] if jointly else networks)
        ]

    @contextmanager
    def __call__(self, dtype: torch.dtype | None) -> Iterator[None]:
        """dtype: autocast's; None: there is none, and the weights stay as they are."""
        own: list[tuple[nn.Module, str, nn.Parameter]] = []
        try:
            for slots in self._slots if dtype is not None else ():
                weights = [layer._parameters[name] for layer, name in slots]
                if not weights:
                    continue
                for (layer, name), weight, half in zip(
                    slots, weights, _Cast.apply(dtype, *weights), strict=True
                ):
                    assert weight is not None
                    own.append((layer, name, weight))
                    layer._parameters[name] = half
            yield
        finally:
            for layer, name, weight in own:
                layer._parameters[name] = weight


class _Cast(torch.autograd.Function):
    """Tensors to another type, and their gradients back, by one operator each."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.originals = tensors
        return tuple(_copied(tensors, [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Gradients get the layout of the weights, whatever theirs is: optimiser and reduction want that."""
        given = [(o, g) for o, g in zip(ctx.originals, gradients, strict=True) if g is not None]
        full = iter(_copied([g for _, g in given], [torch.empty_like(o) for o, _ in given]))
        return None, *(None if g is None else next(full) for g in gradients)


def _copied(tensors: Sequence[Tensor], into: list[Tensor]) -> list[Tensor]:
    torch._foreach_copy_(into, list(tensors))
    return into
