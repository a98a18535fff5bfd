"""Inpainting (Sec. 4.5): the picture with its hole is encoded, and the hole filled from the decoder.

    x_inp = M * x' + (1 - M) * x,   M = 1 in the hole

Refinement goes on from those codes: some steps of Adam on (zs, zu) towards a smaller error where the
pixels are known, and towards zu's prior, which keeps the codes among those that the decoder knows. The
networks stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

FILL = 0.0  # mid-grey, in [-1, 1]: what encoders are shown in place of a hole
_LEARNING_RATE = 0.03
_PRIOR_WEIGHT = 0.05


def corrupted(images: Tensor, holes: Tensor) -> Tensor:
    """Images [N, C, H, W] with ``FILL`` where ``holes`` [N, 1, H, W] (bool) are."""
    return images.masked_fill(holes, FILL)


def filled(originals: Tensor, generated: Tensor, holes: Tensor) -> Tensor:
    """x_inp. Outside the holes every bit is the originals', of whatever type they are."""
    return torch.where(holes, generated, originals)


def hole_error(images: Tensor, truth: Tensor, holes: Tensor) -> Tensor:
    """Mean squared error [N] over the pixels inside each hole, of values in [-1, 1]."""
    inside = holes.expand_as(images).float()
    squares = (images - truth).square() * inside
    return squares.flatten(1).sum(1) / inside.flatten(1).sum(1)


def refined(
    decode: Callable[[Tensor], Tensor],
    fixed: Tensor,
    free: Tensor,
    images: Tensor,
    holes: Tensor,
    num_steps: int,
    zu_dim: int,
) -> Tensor:
    """Codes [N, code_dim] after ``num_steps`` of Adam on ``free`` [N, f]; ``fixed`` [N, code_dim - f] stays.

    Each picture's loss is its mean squared error outside its hole, plus 0.05 times the mean square of zu,
    the last ``zu_dim`` of the code; so a picture does not depend on the others in the batch.
    """
    known = (~holes).expand_as(images).float()
    counts = known.flatten(1).sum(1).clamp_min(1.0)
    with torch.enable_grad():
        free = free.detach().clone().requires_grad_(True)
        optimizer = torch.optim.Adam([free], lr=_LEARNING_RATE)
        for _ in range(num_steps):
            decoded = decode(torch.cat([fixed, free], dim=1)).float()
            errors = ((decoded - images).square() * known).flatten(1).sum(1) / counts
            errors = errors + _PRIOR_WEIGHT * free[:, -zu_dim:].square().mean(1)
            (free.grad,) = torch.autograd.grad(errors.sum(), [free])
            optimizer.step()
    return torch.cat([fixed, free.detach()], dim=1)
