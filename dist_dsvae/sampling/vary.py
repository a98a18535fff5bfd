"""Single dimensions of zu (Figure 5): which of them change the picture most, and how."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

EXTENT = 3.0  # standard deviations of the prior on both sides: nearly all of what sampling draws
_NUDGE = 2.0  # between which a dimension's effect is measured; rare values would judge by the exception


def varied_codes(codes: Tensor, zu_dim: int, dim: int, values: Sequence[float]) -> Tensor:
    """Codes [R, code_dim] -> [R * len(values), code_dim], row by row: dimension ``dim`` of zu is replaced."""
    varied = codes.repeat_interleave(len(values), dim=0)
    column = codes.shape[1] - zu_dim + dim
    varied[:, column] = torch.tensor(values, dtype=codes.dtype, device=codes.device).repeat(len(codes))
    return varied


def expressiveness(decode: Callable[[Tensor], Tensor], codes: Tensor, zu_dim: int) -> Tensor:
    """How much each dimension of zu changes the picture: [zu_dim].

    Root of the mean squared difference, over ``codes`` [M, code_dim] and all values of a picture (range
    [-1, 1]), of the pictures at -2 and +2 of that dimension.
    """
    change = []
    for dim in range(zu_dim):
        images = decode(varied_codes(codes, zu_dim, dim, (-_NUDGE, _NUDGE))).float()
        change.append((images[1::2] - images[::2]).square().mean().sqrt())
    return torch.stack(change)
