"""Brings a face to a fixed place: a similarity transform of its landmarks to a template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from dist_dsvae.building.faces.face import Point
from dist_dsvae.core.errors import DataError

# Eyes, nose and corners of the mouth of an average frontal face, in distances of the eyes from the
# point between them, as complex numbers (x to the right, y down).
_TEMPLATE = np.array([-0.5, 0.5, 0.58j, -0.41 + 1.15j, 0.41 + 1.15j])
_EYES_AT = 0.5 + 0.406j  # the point between the eyes, in edges of the crop
_EYE_DISTANCE = 0.30  # in edges of the crop: the chin and some of the hair are inside
_MAX_SUPERSAMPLING = 16


@dataclass(frozen=True, slots=True)
class Alignment:
    """Crops of ``size`` x ``size`` pixels in which the eyes are level and always in the same place."""

    size: int

    def __post_init__(self) -> None:
        if self.size < 8:
            raise DataError(f"The size of the face crops is {self.size}; it must be at least 8 pixels.")

    def crop(self, image: Image.Image, landmarks: Sequence[Point]) -> Image.Image:
        """The face with these landmarks [5] in an image of mode "RGB", antialiased.

        What lies outside the picture continues its edge.
        """
        factor, offset = self._to_picture(landmarks)
        # Sample at least as densely as the picture is, then shrink with an antialiasing filter.
        dense = min(max(1, int(np.ceil(abs(factor)))), _MAX_SUPERSAMPLING)
        corners = offset + factor * self.size * np.array([0, 1, 1j, 1 + 1j])
        image, moved = _surround(image, corners)
        step, start = factor / dense, offset + moved
        coefficients = (step.real, -step.imag, start.real, step.imag, step.real, start.imag)
        sampled = image.transform(
            (self.size * dense, self.size * dense),
            Image.Transform.AFFINE,
            coefficients,
            Image.Resampling.BICUBIC,
        )
        return sampled.resize((self.size, self.size), Image.Resampling.LANCZOS)

    def _to_picture(self, landmarks: Sequence[Point]) -> tuple[complex, complex]:
        """(a, b): a crop's point z lies at a z + b in the picture, by least squares over the landmarks."""
        there = np.array([complex(x, y) for x, y in landmarks])
        here = self.size * (_EYES_AT + _EYE_DISTANCE * _TEMPLATE)
        centred = here - here.mean()
        factor = complex(np.vdot(centred, there - there.mean()) / np.vdot(centred, centred).real)
        return factor, complex(there.mean() - factor * here.mean())


def _surround(image: Image.Image, corners: npt.NDArray[np.complex128]) -> tuple[Image.Image, complex]:
    """The part of the image around the corners, its edge continued; and how far its points moved."""
    margin = 4  # for the bicubic filter
    left, top = (int(np.floor(part.min())) - margin for part in (corners.real, corners.imag))
    right, bottom = (int(np.ceil(part.max())) + margin for part in (corners.real, corners.imag))
    inside = (
        min(max(left, 0), image.width - 1),
        min(max(top, 0), image.height - 1),
        max(min(right, image.width), 1),
        max(min(bottom, image.height), 1),
    )
    inside = (*inside[:2], max(inside[2], inside[0] + 1), max(inside[3], inside[1] + 1))
    around = [
        (max(inside[1] - top, 0), max(bottom - inside[3], 0)),
        (max(inside[0] - left, 0), max(right - inside[2], 0)),
        (0, 0),
    ]
    pixels = np.pad(np.asarray(image.crop(inside)), around, mode="edge")
    return Image.fromarray(pixels), -complex(min(left, inside[0]), min(top, inside[1]))
