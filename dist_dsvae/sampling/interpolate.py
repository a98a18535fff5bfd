"""Interpolation (Figure 4): one code moves along a path that all classes share, the other stays.

The path runs through standard normal numbers, from z1 to z2, both drawn from N(0, I). For zs a class maps
it with z * sigma_c + mean_c, so that a column shows the same place of every class's Gaussian; for zu it
is the code itself. "linear" is the paper's path, (1 - a) z1 + a z2: its middle lies nearer to the mean
than samples do, by 1 / sqrt(2) for a = 1/2, where the pictures are the smoothest. "spherical" keeps the
distance: sqrt((1 - a)) z1 + sqrt(a) z2 has the distribution of a sample for every a, so it shows what
sampling gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from dist_dsvae.core.noise import Draw, Noise
from dist_dsvae.methods.abilities import Generative

Path = Literal["linear", "spherical"]
# Far from the positions of samples, so that a path has nothing in common with them.
_FIRST_END, _SECOND_END = 2**62, 2**62 + 1


def places(num_steps: int, *, eased: bool = False) -> Tensor:
    """``num_steps`` fractions from 0 to 1, evenly, or eased: slower towards both ends, for a film.

    Eased steps turn at one speed along the "spherical" path, whose even ones rush at its ends.
    """
    even = torch.linspace(0, 1, num_steps, dtype=torch.float32)
    return (1 - torch.cos(torch.pi * even)) / 2 if eased else even


class PathNoise:
    """Normal numbers [B, size] at places ``fractions`` [B] (0..1) of the path that ``seed`` gives."""

    def __init__(self, seed: int, fractions: Tensor, path: Path) -> None:
        self._ends = Noise(seed, torch.tensor([_FIRST_END, _SECOND_END], device=fractions.device))
        weights = torch.stack([1 - fractions, fractions], dim=1)
        self._weights = weights.sqrt() if path == "spherical" else weights

    def normal(self, draw: Draw, size: int) -> Tensor:
        return self._weights @ self._ends.normal(draw, size)


def interpolated_codes(
    method: Generative,
    classes: Sequence[int],
    fractions: Tensor,
    *,
    moving: Literal["zs", "zu"],
    seed: int,
    path: Path = "linear",
    device: torch.device,
) -> Tensor:
    """Codes [len(classes) * len(fractions), code_dim], row by row: a row per class.

    fractions: places on the path, 0..1. moving: "zs" shares one zu among all pictures; "zu" gives each class
        one zs and shares the path of zu.
    """
    labels = torch.tensor(list(classes), dtype=torch.int64, device=device).repeat_interleave(len(fractions))
    walking = PathNoise(seed, fractions.to(device).repeat(len(classes)), path)
    # The same draw for all classes: zs differ by the classes' own Gaussians, and zu not at all.
    still = Noise(seed, torch.zeros_like(labels))
    zs_noise, zu_noise = (walking, still) if moving == "zs" else (still, walking)
    return method.prior_codes(labels, zs_noise, zu_noise)
