"""Pictures that say whose they are: one of a person's is never replaced by a drawn one.

Every PNG carries, as the text ``dist_dsvae``, the sha256 of its own pixels; every film, in a comment, that of
its own bytes, taken with zeros in the comment. A file that agrees with what it says was written here and not
touched since, so it may be drawn anew; any other stays.
"""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path

from PIL import Image, PngImagePlugin

from dist_dsvae.config.option_types import FILM_SUFFIXES
from dist_dsvae.core.files import write_atomically

_KEY = "dist_dsvae"
_MAX_FILM_BYTES = 2**30
_SEAL = re.compile(rb"dist_dsvae film sha256:([0-9a-f]{64})")


class ForeignImageError(ValueError):
    """A picture that cannot go where it was wanted; the message says why."""


def check_replaceable(path: Path) -> None:
    """Raise ForeignImageError if a picture may not be written to ``path``: for those who draw long before."""
    if path.is_dir():
        raise ForeignImageError(
            f"{path} is a folder. Give the name of a file in it, such as {path / 'grid.png'}."
        )
    if path.exists() and not is_own(path):
        raise ForeignImageError(
            f"{path} exists already, and is no picture that this program drew. Choose another name, or move "
            "that file away yourself."
        )


def write_image(path: Path, image: Image.Image) -> None:
    """Write a PNG, whole or not at all: a reader that follows a run never sees half a picture.

    Raises ForeignImageError as ``check_replaceable`` does.
    """
    check_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    info = PngImagePlugin.PngInfo()
    info.add_text(_KEY, _digest(image))
    stream = io.BytesIO()
    image.save(stream, format="PNG", pnginfo=info)
    write_atomically(path, stream.getvalue())


def seal() -> bytes:
    """The comment of a film that is not sealed yet."""
    return b"dist_dsvae film sha256:" + b"0" * 64


def sealed(film: bytes) -> bytes:
    """The bytes of a film that has ``seal()`` in it, sealed: the zeros are replaced by the sha256."""
    digest = hashlib.sha256(film).hexdigest().encode()
    return film.replace(seal(), seal()[:-64] + digest, 1)


def _is_sealed(film: bytes) -> bool:
    found = _SEAL.search(film)
    if found is None:
        return False
    unsealed = film[: found.start(1)] + b"0" * 64 + film[found.end(1) :]
    return hashlib.sha256(unsealed).hexdigest().encode() == found.group(1)


def is_own(path: Path) -> bool:
    """Whether ``path`` is a picture or a film as it was written here."""
    if path.suffix.lower() in FILM_SUFFIXES:
        small_enough = path.is_file() and path.stat().st_size <= _MAX_FILM_BYTES
        return small_enough and _is_sealed(path.read_bytes())
    try:
        with Image.open(path, formats=["PNG"]) as image:
            said = image.info.get(_KEY)  # before the pixels: those of a person's may be huge
            return isinstance(said, str) and said == _digest(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def _digest(image: Image.Image) -> str:
    about = f"{image.mode} {image.size} ".encode()
    return hashlib.sha256(about + image.tobytes()).hexdigest()
