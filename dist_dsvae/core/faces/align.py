"""Brings a face to a fixed place, and back: a similarity transform of its landmarks to a template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from dist_dsvae.core.errors import DataError
from dist_dsvae.core.faces.face import Landmarks, Point

# An average frontal face, in edges of the crop: the eyes 0.3 apart, so that the chin and some of the hair
# are inside. The margins around the face follow from it.
TEMPLATE: Landmarks = ((0.35, 0.406), (0.65, 0.406), (0.5, 0.58), (0.377, 0.751), (0.623, 0.751))
_MAX_SUPERSAMPLING = 16
_MAX_PIXELS = 2**26  # of a photograph and what continues it around a crop; more are shrunk
_BICUBIC_REACH = 4  # pixels that the filter may look at, around those it is asked for
# Of what is put back: an oval around the template's face, that fades out towards the edge of the crop
_OVAL_MIDDLE, _OVAL_RADII, _OVAL_POWER = (0.5, 0.5), (0.47, 0.49), 2.6
_FEATHER = 0.35  # of the radii
_MASK_EDGE = 256

Complexes = npt.NDArray[np.complex128]


@dataclass(frozen=True, slots=True)
class Alignment:
    """Crops of ``size`` x ``size`` pixels in which the eyes are level and always in the same place.

    template: where in a crop the landmarks lie, in edges of the crop.
    """

    size: int
    template: Landmarks = TEMPLATE

    def __post_init__(self) -> None:
        if self.size < 8:
            raise DataError(f"The size of the face crops is {self.size}; it must be at least 8 pixels.")

    def crop(self, image: Image.Image, landmarks: Sequence[Point]) -> Image.Image:
        """The face with these landmarks [5] in an image of mode "RGB", antialiased.

        What lies outside the picture continues its edge.
        """
        factor, offset = self._to_image(landmarks)
        shrink = _shrink(image, self._corners(factor, offset))
        if shrink > 1:  # a template of somebody else's may ask for more than memory holds
            image, factor, offset = image.reduce(shrink), factor / shrink, offset / shrink
        # Sample at least as densely as the picture is, then shrink with an antialiasing filter.
        dense = _density(abs(factor))
        image, moved = _surround(image, self._corners(factor, offset))
        size = (self.size * dense, self.size * dense)
        sampled = _sampled(image, size, factor / dense, offset + moved)
        return sampled.resize((self.size, self.size), Image.Resampling.LANCZOS)

    def paste(
        self,
        image: Image.Image,
        crop: Image.Image,
        landmarks: Sequence[Point],
        mask: Image.Image | None = None,
    ) -> Image.Image:
        """``image`` with ``crop`` in the place that the method ``crop`` takes from it, faded in by ``mask``.

        image: of mode "RGB". crop: of mode "RGB", ``size`` x ``size`` pixels. mask: of mode "L", square, over
        the crop; by default ``oval()``. Where it is 0, and outside of the crop, every bit stays.
        """
        mask = oval() if mask is None else mask
        factor, offset = self._to_image(landmarks)
        corners = self._corners(factor, offset)
        left, top = (max(0, int(np.floor(part.min()))) for part in (corners.real, corners.imag))
        right = min(image.width, int(np.ceil(corners.real.max())))
        bottom = min(image.height, int(np.ceil(corners.imag.max())))
        pasted = image.copy()
        if right <= left or bottom <= top:
            return pasted
        dense = _density(1 / abs(factor))
        size = ((right - left) * dense, (bottom - top) * dense)
        step, start = 1 / (factor * dense), (complex(left, top) - offset) / factor
        finer = mask.width / self.size
        # Where the crop ends in a pixel of the photograph, the mask alone says so: the pixel's colour is
        # averaged over nothing but the crop's.
        margin = min(_BICUBIC_REACH + int(np.ceil(2 / abs(factor))), self.size)
        continued = np.pad(np.asarray(crop), [(margin, margin), (margin, margin), (0, 0)], mode="edge")
        colours = _sampled(Image.fromarray(continued), size, step, start + complex(margin, margin))
        faded = _sampled(mask, size, step * finer, start * finer)
        layers = [
            layer.resize((right - left, bottom - top), Image.Resampling.BOX) for layer in (colours, faded)
        ]
        pasted.paste(layers[0], (left, top), layers[1])
        return pasted

    def _to_image(self, landmarks: Sequence[Point]) -> tuple[complex, complex]:
        """(a, b): a crop's point z lies at a z + b in the picture, by least squares over the landmarks."""
        there, here = _complex(landmarks), self.size * _complex(self.template)
        centred = here - here.mean()
        factor = complex(np.vdot(centred, there - there.mean()) / np.vdot(centred, centred).real)
        return factor, complex(there.mean() - factor * here.mean())

    def _corners(self, factor: complex, offset: complex) -> Complexes:
        return offset + factor * self.size * np.array([0, 1, 1j, 1 + 1j])


def _complex(points: Sequence[Point]) -> Complexes:
    return np.array([complex(x, y) for x, y in points])


def _density(pixels: float) -> int:
    """Samples along an edge of a pixel of the result, which covers so many of the source's."""
    return min(max(1, int(np.ceil(pixels))), _MAX_SUPERSAMPLING)


def _sampled(image: Image.Image, size: tuple[int, int], step: complex, start: complex) -> Image.Image:
    """A picture whose point z shows the point step * z + start of ``image``."""
    coefficients = (step.real, -step.imag, start.real, step.imag, step.real, start.imag)
    return image.transform(size, Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)


def oval() -> Image.Image:
    """How much of a crop is put back: 255 in the middle of the face, fading out to 0 at the crop's edge."""
    places = (np.arange(_MASK_EDGE) + 0.5) / _MASK_EDGE
    across, down = (
        np.abs((places - middle) / radius) for middle, radius in zip(_OVAL_MIDDLE, _OVAL_RADII, strict=True)
    )
    distance = (across[None] ** _OVAL_POWER + down[:, None] ** _OVAL_POWER) ** (1 / _OVAL_POWER)
    ramp = np.clip((1 - distance) / _FEATHER, 0, 1)
    return Image.fromarray(np.rint(255 * ramp * ramp * (3 - 2 * ramp)).astype(np.uint8))


def _shrink(image: Image.Image, corners: Complexes) -> int:
    """By what the image is to be made smaller so that what ``_surround`` returns is not too large."""
    extents = [
        max(float(part.max()), 0.0) - min(float(part.min()), float(edge))
        for part, edge in ((corners.real, image.width), (corners.imag, image.height))
    ]
    return max(1, int(np.ceil(np.sqrt(extents[0] * extents[1] / _MAX_PIXELS))))


def _surround(image: Image.Image, corners: Complexes) -> tuple[Image.Image, complex]:
    """The part of the image around the corners, its edge continued; and how far its points moved."""
    left, top = (int(np.floor(part.min())) - _BICUBIC_REACH for part in (corners.real, corners.imag))
    right, bottom = (int(np.ceil(part.max())) + _BICUBIC_REACH for part in (corners.real, corners.imag))
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
