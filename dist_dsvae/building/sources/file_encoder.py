"""The picture files of a source -> the bytes of members."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image

from dist_dsvae.building.writer import Sample, UnreadableError
from dist_dsvae.core.images import (
    Codec,
    Fitter,
    PictureFile,
    Pixels,
    flatten,
    open_picture,
    why_unreadable,
)
from dist_dsvae.core.types import ImageShape
from dist_dsvae.data.decode import decode_into, decode_reduced, empty_batch


@dataclass(frozen=True, kw_only=True, slots=True)
class FileEncoder(Fitter):
    """Encodes the picture at ``sample.reference``, fitted, by ``codec``."""

    codec: Codec

    def __call__(self, sample: Sample[PictureFile]) -> tuple[bytes, dict[str, object]]:
        try:
            with open_picture(sample.reference) as stream, Image.open(stream) as opened:
                if self._fits(opened):
                    stream.seek(0)
                    return _checked(stream.read(), self.shape), {}
                image = self.fit_pixels(self._decoded(opened, stream))
        except Exception as error:  # codecs raise nearly anything on a broken file; it goes into the report
            raise UnreadableError(why_unreadable(error, sample.reference)) from error
        return self.codec.pack(image), {}

    def _decoded(self, opened: Image.Image, stream: BinaryIO) -> Pixels:
        """Upright and in colour; of a JPEG at the smallest of 1/1, 1/2, 1/4, 1/8 that is no smaller than
        the target.
        """
        if opened.format == "JPEG" and opened.mode == "RGB" and _is_upright(opened):
            stream.seek(0)
            pixels = decode_reduced(stream.read(), opened.height, opened.width, self.size)
            if pixels is not None:
                return pixels
        opened.draft(None, (self.size, self.size))  # the same fraction
        return np.array(flatten(opened))

    def _fits(self, image: Image.Image) -> bool:
        """Whether the file is, as it stands, what would be made of it: encoded again it would only lose."""
        return (
            image.size == (self.size, self.size)
            and image.format == {"jpg": "JPEG", "png": "PNG"}[self.codec.extension]
            and image.mode == ("RGB" if self.channels == 3 else "L")
            and not image.has_transparency_data
            and getattr(image, "n_frames", 1) == 1
            and _is_upright(image)
        )


def _is_upright(image: Image.Image) -> bool:
    return image.getexif().get(ExifTags.Base.Orientation, 1) == 1


def _checked(content: bytes, shape: ImageShape) -> bytes:
    """The file of a picture, decoded once as training will do it. Raises DataError if that fails."""
    decode_into(memoryview(content), empty_batch(shape, 1)[0])
    return content
