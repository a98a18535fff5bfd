"""A face in a picture, and a picture with the box of its face."""

from __future__ import annotations

from dataclasses import dataclass

from dist_dsvae.core.images import EncodedImage

FaceBox = tuple[float, float, float, float]  # left, top, right, bottom, in pixels
Point = tuple[float, float]  # x to the right and y down, in pixels
# The eye on the left of the picture, the one on the right, nose, the corners of the mouth
Landmarks = tuple[Point, Point, Point, Point, Point]


@dataclass(frozen=True, slots=True)
class Face:
    """A detected face. score: of the detector, 0 to 1."""

    box: FaceBox
    score: float
    landmarks: Landmarks

    @property
    def edge(self) -> float:
        """The shorter edge of the box in pixels."""
        return min(self.box[2] - self.box[0], self.box[3] - self.box[1])

    def moved(self, right: float, down: float) -> Face:
        return self._mapped(1.0, right, down)

    def scaled(self, factor: float) -> Face:
        return self._mapped(factor, 0.0, 0.0)

    def _mapped(self, factor: float, right: float, down: float) -> Face:
        # To a hundredth of a pixel: the last digits differ between processors.
        def point(x: float, y: float) -> Point:
            return round(factor * x + right, 2), round(factor * y + down, 2)

        left_eye, right_eye, nose, left_mouth, right_mouth = (point(x, y) for x, y in self.landmarks)
        box = (*point(*self.box[:2]), *point(*self.box[2:]))
        return Face(box, self.score, (left_eye, right_eye, nose, left_mouth, right_mouth))


@dataclass(frozen=True, slots=True)
class ImageOfPerson:
    """A picture of which an annotation says where the wanted face is."""

    image: EncodedImage
    box: FaceBox


def overlap(one: FaceBox, other: FaceBox) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (_area(one) + _area(other) - shared)


def _area(box: FaceBox) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
