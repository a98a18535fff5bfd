"""The picture files of a source -> the bytes of members."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from PIL import ExifTags, Image

from dist_dsvae.building.sources.metadata import without_metadata
from dist_dsvae.building.writer import Sample, UnreadableError
from dist_dsvae.core.images import (
    Codec,
    EncodedImage,
    Fitter,
    flatten,
    has_deep_colours,
    open_encoded,
    open_image,
    why_unreadable,
)
from dist_dsvae.data.decode import JPEG, decode_into, decode_plain_jpeg, empty_batch


@dataclass(frozen=True, kw_only=True, slots=True)
class FileEncoder(Fitter):
    """Encodes the picture at ``sample.reference``, fitted, by ``codec``."""

    codec: Codec

    def __call__(self, sample: Sample[EncodedImage]) -> tuple[bytes, dict[str, object]]:
        try:
            with open_encoded(sample.reference) as stream:
                content = self._kept_or_decoded(stream)
        except Exception as error:  # codecs raise nearly anything on a broken file; it goes into the report
            raise UnreadableError(why_unreadable(error, sample.reference)) from error
        return (content if isinstance(content, bytes) else self.codec.pack(content)), {}

    def _kept_or_decoded(self, stream: BinaryIO) -> bytes | Image.Image:
        """The file itself without its metadata, where it fits; else its picture, fitted.

        A JPEG is decoded at the smallest of 1/1, 1/2, 1/4, 1/8 that is no smaller than the target.
        """
        start = stream.read(len(JPEG))
        if start == JPEG and (pixels := decode_plain_jpeg(start + stream.read(), self.size)) is not None:
            return self.fit_pixels(pixels)
        stream.seek(0)
        with open_image(stream) as opened:
            if self._fits(opened) and (content := self._as_it_is(stream)) is not None:
                return content
            opened.draft(None, (self.size, self.size))
            return self.fit(flatten(opened))

    def _as_it_is(self, stream: BinaryIO) -> bytes | None:
        """The file but for its metadata; None where that cannot be told. Raises as training would."""
        stream.seek(0)
        try:
            content = without_metadata(stream.read())
        except ValueError:
            return None
        decode_into(memoryview(content), empty_batch(self.shape, 1)[0])
        return content

    def _fits(self, image: Image.Image) -> bool:
        """Whether the file is, as it stands, what would be made of it: encoded again it would only lose."""
        return (
            image.size == (self.size, self.size)
            and image.format == {"jpg": "JPEG", "png": "PNG"}[self.codec.extension]
            and image.mode == ("RGB" if self.channels == 3 else "L")
            and not image.has_transparency_data
            and not has_deep_colours(image)
            and getattr(image, "n_frames", 1) == 1
            and image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        )
