"""Near-duplicates: pictures whose aligned faces have nearly the same perceptual hash.

Where the hashes differ a little more, as those of a photograph and of a smaller copy do because
their landmarks are found a pixel apart, the small grey pictures decide by their correlation. Pairs are
found by ``near``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from dist_dsvae.building.faces.near import AT_ONCE, HASH_BITS, Vectors, near_pairs

_FREQUENCIES = 16
_EDGE = 64


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
    0.965 or more (``near_pairs``). No two of those kept are.
    """
    words = np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint64).reshape(-1, HASH_BITS // 64)
    repeats: dict[int, int] = {}
    pairs = near_pairs(words, looks, max_bits)
    for start in range(0, len(pairs), AT_ONCE):  # as Python's numbers they take twenty times the memory
        # by the later one, then by the earlier: all that decides on an earlier one has been seen
        for earlier, later in pairs[start : start + AT_ONCE].tolist():
            if earlier not in repeats:
                repeats.setdefault(later, earlier)
    return repeats


def _cosines() -> npt.NDArray[np.float64]:
    """The first rows of the discrete cosine transform (type II), [16, 64]."""
    frequency, place = np.arange(_FREQUENCIES)[:, None], np.arange(_EDGE)[None, :]
    return np.cos(np.pi * frequency * (2 * place + 1) / (2 * _EDGE))


_COSINES = _cosines()
