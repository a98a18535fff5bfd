"""One rank's slice of parameters that lie end to end in a flat tensor, and what it overlaps (``zero``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dist_dsvae.core import distributed


@dataclass(frozen=True, kw_only=True, slots=True)
class _Span:
    """Where a parameter lies in its group's flat tensor."""

    parameter: nn.Parameter
    first: int
    end: int


class ZeroSlice:
    """This rank's slice of a group.

    flat: the group on every rank, of which the parameters are views. own: this rank's slice of it.
    """

    def __init__(self, flat: Tensor, named: Mapping[str, nn.Parameter]) -> None:
        self.flat = flat
        self.size = flat.numel() // distributed.world_size()
        self.first = distributed.rank() * self.size
        self.own = flat[self.first : self.first + self.size]
        self.spans: dict[str, _Span] = {}
        for name, parameter in named.items():
            first = (parameter.data_ptr() - flat.data_ptr()) // flat.element_size()
            assert 0 <= first <= flat.numel() - parameter.numel()
            assert parameter.is_contiguous()
            self.spans[name] = _Span(parameter=parameter, first=first, end=first + parameter.numel())

    def pieces(self) -> Iterator[tuple[str, slice, slice]]:
        """Name, range in the flattened parameter and range in ``own`` of what lies in this slice."""
        for name, span in self.spans.items():
            first = max(span.first, self.first)
            end = min(span.end, self.first + self.size)
            if first < end:
                inside = slice(first - span.first, end - span.first)
                yield name, inside, slice(first - self.first, end - self.first)

    def gradient(self) -> Tensor:
        """The slice of the parameters' ``.grad``, 0 where there is padding."""
        gradient = torch.zeros_like(self.own)
        for name, inside, here in self.pieces():
            whole = self.spans[name].parameter.grad
            assert whole is not None
            gradient[here] = whole.reshape(-1)[inside]
        return gradient

    def whole(self, own: Tensor) -> dict[str, Tensor]:
        """Whole parameters' worth of a tensor that is laid out like ``own`` on each rank; on the CPU.

        Gives the parameters of which a part lies in this slice. Called by all ranks: those that lie
        in several slices are put together.
        """
        divided: dict[str, Tensor] = {}
        for name, span in self.spans.items():
            if span.first // self.size != (span.end - 1) // self.size:
                divided[name] = own.new_zeros(span.end - span.first)
        whole: dict[str, Tensor] = {}
        for name, inside, here in self.pieces():
            if name in divided:
                divided[name][inside] = own[here]
            else:
                whole[name] = own[here]
        for tensor in divided.values():
            distributed.all_reduce_sum(tensor)
        here_too = {name: divided[name] for name, _, _ in self.pieces() if name in divided}
        return {
            name: flat.view(self.spans[name].parameter.shape).to("cpu", copy=True)
            for name, flat in (whole | here_too).items()
        }
