"""Near pairs among many pictures, all of them, without comparing every two.

    hashes   bands of their bits: two that differ in few bits agree in a band up to very few
             (Norouzi, Punjani & Fleet, 2012: multi-index hashing), so only neighbouring buckets are compared
    looks    their principal components, halved again and again at the median of the widest: leaves whose
             boxes are too far apart hold no pair; in the others the leading components sort out nearly all

Both leave out only what cannot be near, by the pigeonhole principle and by the triangle inequality.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

HASH_BITS = 256
# Measured on photographs and their shrunk and trimmed copies, see shards/README.md.
_SIMILAR_BITS = 88
_MIN_CORRELATION = 0.965

_LEAST_BANDS = 13  # of at most 20 bits, so that a table of all their values is small
AT_ONCE = 1 << 20
WAITING = 1 << 24  # pairs, 128 MiB: sorted rarely enough that it costs no time
LEAF = 512
_COMPONENTS = 32
_ROUNDING = 1e-4


def near_pairs(words: Words, looks: Vectors, max_bits: int) -> Places:
    """(earlier, later) of every near pair [P, 2], sorted by the later one, then by the earlier.

    words: [N, 4], the hashes. looks: [N, d], rows of mean 0 and length 1. Near are two whose hashes differ in
    at most ``max_bits`` bits, or in at most 88 while their looks correlate by 0.965 or more.
    """
    if len(words) < 2:
        return np.empty((0, 2), dtype=np.int64)
    found = itertools.chain(_close_hashes(words, max_bits), _alike(words, looks))
    keys = _unique_keys(found, len(words))
    return np.stack([keys % len(words), keys // len(words)], axis=1)


def _unique_keys(found: Iterable[Places], count: int) -> Places:
    """later * count + earlier of every pair, each once, sorted.

    Pictures of one scene are near in every band: what is found again goes as it comes, or it would fill the
    memory.
    """
    keys, waiting, num_waiting = np.empty(0, np.int64), [], 0
    for pairs in found:
        one, other = pairs[:, 0], pairs[:, 1]
        waiting.append(np.maximum(one, other) * count + np.minimum(one, other))
        num_waiting += len(pairs)
        if num_waiting >= max(WAITING, len(keys)):
            keys, waiting, num_waiting = np.unique(np.concatenate([keys, *waiting])), [], 0
    return np.unique(np.concatenate([keys, *waiting]))


# ---- hashes that differ in few bits


def _close_hashes(words: Words, max_bits: int) -> Iterator[Places]:
    """Every pair of at most ``max_bits`` differing bits, some more than once."""
    num_bands, radius = _bands(len(words), max_bits)
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1)
    for band in range(num_bands):
        own = bits[:, band::num_bands] if num_bands > 1 else bits[:, :0]
        width = own.shape[1]
        values = own.astype(np.int64) @ (1 << np.arange(width, dtype=np.int64))
        order = np.argsort(values, kind="stable")
        values = values[order]
        starts = np.searchsorted(values, np.arange((1 << width) + 1))
        for mask in _masks(width, radius):
            others = values ^ mask
            taken = np.flatnonzero(values <= others)  # each pair of buckets once
            first = starts[others[taken]] if mask else taken + 1
            for some, partners in _each_with(taken, first, starts[others[taken] + 1]):
                yield pairs_within(words, order[some], order[partners], max_bits)


def _bands(count: int, max_bits: int) -> tuple[int, int]:
    """The bands, and how far from a value its partners lie in one of them, for the fewest comparisons.

    ``max_bits`` bits over m bands are at most max_bits // m in one of them. One band means: all with all.
    """

    def comparisons(choice: tuple[int, int]) -> float:
        num_bands, radius = choice
        width = HASH_BITS // num_bands
        near = sum(math.comb(width, distance) for distance in range(radius + 1))
        return num_bands * near * (1 + count / 2**width) if num_bands > 1 else count

    choices = [(max(_LEAST_BANDS, max_bits // (radius + 1) + 1), radius) for radius in range(4)]
    return min([(1, 0), *(choice for choice in choices if choice[0] <= HASH_BITS)], key=comparisons)


def _masks(width: int, radius: int) -> Iterator[int]:
    """What takes a value to each one that differs in at most ``radius`` of ``width`` bits."""
    for distance in range(min(radius, width) + 1):
        for places in itertools.combinations(range(width), distance):
            yield sum(1 << place for place in places)


def _each_with(one: Places, first: Places, end: Places) -> Iterator[tuple[Places, Places]]:
    """Every place of ``one`` beside each of first..end-1, a bounded number at once."""
    counts = np.maximum(end - first, 0)
    ends = np.cumsum(counts)
    begin = 0
    while begin < len(one):
        before = int(ends[begin - 1]) if begin else 0
        stop = max(begin + 1, int(np.searchsorted(ends, before + AT_ONCE, side="right")))
        some = counts[begin:stop]
        total = int(some.sum())
        if total:
            offsets = np.repeat(first[begin:stop] - (np.cumsum(some) - some), some)
            yield np.repeat(one[begin:stop], some), offsets + np.arange(total)
        begin = stop


def pairs_within(words: Words, one: Places, other: Places, max_bits: int) -> Places:
    differing = np.bitwise_count(words[one] ^ words[other]).sum(axis=1, dtype=np.uint16)
    near = differing <= max_bits
    return np.stack([one[near], other[near]], axis=1)


# ---- looks that correlate


def _alike(words: Words, looks: Vectors) -> Iterator[Places]:
    """Every pair that differs in at most 88 bits and whose looks correlate."""
    reach = 2 * (1 - _MIN_CORRELATION) + _ROUNDING  # of length 1 each, so far apart at most, squared
    points = _leading_components(looks)
    leaves = list(_leaves(points, np.arange(len(points))))
    lows = np.stack([points[leaf].min(axis=0) for leaf in leaves])
    highs = np.stack([points[leaf].max(axis=0) for leaf in leaves])
    squares = np.square(points).sum(axis=1, keepdims=True)
    ones = np.ones_like(squares)
    # one matrix product has the squared distances
    left, right = np.hstack([points, squares, ones]), np.hstack([-2 * points, ones, squares])
    for number, leaf in enumerate(leaves):
        gaps = np.maximum(0, np.maximum(lows[number:] - highs[number], lows[number] - highs[number:]))
        near = number + np.flatnonzero(np.square(gaps).sum(axis=1) <= reach)
        mine = left[leaf]
        for other in near.tolist():
            rows, columns = np.nonzero(mine @ right[leaves[other]].T <= reach)
            pairs = pairs_within(words, leaf[rows], leaves[other][columns], _SIMILAR_BITS)
            correlation = np.einsum("pd,pd->p", looks[pairs[:, 0]], looks[pairs[:, 1]])
            yield pairs[(correlation >= _MIN_CORRELATION) & (pairs[:, 0] != pairs[:, 1])]


def _leading_components(looks: Vectors) -> Vectors:
    """[N, k]: the principal components of largest variance, and the length of what is left.

    No two of these are farther apart than the looks themselves.
    """
    centred = looks - looks.mean(axis=0)
    _, axes = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    leading = centred @ axes[:, ::-1][:, :_COMPONENTS].astype(np.float32)
    rest = np.square(centred).sum(axis=1) - np.square(leading).sum(axis=1)
    return np.column_stack([leading, np.sqrt(np.maximum(rest, 0))])


def _leaves(points: Vectors, places: Places) -> Iterator[Places]:
    """``places`` halved at the median of the component that spreads most, until few are left."""
    if len(places) <= LEAF:
        yield places
        return
    own = points[places]
    widest = int(np.ptp(own, axis=0).argmax())
    order = np.argpartition(own[:, widest], len(places) // 2)
    for half in np.split(order, [len(places) // 2]):
        yield from _leaves(points, places[half])
