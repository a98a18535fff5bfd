"""Counter-based randomness: every random number is a pure function of where it is used.

    (seed, draw, position, element)  --splitmix64-->  64 bits  -->  uniform / normal / permutation

There is no generator state to save, hand round or keep in step: two ranks, two worker
processes, or a run resumed years later on another number of GPUs compute the same numbers
from the same positions. All of it is integer and elementwise tensor arithmetic, so it runs on
any device, captures into a CUDA graph, and costs a rank only its own slice of a batch.

The hash is the splitmix64 finaliser (Steele, Lea and Flood, "Fast splittable pseudorandom
number generators", OOPSLA 2014), chained over the words of the counter.
"""

from __future__ import annotations

import enum
import math
from typing import Protocol

import torch
from torch import Tensor

# The published constants, 0x9E3779B97F4A7C15 and so on, as signed 64-bit numbers.
_GOLDEN_GAMMA = -0x61C8864680B583EB
_MIX_1 = -0x40A7B892E31B1A47
_MIX_2 = -0x6B2FB644ECCEEE15


class Draw(enum.IntEnum):
    """What a random number is for. Values are part of a run's identity: append, never renumber."""

    FLIP = 1
    POSTERIOR_ZU = 2
    PRIOR_ZS = 3
    PRIOR_ZU = 4
    PRIOR_LABEL = 5
    SAMPLE_ZS = 6
    SAMPLE_ZU = 7
    SHARD_ORDER = 8
    WINDOW_ORDER = 9
    BUILD_ORDER = 10
    BUILD_SPLIT = 11
    TOY_POINT = 12
    REPLACEMENT = 13
    SHIFT = 14
    DROPOUT = 15
    SCORE_SPLIT = 16
    SWAP_PARTNER = 17
    NEIGHBOURS = 18
    BUILD_CLASSES = 19
    UNLABELLED = 20
    IDENTITY_PARTNER = 21
    POSTERIOR_ZS = 22
    STAGE_1_ZS = 23
    AUGMENTATION = 24


def hash_words(*words: Tensor | int) -> Tensor:
    """Hash 64-bit words into one 64-bit word, elementwise with broadcasting.

    words: int64 tensors of broadcastable shapes, or Python ints. At least one is a tensor.
    Returns an int64 tensor of uniformly distributed bits.
    """
    state: Tensor | int = 0
    for word in words:
        state = _mix(state + word)
    if not isinstance(state, Tensor):
        raise TypeError("hash_words needs at least one tensor among its words")
    return state


def _mix(word: Tensor | int) -> Tensor | int:
    """splitmix64's output function of ``word + golden gamma``, modulo 2**64."""
    return _mix_int(word) if isinstance(word, int) else _mix_tensor(word)


def _mix_int(word: int) -> int:
    """On the host, for the words that are the same for all elements."""
    word = (word + _GOLDEN_GAMMA) % 2**64
    word = ((word ^ (word >> 30)) * _MIX_1) % 2**64
    word = ((word ^ (word >> 27)) * _MIX_2) % 2**64
    word ^= word >> 31
    return word - 2**64 if word >= 2**63 else word  # as int64 holds it


def _mix_tensor(word: Tensor) -> Tensor:
    word = word + _GOLDEN_GAMMA
    word = (word ^ _shift_right(word, 30)) * _MIX_1
    word = (word ^ _shift_right(word, 27)) * _MIX_2
    return word ^ _shift_right(word, 31)


def _shift_right(word: Tensor, bits: int) -> Tensor:
    """Logical shift: torch's >> on int64 copies the sign bit, so the copies are masked off."""
    return (word >> bits) & ((1 << (64 - bits)) - 1)


def uniform(bits: Tensor) -> Tensor:
    """float32 in the open interval (0, 1) from the top 23 bits of int64 ``bits``.

    23, not 24: (n + 1/2) / 2**23 is exact in float32 for every n, so neither 0 nor 1 occurs.
    """
    return (_shift_right(bits, 41).to(torch.float32) + 0.5) * 2.0**-23


def permutation(count: int, *words: int) -> Tensor:
    """A permutation of 0..count-1 [count] that depends on ``words`` alone (not on any library's RNG)."""
    keys = hash_words(*words, torch.arange(count, dtype=torch.int64))
    return torch.argsort(keys, stable=True)


def seed_of(split: str, seed: int) -> int:
    """The seed of a split's order and noise: samples of two splits at one position have nothing in common."""
    if split == "train":
        return seed
    return int(hash_words(seed, int(Draw.UNLABELLED), torch.zeros((), dtype=torch.int64)))


class Normals(Protocol):
    """Standard normal numbers for the samples of a batch: ``Noise``, or a path through it."""

    def normal(self, draw: Draw, size: int) -> Tensor:
        """[B, size]."""


class Noise:
    """The random numbers of some samples, given their positions.

    ``noise.normal(Draw.PRIOR_ZU, 512)`` is [B, 512]; row i depends on (seed, positions[i]) only.
    """

    def __init__(self, seed: int, positions: Tensor, dtype: torch.dtype = torch.float32) -> None:
        self.seed = seed
        self.positions = positions
        self.dtype = dtype

    def _bits(self, draw: Draw, size: int) -> Tensor:
        elements = torch.arange(size, dtype=torch.int64, device=self.positions.device)
        key = hash_words(self.seed, int(draw), self.positions)
        return hash_words(key[:, None], elements)

    def uniform(self, draw: Draw, size: int) -> Tensor:
        """[B, size] uniform numbers in (0, 1)."""
        return uniform(self._bits(draw, size)).to(self.dtype)

    def normal(self, draw: Draw, size: int) -> Tensor:
        """[B, size] standard normal numbers, by the inverse of the normal distribution function.

        Computed in float32 whatever the dtype, so that a float64 run sees the same noise.
        """
        centred = 2.0 * uniform(self._bits(draw, size)) - 1.0
        return (torch.erfinv(centred) * math.sqrt(2.0)).to(self.dtype)

    def integers(self, draw: Draw, high: int) -> Tensor:
        """[B] int64 uniform in 0..high-1 (bias below high / 2**63)."""
        return _shift_right(self._bits(draw, 1)[:, 0], 1) % high
