"""Looks at every picture once: what faces are there, how they look, and their perceptual hashes.

    picture --decode, turn upright--> (around its box, if it has one) --detect--> faces
    face --align--> 64 x 64 crop --> look (16 x 16 grey), hash (256 bits)

The results are plain numbers and go through JSON, so all later choices are functions of the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from dist_dsvae.building.faces.duplicates import perceptual_hash
from dist_dsvae.building.faces.work_cache import WorkCache, fingerprint_of
from dist_dsvae.core.faces.align import Alignment
from dist_dsvae.core.faces.detect import Detector
from dist_dsvae.core.faces.face import Face, FaceBox, ImageOfPerson
from dist_dsvae.core.images import (
    EncodedImage,
    flatten,
    foreign_format,
    open_encoded,
    open_image,
    why_unreadable,
)

LOOK_EDGE = 16
_ALIGNMENT = Alignment(64)
# Part of the names in the cache: raise it when this module finds other things in the same picture.
_VERSION = 1


@dataclass(frozen=True, slots=True)
class SeenFace:
    """A face and what comparisons need of it.

    look: the aligned crop at 16 x 16, grey, uint8, as hexadecimal digits.
    hash: 256 bits, as hexadecimal digits.
    """

    face: Face
    look: str
    hash: str

    def look_vector(self) -> npt.NDArray[np.float64]:
        """[256], of mean 0 and length 1: light and contrast say nothing about who it is."""
        values = np.frombuffer(bytes.fromhex(self.look), dtype=np.uint8).astype(np.float64)
        values -= values.mean()
        length = float(np.linalg.norm(values))
        return values / length if length else values


@dataclass(frozen=True, slots=True)
class Seen:
    """What a picture shows. error: why it cannot be decoded; None if it can."""

    faces: tuple[SeenFace, ...] = ()
    error: str | None = None


def survey(
    images: Sequence[EncodedImage | ImageOfPerson],
    detector: Detector,
    cache: WorkCache,
    *,
    num_workers: int,
    progress: Callable[[int], None],
) -> list[Seen]:
    """What each picture shows, in their order. A picture that cannot be decoded is no error."""
    found = cache.map(
        _Look(detector),
        images,
        identity=f"survey {_VERSION}: {detector.record}",
        fingerprint=_fingerprint,
        num_workers=num_workers,
        progress=progress,
    )
    return [_from_json(entry) for entry in found]


def image_of(reference: EncodedImage | ImageOfPerson) -> EncodedImage:
    return reference.image if isinstance(reference, ImageOfPerson) else reference


def _fingerprint(reference: EncodedImage | ImageOfPerson) -> str:
    box = reference.box if isinstance(reference, ImageOfPerson) else None
    return f"{fingerprint_of(image_of(reference))} {box}"


@dataclass(frozen=True, slots=True)
class _Look:
    """Looks at one picture; a Seen as JSON holds it."""

    detector: Detector

    def __call__(self, reference: EncodedImage | ImageOfPerson) -> dict[str, object]:
        try:
            with open_encoded(image_of(reference)) as stream, open_image(stream) as opened:
                image = flatten(opened)
        except UnidentifiedImageError:
            # Its text names the open file, which differs from machine to machine.
            foreign = foreign_format(image_of(reference))
            return {"error": foreign or "not a picture of a known format", "faces": []}
        except Exception as error:  # codecs raise nearly anything on a broken file; it goes into the report
            return {"error": why_unreadable(error, image_of(reference)), "faces": []}
        return {"error": None, "faces": [_describe(image, face) for face in self._detect(image, reference)]}

    def _detect(self, image: Image.Image, reference: EncodedImage | ImageOfPerson) -> Sequence[Face]:
        if not isinstance(reference, ImageOfPerson):
            return self.detector(image)
        # Only around the box: in a shrunken large picture a small face would be lost.
        left, top, right, bottom = _around(reference.box, image)
        if right <= left or bottom <= top:
            return []
        faces = self.detector(image.crop((left, top, right, bottom)))
        return [face.moved(left, top) for face in faces]


def _around(box: FaceBox, image: Image.Image) -> tuple[int, int, int, int]:
    """The box, widened by its longer edge on every side, inside the image."""
    margin = max(box[2] - box[0], box[3] - box[1])
    return (
        max(0, int(box[0] - margin)),
        max(0, int(box[1] - margin)),
        min(image.width, int(box[2] + margin)),
        min(image.height, int(box[3] + margin)),
    )


def _describe(image: Image.Image, face: Face) -> dict[str, object]:
    crop = _ALIGNMENT.crop(image, face.landmarks)
    look = np.asarray(crop.convert("L").resize((LOOK_EDGE, LOOK_EDGE), Image.Resampling.BOX))
    return {
        "box": face.box,
        "score": face.score,
        "landmarks": face.landmarks,
        "look": look.tobytes().hex(),
        "hash": perceptual_hash(crop),
    }


def _from_json(entry: Mapping[str, Any]) -> Seen:
    faces = []
    for about in entry["faces"]:
        left_eye, right_eye, nose, left_mouth, right_mouth = map(tuple, about["landmarks"])
        landmarks = (left_eye, right_eye, nose, left_mouth, right_mouth)
        face = Face(tuple(about["box"]), about["score"], landmarks)
        faces.append(SeenFace(face, about["look"], about["hash"]))
    return Seen(tuple(faces), entry["error"])
