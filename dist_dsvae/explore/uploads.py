"""Uploaded pictures: which files are opened at all, and what is said of the others.

Nothing is decoded before its size in bytes, its format and its number of pixels have been looked at:
a file of a few kilobytes can claim to hold gigabytes of pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from dist_dsvae.core.images import foreign_format
from dist_dsvae.pretrained.image_kinds import ImageError, read_images
from dist_dsvae.pretrained.photographs import AlignedFace, Photographs

FORMATS = ("PNG", "JPEG", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_SEARCHED_EDGE = 1600  # pixels for faces to be found in, where a JPEG has more
MAX_PIXELS = 50_000_000  # a telephone's largest pictures
BYTES_PER_MIB = 2**20
_ALLOWED = "Allowed are PNG, JPEG and WebP pictures"


class Given(NamedTuple):
    """picture: of a model's size. face: where it was found, if it was cut out of a photograph."""

    image: Image.Image
    face: AlignedFace | None = None


class UploadError(ValueError):
    """An uploaded file that is not taken; the message says why, and what is."""


def read_upload(
    path: Path,
    max_bytes: int,
    photographs: Photographs,
    tell: Callable[[str], None] = lambda sentence: None,
) -> Given:
    """The picture in an uploaded file as the model takes it: its size, upright, without transparency.

    photographs: of the model; the face of a photograph is found for a model of faces. tell: is told where
    there are several. Raises UploadError for too many bytes or pixels, another format, and for a broken file;
    ImageError where there is no face.
    """
    num_bytes = path.stat().st_size
    if num_bytes > max_bytes:
        raise UploadError(
            f"{path.name} has {num_bytes / BYTES_PER_MIB:.1f} MiB; at most {max_bytes / BYTES_PER_MIB:g} "
            "MiB are taken. Make the picture smaller."
        )
    try:
        with warnings.catch_warnings():
            # Pillow's own word on many pixels comes at another number than ours.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError:
        raise _too_many_pixels(path) from None
    except Exception as error:  # plugins raise nearly anything on a broken header
        foreign = foreign_format(path)
        if foreign:
            raise UploadError(f"{path.name} cannot be read as a picture: {foreign}.") from error
        raise UploadError(f"{path.name} is no picture that can be read. {_ALLOWED}.") from error
    with opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise _too_many_pixels(path)
        is_searched = photographs.searches(opened)
        least = _SEARCHED_EDGE if is_searched else 2 * photographs.shape.width
        opened.draft(None, (least, least))  # a large JPEG at a fraction of its size
        try:
            opened.load()
            if is_searched:
                found = photographs.find(opened, path.name)
                if found.note:
                    tell(found.note)
                return Given(found.crop, found)
            pixels, kind = read_images(opened, photographs.shape)
        except ImageError:
            raise
        except Exception as error:  # and on broken pixels
            raise UploadError(f"{path.name} is broken: its pixels cannot be read. {_ALLOWED}.") from error
    image = kind.wrap(pixels)
    assert isinstance(image, Image.Image)
    return Given(image)


def _too_many_pixels(path: Path) -> UploadError:
    return UploadError(
        f"{path.name} has too many pixels; at most {MAX_PIXELS // 1_000_000} million are taken. "
        "Make the picture smaller."
    )
