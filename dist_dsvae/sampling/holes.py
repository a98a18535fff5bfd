"""The holes of Figure 7, as fractions of the picture, and how hard inpainting tries.

``right-half``, ``bottom-half`` and ``centre`` suit any picture. ``eyes`` and ``nose-and-mouth`` cover those
of a face that is aligned as ``shards/build.py`` does it (upright, eyes a little above the middle), and are
there for models of such faces alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# Of inpainting, unless asked otherwise
REFINE_STEPS = 50  # 200 lower the error in the hole by a hundredth of it
NUM_STARTS = 0  # from the prior, beside the encoders' codes; 4 take five times as long for the same error


class Rectangle(NamedTuple):
    """Fractions 0..1 of the height (top, bottom) and of the width (left, right)."""

    top: float
    bottom: float
    left: float
    right: float


PLAIN_HOLES = {
    "right-half": Rectangle(0.0, 1.0, 0.5, 1.0),
    "bottom-half": Rectangle(0.5, 1.0, 0.0, 1.0),
    "centre": Rectangle(0.25, 0.75, 0.25, 0.75),
}
FACE_HOLES = {
    "eyes": Rectangle(0.28, 0.5, 0.12, 0.88),
    "nose-and-mouth": Rectangle(0.45, 0.85, 0.25, 0.75),
}
HOLES = PLAIN_HOLES | FACE_HOLES


def holes_for(*, aligned_faces: bool) -> Mapping[str, Rectangle]:
    """The holes that suit a model's pictures, by name."""
    return HOLES if aligned_faces else PLAIN_HOLES


def hole(rectangle: Rectangle, height: int, width: int) -> npt.NDArray[np.bool_]:
    """bool [height, width], True in the hole."""
    top, bottom, left, right = rectangle
    mask = np.zeros((height, width), dtype=bool)
    mask[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = True
    return mask
