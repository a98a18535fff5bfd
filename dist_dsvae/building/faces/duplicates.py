"""Near-duplicates: pictures whose aligned faces have nearly the same perceptual hash.

Where the hashes differ a little more, as those of a photograph and of a smaller copy do because
their landmarks are found a pixel apart, the small grey pictures decide by their correlation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

Vectors = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

HASH_BITS = 256
_FREQUENCIES = 16
_EDGE = 64
# Measured on photographs and their shrunk and trimmed copies, see shards/README.md.
_SIMILAR_BITS = 88
_MIN_CORRELATION = 0.965
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


def near_duplicates(hashes: Sequence[str], looks: Vectors, max_bits: int) -> dict[int, int]:
    """The places to leave out -> the earlier place that each one repeats.

    hashes: N of perceptual_hash. looks: [N, d] float32, the same pictures, rows of mean 0 and length 1.
    Two are near-duplicates if at most ``max_bits`` bits differ, or at most 88 and their looks correlate by
    0.965 or more. No two of those kept are. Work grows with the square of their number: 100,000 take
    minutes.
    """
    words = np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint64).reshape(-1, HASH_BITS // 64)
    kept = np.empty(0, dtype=np.int64)
    repeats: dict[int, int] = {}
    for start in range(0, len(words), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(words)))
        first = np.full(len(block), -1, dtype=np.int64)
        for column in range(0, len(kept), _COLUMNS):
            places = kept[column : column + _COLUMNS]
            near = _near(words, looks, block, places, max_bits)
            new = (first < 0) & near.any(axis=1)
            first[new] = places[near[new].argmax(axis=1)]
        inside = _near(words, looks, block, block, max_bits)
        fresh: list[int] = []
        for place in range(len(block)):
            nearest = [other for other in fresh if inside[place, other]]
            if first[place] >= 0:
                repeats[start + place] = int(first[place])
            elif nearest:
                repeats[start + place] = start + nearest[0]
            else:
                fresh.append(place)
        kept = np.concatenate([kept, start + np.array(fresh, dtype=np.int64)])
    return repeats


def _near(
    words: npt.NDArray[np.uint64], looks: Vectors, rows: Places, columns: Places, max_bits: int
) -> npt.NDArray[np.bool_]:
    """Whether the pictures of every pair are near-duplicates, [rows, columns]."""
    distances = _distances(words[rows], words[columns])
    similar: npt.NDArray[np.bool_] = distances <= max(_SIMILAR_BITS, max_bits)
    certain: npt.NDArray[np.bool_] = distances <= max_bits
    return certain | (similar & (looks[rows] @ looks[columns].T >= _MIN_CORRELATION))


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
