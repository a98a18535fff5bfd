"""Counter-based randomness: every random number is a pure function of where it is used.

    (seed, draw, position, element)  --splitmix64-->  64 bits  -->  uniform / normal / permutation

There is no generator state to save, hand round or keep in step: two ranks, two worker
processes, or a run resumed years later on another number of GPUs compute the same numbers
from the same positions. All of it is integer and elementwise tensor arithmetic, so it runs on
any device, captures into a CUDA graph, and costs a rank only its own slice of a batch. And it does
not matter which numbers are computed together: ``JointNoise`` hashes all of an iteration at once.

The hash is the splitmix64 finaliser (Steele, Lea and Flood, "Fast splittable pseudorandom
number generators", OOPSLA 2014), chained over the words of the counter.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

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
    STAGE_1_AUGMENTATION = 25
    SAMPLED_CLASSES = 26


def hash_words(*words: Tensor | int) -> Tensor:
    """Hash 64-bit words into one 64-bit word, elementwise with broadcasting.

    words: int64 tensors of broadcastable shapes, or Python ints. At least one is a tensor.
    Returns an int64 tensor of uniformly distributed bits.
    """
    state: Tensor | int = 0
    for word in words:
        state = state + word
        state = _mix_int(state) if isinstance(state, int) else _mix_tensor(state)
    if not isinstance(state, Tensor):
        raise TypeError("hash_words needs at least one tensor among its words")
    return state


def _mix_int(word: int) -> int:
    """splitmix64's output function of ``word + golden gamma``, modulo 2**64.

    On the host, for the words that are the same for all elements.
    """
    word = (word + _GOLDEN_GAMMA) % 2**64
    word = ((word ^ (word >> 30)) * _MIX_1) % 2**64
    word = ((word ^ (word >> 27)) * _MIX_2) % 2**64
    return _signed(word ^ (word >> 31))


def _mix_tensor(word: Tensor) -> Tensor:
    return _finished(word + _GOLDEN_GAMMA)


def _finished(word: Tensor) -> Tensor:
    """What splitmix64 does after the golden gamma was added."""
    word = (word ^ _shift_right(word, 30)).mul_(_MIX_1)
    word = (word ^ _shift_right(word, 27)).mul_(_MIX_2)
    return word ^ _shift_right(word, 31)


def _shift_right(word: Tensor, bits: int) -> Tensor:
    """Logical shift: torch's >> on int64 copies the sign bit, so the copies are masked off."""
    return (word >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    """A 64-bit word, modulo 2**64, as int64 holds it."""
    word %= 2**64
    return word - 2**64 if word >= 2**63 else word


def top_bits(bits: Tensor) -> Tensor:
    """The top 23 bits, as float32.

    23, not 24: (n + 1/2) / 2**23 is exact in float32 for every n, so neither 0 nor 1 occurs in ``uniform``.
    """
    return _shift_right(bits, 41).to(torch.float32)


def uniform(top: Tensor) -> Tensor:
    """float32 in the open interval (0, 1), in the place of ``top``, which ``top_bits`` made."""
    return top.add_(0.5).mul_(2.0**-23)


def normal(top: Tensor) -> Tensor:
    """Standard normal, likewise, by the inverse of the normal distribution function at ``uniform``."""
    # erfinv takes 2 u - 1 = (n + 1/2 - 2**22) / 2**22, which is exact as well
    return top.add_(0.5 - 2.0**22).mul_(2.0**-22).erfinv_().mul_(math.sqrt(2.0))


def _positive(bits: Tensor) -> Tensor:
    """int64 in 0..2**63 - 1."""
    return _shift_right(bits, 1)


def permutation(count: int, *words: int) -> Tensor:
    """A permutation of 0..count-1 [count] that depends on ``words`` alone (not on any library's RNG)."""
    keys = hash_words(*words, torch.arange(count, dtype=torch.int64))
    return torch.argsort(keys, stable=True)


def seed_of(split: str, seed: int) -> int:
    """The seed of a split's order and noise: samples of two splits at one position have nothing in common."""
    if split == "train":
        return seed
    return _mix_int(_mix_int(_mix_int(seed) + int(Draw.UNLABELLED)))  # hash_words(seed, draw, 0)


class Normals(Protocol):
    """Standard normal numbers for the samples of a batch: ``Noise``, or a path through it."""

    def normal(self, draw: Draw, size: int) -> Tensor:
        """[B, size]."""


@dataclass(eq=False)
class Noise:
    """The random numbers of some samples, given their positions.

    ``noise.normal(Draw.PRIOR_ZU, 512)`` is [B, 512]; row i depends on (seed, positions[i]) only.
    """

    seed: int
    positions: Tensor
    dtype: torch.dtype = torch.float32

    def uniform(self, draw: Draw, size: int) -> Tensor:
        """[B, size] uniform numbers in (0, 1)."""
        return self._numbers("uniform", draw, size)

    def normal(self, draw: Draw, size: int) -> Tensor:
        """[B, size] standard normal numbers.

        Computed in float32 whatever the dtype, so that a float64 run sees the same noise.
        """
        return self._numbers("normal", draw, size)

    def integers(self, draw: Draw, high: int) -> Tensor:
        """[B] int64 uniform in 0..high-1 (bias below high / 2**63)."""
        return self._numbers("positive", draw, 1)[:, 0] % high

    def _numbers(self, kind: _Kind, draw: Draw, size: int) -> Tensor:
        """[B, size]."""
        elements = torch.arange(size, dtype=torch.int64, device=self.positions.device)
        key = hash_words(self.seed, int(draw), self.positions)
        bits = hash_words(key[:, None], elements)
        return _positive(bits) if kind == "positive" else _FROM_TOP[kind](top_bits(bits)).to(self.dtype)


_Kind = Literal["uniform", "normal", "positive"]
_FROM_TOP: Mapping[_Kind, Callable[[Tensor], Tensor]] = {"uniform": uniform, "normal": normal}


class _Request(NamedTuple):
    """Numbers that some batch is asked for. In this order the numbers of one kind lie side by side."""

    kind: _Kind
    batch: int
    draw: Draw
    size: int


class JointNoise:
    """``Noise`` for several batches, all of whose numbers are computed in one call.

    A hash is thirty small operators, and most draws are small: made one by one they cost a GPU more in
    launches than in arithmetic. Nobody has to say beforehand what will be drawn: what a call's noise is asked
    for and does not have is computed by itself, and together with the rest from the next call on. The numbers
    are the same to the bit.
    """

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self._requests: set[_Request] = set()
        self._table: _Table | None = None

    def __call__(self, seeds: Sequence[int], positions: Tensor) -> list[Noise]:
        """The noise of each batch from its seed and its positions: [number of batches, B]."""
        made: Mapping[_Request, Tensor] = {}
        if self._requests:
            key = (frozenset(self._requests), tuple(seeds), positions.shape, positions.device)
            if self._table is None or self._table.key != key:
                self._table = _Table(key)
            made = self._table.numbers(positions, self.dtype)
        return [
            _NoiseOfBatch(seed, own, self.dtype, number=number, made=made, requests=self._requests)
            for number, (seed, own) in enumerate(zip(seeds, positions.unbind(), strict=True))
        ]


@dataclass(eq=False, kw_only=True)
class _NoiseOfBatch(Noise):
    """Noise that looks among the numbers ``made`` for all batches first, and notes what it does not find."""

    number: int
    made: Mapping[_Request, Tensor]
    requests: set[_Request]

    def _numbers(self, kind: _Kind, draw: Draw, size: int) -> Tensor:
        request = _Request(kind, self.number, draw, size)
        if request in self.made:
            return self.made[request]
        self.requests.add(request)
        return super()._numbers(kind, draw, size)


class NoiseOfAll(Noise):
    """The noise of several batches of one seed as one, their samples laid end to end."""

    def __init__(self, parts: Sequence[Noise], positions: Tensor) -> None:
        super().__init__(parts[0].seed, positions, parts[0].dtype)
        self._parts = parts

    def _numbers(self, kind: _Kind, draw: Draw, size: int) -> Tensor:
        return torch.cat([part._numbers(kind, draw, size) for part in self._parts])


_TableKey = tuple[frozenset[_Request], tuple[int, ...], torch.Size, torch.device]


class _Table:
    """Constants of hashing some requests together, on the device: all numbers are laid end to end.

    key: the requests, the batches' seeds, [number of batches, B], and the device.
    """

    def __init__(self, key: _TableKey) -> None:
        self.key = key
        requests, seeds, (_, num_samples), device = key
        self._requests = sorted(requests)
        # the hash's state before the position is added, and the golden gamma with it
        heads = [
            _signed(_mix_int(_mix_int(seeds[r.batch]) + int(r.draw)) + _GOLDEN_GAMMA) for r in self._requests
        ]
        self._heads = torch.tensor(heads, device=device)[:, None]
        self._batches = torch.tensor([r.batch for r in self._requests], device=device)
        keys = torch.arange(len(heads) * num_samples).view(-1, num_samples)
        sizes = [r.size for r in self._requests]
        self._keys = torch.cat([k.repeat_interleave(n) for k, n in zip(keys, sizes, strict=True)]).to(device)
        elements = torch.cat([torch.arange(n).repeat(num_samples) for n in sizes])
        self._elements = (elements + _GOLDEN_GAMMA).to(device)
        kinds = [r.kind for r in self._requests]
        self._lengths = {
            kind: [num_samples * r.size for r in self._requests if r.kind == kind]
            for kind in dict.fromkeys(kinds)
        }

    def numbers(self, positions: Tensor, dtype: torch.dtype) -> dict[_Request, Tensor]:
        """Of every request, [B, size], from the positions [number of batches, B]."""
        keys = _finished(positions.index_select(0, self._batches).add_(self._heads))
        keys = _mix_tensor(keys)  # the key is the first word of a hash of its own (``Noise``)
        bits = _finished(keys.flatten().index_select(0, self._keys).add_(self._elements))
        totals = [sum(lengths) for lengths in self._lengths.values()]
        tops = torch.split(top_bits(bits), totals)  # which all kinds but one begin with
        flat = [
            part
            for (kind, lengths), own, top in zip(
                self._lengths.items(), torch.split(bits, totals), tops, strict=True
            )
            for part in torch.split(
                _FROM_TOP[kind](top).to(dtype) if kind in _FROM_TOP else _positive(own), lengths
            )
        ]
        return {r: part.view(-1, r.size) for r, part in zip(self._requests, flat, strict=True)}
