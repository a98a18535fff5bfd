"""PNG files that say whose they are: a picture of a person's is never replaced by a drawn one.

Every picture carries, as the PNG text ``dist_dsvae``, the sha256 of its own pixels. A file whose text and
pixels agree was written here and not touched since, so it may be drawn anew; any other stays.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

from PIL import Image, PngImagePlugin

_KEY = "dist_dsvae"


class ForeignPictureError(ValueError):
    """A picture that cannot go where it was wanted; the message says why."""


def check_replaceable(path: Path) -> None:
    """Raise PictureError if a picture may not be written to ``path``: for those who draw long before."""
    if path.is_dir():
        raise ForeignPictureError(
            f"{path} is a folder. Give the name of a PNG file in it, such as {path / 'grid.png'}."
        )
    if path.exists() and not is_own(path):
        raise ForeignPictureError(
            f"{path} exists already, and is no picture that this program drew. Choose another name, or move "
            "that file away yourself."
        )


def write_picture(path: Path, image: Image.Image) -> None:
    """Write a PNG, whole or not at all: a reader that follows a run never sees half a picture.

    Raises PictureError as ``check_replaceable`` does.
    """
    check_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    info = PngImagePlugin.PngInfo()
    info.add_text(_KEY, _digest(image))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    image.save(temporary, format="PNG", pnginfo=info)
    temporary.replace(path)


def write_png(path: Path, content: bytes) -> None:
    """The same for a picture that is encoded already."""
    with Image.open(io.BytesIO(content)) as image:
        write_picture(path, image)


def is_own(path: Path) -> bool:
    """Whether ``path`` is a picture as ``write_picture`` wrote it."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            said = image.info.get(_KEY)  # before the pixels: those of a person's may be huge
            return isinstance(said, str) and said == _digest(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def _digest(image: Image.Image) -> str:
    about = f"{image.mode} {image.size} ".encode()
    return hashlib.sha256(about + image.tobytes()).hexdigest()
