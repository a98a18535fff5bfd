"""The picture files of a source -> the bytes of members."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from dist_dsvae.building.writer import Sample, UnreadableError
from dist_dsvae.core.images import Codec, Fitter, PictureFile, flatten, open_picture, why_unreadable


@dataclass(frozen=True, kw_only=True, slots=True)
class FileEncoder(Fitter):
    """Encodes the picture at ``sample.reference``, fitted, by ``codec``."""

    codec: Codec

    def __call__(self, sample: Sample[PictureFile]) -> tuple[bytes, dict[str, object]]:
        try:
            with open_picture(sample.reference) as stream, Image.open(stream) as opened:
                # A JPEG larger than twice the target is decoded at a fraction of its size.
                opened.draft(None, (2 * self.size, 2 * self.size))
                image = self.fit(flatten(opened))
        except Exception as error:  # codecs raise nearly anything on a broken file; it goes into the report
            raise UnreadableError(why_unreadable(error, sample.reference)) from error
        return self.codec.pack(image), {}
