"""Inpainting (Sec. 4.5): the picture with its hole is encoded, and the hole filled from the decoder.

    x_inp = M * x' + (1 - M) * x,   M = 1 in the hole

Refinement goes on from those codes (zs, zu), and from draws of their prior, with some steps of Adam on the
negative log posterior of the codes given what is known of the picture,

    E(codes) = sum over known values of (x - x')^2 / (2 sigma^2) - log p(codes),

and keeps for each picture the codes of least energy. The networks stay as they are. ``sampling.blend``
takes the step at the hole's border away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

FILL = 0.0  # mid-grey, in [-1, 1]: what encoders are shown in place of a hole
# sigma: deviation of a picture's values from the decoder's, for the least error in the hole on Fashion-MNIST
# (within 1% from 0.4 to 0.7). Neighbouring values err together, the more so the finer the picture: so every
# picture counts as _NUM_INDEPENDENT values, as many as those had.
_SIGMA = 0.6
_NUM_INDEPENDENT = 32 * 32
_LEARNING_RATE = 0.1  # at first; falls linearly to 0


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


def codes_energy(
    decode: Callable[[Tensor], Tensor],
    prior_energy: Callable[[Tensor], Tensor],
    images: Tensor,
    holes: Tensor,
) -> Callable[[Tensor], Tensor]:
    """E of the module's docstring: codes [N, code_dim] -> [N]. prior_energy: the same, -log p(codes)."""
    known = (~holes).expand_as(images).float()
    weight = _NUM_INDEPENDENT / images.shape[1:].numel() / (2.0 * _SIGMA**2)

    def energy(codes: Tensor) -> Tensor:
        squares = (decode(codes).float() - images).square() * known
        return weight * squares.flatten(1).sum(1) + prior_energy(codes)

    return energy


def refined(
    energy: Callable[[Tensor], Tensor], starts: Iterable[Tensor], num_fixed: int, num_steps: int
) -> Tensor:
    """The codes of least energy [N, code_dim] among those reached from ``starts`` by Adam.

    energy: codes [N, code_dim] -> [N], where a row's depends on that row alone; so do then its codes.
    starts: each [N, code_dim]; the first ``num_fixed`` of the code stay. num_steps: of Adam, at least 1.
    Where energies are equal the earlier start is kept.
    """
    reached = (_descended(energy, start, num_fixed, num_steps) for start in starts)
    best = next(reached)
    lowest = energy(best)
    for codes in reached:
        energies = energy(codes)
        best = torch.where((energies < lowest)[:, None], codes, best)
        lowest = torch.minimum(energies, lowest)
    return best


def _descended(energy: Callable[[Tensor], Tensor], start: Tensor, num_fixed: int, num_steps: int) -> Tensor:
    fixed, free = start[:, :num_fixed], start[:, num_fixed:]
    with torch.enable_grad():
        free = free.detach().clone().requires_grad_(True)
        optimizer = torch.optim.Adam([free], lr=_LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, num_steps)
        for _ in range(num_steps):
            energies = energy(torch.cat([fixed, free], dim=1))
            (free.grad,) = torch.autograd.grad(energies.sum(), [free])
            optimizer.step()
            schedule.step()
    return torch.cat([fixed, free.detach()], dim=1)
