"""Temperatures: samples nearer to the middle of the prior, or farther out, of zs and of zu apart.

A temperature T multiplies the standard normals that a code is made of, so the variance of the codes within a
class becomes T^2 times the prior's. Below 1 samples are more typical and less diverse, above 1 the reverse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from dist_dsvae.core.noise import Draw, Normals
from dist_dsvae.methods.abilities import LabelFree

# Codes [B, code_dim] of labels [B] from the normals of zs and of zu: ``Generative.prior_codes`` is one.
PriorCodes = Callable[[Tensor, Normals, Normals], Tensor]


@dataclass(frozen=True)
class Tempered:
    """``noise``, multiplied by ``temperature``."""

    noise: Normals
    temperature: float

    def normal(self, draw: Draw, size: int) -> Tensor:
        return self.noise.normal(draw, size) * self.temperature


class Temperatures(NamedTuple):
    """Of zs and of zu, each above 0; 1 is the prior as it is."""

    zs: float = 1.0
    zu: float = 1.0

    def apply_to(self, method: object) -> bool:
        """Whether each is of a code that ``method`` has: with the label in the place of zs there is zu alone.

        One temperature for all codes is for every method.
        """
        return self.zs in (1, self.zu) or isinstance(method, LabelFree)

    def of_codes_of(self, method: object) -> Temperatures:
        """These for a method with both codes; zu's alone for one that has one."""
        return self if isinstance(method, LabelFree) else Temperatures(self.zu, self.zu)

    def tempered(self, prior: PriorCodes) -> PriorCodes:
        """``prior`` at these temperatures."""
        if self == AT_ONE:
            return prior

        def codes(labels: Tensor, zs_noise: Normals, zu_noise: Normals) -> Tensor:
            return prior(labels, Tempered(zs_noise, self.zs), Tempered(zu_noise, self.zu))

        return codes


AT_ONE = Temperatures()
