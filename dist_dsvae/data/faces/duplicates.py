"""Near-duplicates: pictures whose aligned faces have nearly the same perceptual hash."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

HASH_BITS = 256
_FREQUENCIES = 16
_EDGE = 64
_BLOCK = 512
_COLUMNS = 1 << 16


def perceptual_hash(crop: Image.Image) -> str:
    """256 bits as 64 hexadecimal digits (Zauner, 2010: pHash): signs of the lowest frequencies.

    The cosine transform of the grey picture, its 16 x 16 lowest coefficients, one bit each: above
    their median or not. Re-encoding, resizing and brightness hardly change it.
    """
    grey = np.asarray(crop.convert("L").resize((_EDGE, _EDGE), Image.Resampling.LANCZOS), dtype=np.float64)
    low = _COSINES @ grey @ _COSINES.T
    # The constant term says only how bright the picture is.
    bits = low > np.median(low.ravel()[1:])
    bits[0, 0] = False
    return np.packbits(bits).tobytes().hex()


def near_duplicates(hashes: Sequence[str], max_bits: int) -> dict[int, int]:
    """The places to leave out -> the earlier place that each one repeats.

    Those kept differ pairwise by more than ``max_bits`` bits. Work grows with the square of their
    number: 100,000 take about a minute.
    """
    words = np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint64).reshape(-1, HASH_BITS // 64)
    kept = np.empty(0, dtype=np.int64)
    repeats: dict[int, int] = {}
    for start in range(0, len(words), _BLOCK):
        block = words[start : start + _BLOCK]
        first = _first_within(block, words, kept, max_bits)
        distances = _distances(block, block)
        fresh: list[int] = []
        for place in range(len(block)):
            inside = [other for other in fresh if distances[place, other] <= max_bits]
            if first[place] >= 0:
                repeats[start + place] = int(first[place])
            elif inside:
                repeats[start + place] = start + inside[0]
            else:
                fresh.append(place)
        kept = np.concatenate([kept, start + np.array(fresh, dtype=np.int64)])
    return repeats


def _first_within(
    block: npt.NDArray[np.uint64], words: npt.NDArray[np.uint64], kept: npt.NDArray[np.int64], max_bits: int
) -> npt.NDArray[np.int64]:
    """For each of the block the first of the kept places within ``max_bits``, or -1."""
    first = np.full(len(block), -1, dtype=np.int64)
    for start in range(0, len(kept), _COLUMNS):
        places = kept[start : start + _COLUMNS]
        within = _distances(block, words[places]) <= max_bits
        new = (first < 0) & within.any(axis=1)
        first[new] = places[within[new].argmax(axis=1)]
    return first


def _distances(one: npt.NDArray[np.uint64], other: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint16]:
    """Differing bits of every pair, [n, m]."""
    total = np.zeros((len(one), len(other)), dtype=np.uint16)
    for word in range(one.shape[1]):
        total += np.bitwise_count(one[:, None, word] ^ other[None, :, word])
    return total


def _cosines() -> npt.NDArray[np.float64]:
    """The first rows of the discrete cosine transform (type II), [16, 64]."""
    frequency, place = np.arange(_FREQUENCIES)[:, None], np.arange(_EDGE)[None, :]
    return np.cos(np.pi * frequency * (2 * place + 1) / (2 * _EDGE))


_COSINES = _cosines()
