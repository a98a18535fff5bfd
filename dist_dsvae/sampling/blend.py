"""Seams of inpainted pictures: the step at a hole's border, taken away smoothly into the hole.

Gradient-domain blending (Perez, Gangnet and Blake, "Poisson image editing", 2003) with the decoder's image
as the guidance field: the picture in the hole is x' + f, where the correction f equals known minus generated
on the pixels around the hole and is smooth in it,

    laplacian(f) = f / length^2 in the hole,    f = x - x' around it.

Where a hole meets the edge of the picture, f runs flat into the edge (Neumann). ``length``, in pixels, is
how far a step reaches into the hole; with infinity f is the membrane of the paper, which carries the
border's colours through the whole of a big hole.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Of the shorter side of the picture. On 32x32 pictures the error in the hole is least, and hardly differs,
# for lengths from 4 pixels to infinity: the shortest of them takes the fewest iterations.
_LENGTH = 1 / 8
_TOLERANCE = 1e-4  # of the residual, relative to the right-hand side: f is exact to less than an 8-bit step
_SMALLEST = 16  # side of a picture that is worth halving
_CHECK_EVERY = 8  # iterations between two looks from the host


def blended(originals: Tensor, generated: Tensor, holes: Tensor) -> Tensor:
    """``generated`` with the step at the holes' borders taken away; all [N, C, H, W] in [-1, 1].

    holes: bool [N, 1, H, W]. A hole that is the whole picture stays as it is generated. What stands
    outside the holes is without meaning.
    """
    length = _LENGTH * min(originals.shape[2:])
    difference = (originals.float() - generated.float()).masked_fill(holes, 0.0)
    return (generated.float() + correction(difference, holes, length)).clamp(-1.0, 1.0)


def correction(difference: Tensor, holes: Tensor, length: float) -> Tensor:
    """f [N, C, H, W], 0 outside the holes, for ``difference`` [N, C, H, W] = x - x' around them.

    By conjugate gradients, from the solution at half the size, and so on down: at most 4 (H + W) of them
    at each. Each channel of each picture stops by itself, so that none depends on the others.
    """
    inside = holes.to(difference.dtype)
    num_neighbours = _sum_of_neighbours(torch.ones_like(inside))
    diagonal = (num_neighbours + length**-2) * inside

    def operator(f: Tensor) -> Tensor:
        return diagonal * f - inside * _sum_of_neighbours(f)

    right = inside * _sum_of_neighbours(difference * (1.0 - inside))
    f = inside * _guess(difference, holes, length)
    residual = right - operator(f)
    direction, square = residual, _dot(residual, residual)
    enough = _TOLERANCE**2 * _dot(right, right)
    for iteration in range(4 * sum(difference.shape[2:])):
        active = square > enough
        if iteration % _CHECK_EVERY == 0 and not bool(active.any()):
            break
        image = operator(direction)
        step = torch.where(active, square / _dot(direction, image), 0.0)
        f = torch.addcmul(f, step, direction)
        residual = torch.addcmul(residual, step, image, value=-1.0)
        last, square = square, _dot(residual, residual)
        direction = torch.addcmul(residual, torch.where(active, square / last, 0.0), direction)
    return f


def _guess(difference: Tensor, holes: Tensor, length: float) -> Tensor:
    """The correction of the pictures at half the size, brought to the whole size; 0 for small pictures."""
    size = difference.shape[2:]
    if min(size) < _SMALLEST:
        return torch.zeros_like(difference)
    known = (~holes).to(difference.dtype)
    share = F.avg_pool2d(known, 2, ceil_mode=True)  # of known pixels in each 2 x 2
    halved = F.avg_pool2d(known * difference, 2, ceil_mode=True) / share.clamp_min(0.25)
    f = correction(halved, share == 0, length / 2)
    return F.interpolate(halved + f, size=size, mode="bilinear")


def seam(images: Tensor, holes: Tensor) -> Tensor:
    """Mean absolute step [N] between pixels in the hole and their known neighbours; 0 without any."""
    steps, counts = images.new_zeros(len(images)), images.new_zeros(len(images))
    for dim in (2, 3):
        crossing = (holes.diff(dim=dim) != 0).expand(-1, images.shape[1], -1, -1)
        steps += (images.diff(dim=dim).abs() * crossing).flatten(1).sum(1)
        counts += crossing.flatten(1).sum(1)
    return steps / counts.clamp_min(1.0)


def _sum_of_neighbours(images: Tensor) -> Tensor:
    """Of the up to four pixels beside each."""
    padded = F.pad(images, (1, 1, 1, 1))
    rows, columns = padded[..., 1:-1], padded[..., 1:-1, :]
    return rows[..., :-2, :] + rows[..., 2:, :] + columns[..., :-2] + columns[..., 2:]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """[N, C, 1, 1]."""
    return (a * b).sum(dim=(2, 3), keepdim=True)
