"""What the face stage passes around: a face in a picture, and a picture with the box of its face."""

from __future__ import annotations

from dataclasses import dataclass

from dist_dsvae.data.sources.images import PictureFile

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels
Point = tuple[float, float]  # x to the right and y down, in pixels


@dataclass(frozen=True, slots=True)
class Face:
    """A detected face.

    score: of the detector, 0 to 1.
    landmarks: the eye on the left of the picture, the one on the right, nose, the corners of the mouth.
    """

    box: Box
    score: float
    landmarks: tuple[Point, Point, Point, Point, Point]

    @property
    def edge(self) -> float:
        """The shorter edge of the box in pixels."""
        return min(self.box[2] - self.box[0], self.box[3] - self.box[1])

    def moved(self, right: float, down: float) -> Face:
        left, top, box_right, bottom = self.box
        first, second, third, fourth, fifth = ((x + right, y + down) for x, y in self.landmarks)
        return Face(
            (left + right, top + down, box_right + right, bottom + down),
            self.score,
            (first, second, third, fourth, fifth),
        )


@dataclass(frozen=True, slots=True)
class BoxedPicture:
    """A picture of which an annotation says where the wanted face is."""

    picture: PictureFile
    box: Box


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (_area(one) + _area(other) - shared)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
