"""Photographs for a model of aligned faces: its faces are found and cut out as its training pictures were.

    photograph --detector of the record--> faces --the largest, or the one asked for--> crop
    crop --the model--> another --inverse transform, feathered edge--> the photograph

Which pictures are searched: with "auto" those that are not of the model's own size, which is that of crops
that were cut already; with "yes" all, with "no" none. Arrays and tensors are taken as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from dist_dsvae.core.errors import DataError
from dist_dsvae.core.faces.align import Alignment
from dist_dsvae.core.faces.crop_record import FaceCrops
from dist_dsvae.core.faces.detect import Detector, detector_of, require_detector
from dist_dsvae.core.faces.face import Face
from dist_dsvae.core.images import flatten
from dist_dsvae.core.text import clause
from dist_dsvae.core.types import ImageShape
from dist_dsvae.pretrained.image_kinds import ImageError, check_pixels
from dist_dsvae.pretrained.requests import HALF_GREY, Mask, RequestError, grey_mask

logger = logging.getLogger(__name__)

Align = Literal["auto", "yes", "no"]
_UNALIGNED = (
    "Or give faces that are cut already, in the model's size; or take the middle of each picture as it is, "
    'with align="no" (--align no).'
)


@dataclass(frozen=True, slots=True)
class AlignedFace:
    """A face of a photograph, as a model of faces takes it.

    photograph: upright, of mode "RGB". crop: of the model's size, of mode "RGB" or "L". note: a sentence on
    which of several faces was taken, or "".
    """

    photograph: Image.Image
    face: Face
    alignment: Alignment
    crop: Image.Image
    note: str

    def paste(self, image: Image.Image, hole: npt.NDArray[np.bool_] | None = None) -> Image.Image:
        """The photograph with ``image``, made of ``crop``, in the place of the face, its edge feathered.

        image: of the model's size. hole: [H, W], of the crop; only what lies in it is put back. Raises
        ImageError for another size.
        """
        if image.size != self.crop.size:
            raise ImageError(
                f"A picture of {_size(image)} pixels cannot go in the place of a face that was cut out "
                f"with {_size(self.crop)}. Give what the model made of the crop."
            )
        mask = None if hole is None else Image.fromarray(255 * hole.astype(np.uint8))
        return self.alignment.paste(self.photograph, image.convert("RGB"), self.face.landmarks, mask)


class Photographs:
    """What a model takes photographs by.

    face_crops: of the model; None if it has no record of how faces were cut. align: see the module.
    detector: in the place of the record's.
    """

    def __init__(
        self, face_crops: FaceCrops | None, shape: ImageShape, align: Align, detector: Detector | None = None
    ) -> None:
        if align not in get_args(Align):
            raise RequestError(f'align is {align!r}; allowed are "auto", "yes" and "no".')
        if align == "yes" and face_crops is None:
            raise _no_record()
        self.face_crops, self.shape, self.align = face_crops, shape, align
        self._given_detector = detector

    @cached_property
    def _detector(self) -> Detector:
        """Raises ImageError, with what to do, where faces cannot be found as the record says."""
        if self._given_detector is not None:
            return self._given_detector
        assert self.face_crops is not None
        record = self.face_crops.detector
        try:
            require_detector()
            detector = detector_of(record)
            found = detector.record
        except DataError as error:
            raise ImageError(f"Photographs cannot be aligned. {error} {_UNALIGNED}") from None
        if found.weights_sha256 != record.weights_sha256:
            logger.warning(
                "The detector here (%s) has other weights than that of the model's faces (%s): its crops may "
                "lie a little differently.",
                found.package,
                record.package,
            )
        return detector

    def searches(self, image: Image.Image) -> bool:
        """Whether the face in ``image`` is looked for, or the picture taken as it is."""
        if self.face_crops is None or self.align == "no":
            return False
        return self.align == "yes" or image.size != (self.shape.width, self.shape.height)

    def taken(self, images: Any, name: str) -> Any:
        """``images``, crops in the place of those that are photographs; anything but PIL as it is.

        name: of the argument, for messages. Raises as ``find`` does.
        """
        return self.taken_with_mask(images, "", name)[0]

    def taken_with_mask(self, images: Any, mask: Mask, name: str = "images") -> tuple[Any, Mask]:
        """As ``taken``, and ``mask`` by ``cut_mask``."""
        if isinstance(images, Image.Image):
            face = self._found(images, name)
            return (images if face is None else face.crop), cut_mask(mask, [face])
        if isinstance(images, Sequence) and all(isinstance(one, Image.Image) for one in images):
            faces = [self._found(one, f"{name}[{number}]") for number, one in enumerate(images)]
            crops = [one if face is None else face.crop for one, face in zip(images, faces, strict=True)]
            return crops, cut_mask(mask, faces)
        return images, mask

    def _found(self, image: Image.Image, name: str) -> AlignedFace | None:
        if not self.searches(image):
            return None
        found = self.find(image, name)
        if found.note:
            logger.warning("%s Another: photographs.find(picture, number=N).crop.", found.note)
        return found

    def find(
        self, image: Image.Image, name: str = "the photograph", number: int | None = None
    ) -> AlignedFace:
        """A face of ``image``: the ``number``-th from the left, or the largest.

        Raises ImageError where there is no (such) face, or none can be looked for; RequestError if the
        model has no record.
        """
        if self.face_crops is None:
            raise _no_record()
        detector = self._detector
        try:
            check_pixels(image)
            photograph = flatten(image)
        except (OSError, ValueError) as error:
            raise ImageError(f"{name} cannot be read as a picture: {clause(error)}.") from None
        faces = sorted(detector(photograph), key=lambda face: face.box[0] + face.box[2])  # by their middle
        if not faces:
            raise ImageError(
                f"No face is found in {name} ({_size(photograph)} pixels), and this model is one of aligned "
                f"faces. Give a photograph that shows one. {_UNALIGNED}"
            )
        if number is not None and not 1 <= number <= len(faces):
            raise ImageError(
                f"There is no face {number} in {name}; {len(faces)} found, counted from the left from 1."
            )
        face = max(faces, key=lambda face: face.edge) if number is None else faces[number - 1]
        note = ""
        if number is None and len(faces) > 1:
            place = faces.index(face) + 1
            note = f"{name} shows {len(faces)} faces; the largest is taken, number {place} from the left."
        alignment = self.face_crops.alignment
        crop = alignment.crop(photograph, face.landmarks)
        crop = crop if self.shape.channels == 3 else crop.convert("L")
        return AlignedFace(photograph, face, alignment, crop, note)


def cut_mask(mask: Mask, faces: Sequence[AlignedFace | None]) -> Mask:
    """A mask of whole photographs as one of their faces, bool [N, H, W]; any other as it is.

    mask: a PIL picture is of the photographs if it is as large, and not as large as the crops. faces: None
    for a picture that is a crop.
    Raises RequestError for one that is as large as some of the photographs alone.
    """
    if not isinstance(mask, Image.Image) or not any(faces):
        return mask
    grey = grey_mask(mask)
    if any(face is not None and face.crop.size == grey.size for face in faces):
        return mask  # of the crops
    fitting = [face for face in faces if face is not None and face.photograph.size == grey.size]
    if not fitting:
        return mask
    if len(fitting) < len(faces):
        raise RequestError(
            f"The mask has the size of {len(fitting)} of {len(faces)} pictures ({_size(grey)}). Give one "
            "picture at a time, or a mask of the crops, in the model's size."
        )
    cut = [face.alignment.crop(grey.convert("RGB"), face.face.landmarks).convert("L") for face in fitting]
    return np.stack([np.asarray(one) > HALF_GREY for one in cut])


def _no_record() -> RequestError:
    return RequestError(
        "This model does not say how faces were cut for it, so photographs cannot be aligned: it was trained "
        "on other pictures than shards/build.py cuts with --faces, or published before that was recorded. "
        "Leave align (--align) at auto, and give pictures like those it was trained on."
    )


def _size(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"
