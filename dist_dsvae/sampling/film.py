"""Films: frames there and back, as an animated GIF or WebP (Pillow) or as MP4 (imageio-ffmpeg)."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dist_dsvae.core.files import speaking_of
from dist_dsvae.sampling.image_file import check_replaceable, seal, sealed

FRAMES_PER_SECOND = 25  # what a GIF, which counts in hundredths of a second, can keep exactly


class FilmError(ValueError):
    """A film that cannot be written here; the message says what to do."""


def check_writer(path: Path) -> None:
    """Raises FilmError if what writes films of this kind is not installed: for those who draw long before."""
    if path.suffix.lower() == ".mp4":
        try:
            import imageio_ffmpeg  # noqa: F401
        except ImportError:
            raise FilmError(
                f"{path} needs a package that writes MP4; install it with: pip install "
                '"dist_dsvae[film]". Or give a name that ends in .gif or .webp.'
            ) from None


def save_film(path: Path, frames: Sequence[Image.Image]) -> None:
    """Write the frames (of mode "RGB" and one size), then back to the first, to be shown over and over.

    path: ends in one of ``option_types.FILM_SUFFIXES``. Raises FilmError as ``check_writer`` does, and
    ForeignImageError where a file is that this program did not write.
    """
    check_writer(path)
    check_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    there_and_back = [*frames, *frames[-2:0:-1]]
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(8)}.partial{path.suffix}")
    try:
        with speaking_of(path):
            if path.suffix.lower() == ".mp4":
                _write_mp4(temporary, there_and_back)
            else:
                _write_animation(temporary, there_and_back)
            temporary.write_bytes(sealed(temporary.read_bytes()))
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_animation(path: Path, frames: Sequence[Image.Image]) -> None:
    is_gif = path.suffix.lower() == ".gif"
    options = {"comment": seal()} if is_gif else {"xmp": seal(), "quality": 85}
    frames[0].save(
        path,
        save_all=True,
        append_images=frames[1:],
        duration=1000 // FRAMES_PER_SECOND,
        loop=0,
        **options,
    )


def _write_mp4(path: Path, frames: Sequence[Image.Image]) -> None:
    import imageio_ffmpeg

    width, height = (extent + extent % 2 for extent in frames[0].size)  # as its colours need
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (width, height),
        fps=FRAMES_PER_SECOND,
        codec="libx264",
        quality=8,
        macro_block_size=2,
        ffmpeg_log_level="error",
        output_params=["-metadata", f"comment={seal().decode()}", "-movflags", "+faststart"],
    )
    writer.send(None)
    for frame in frames:
        even = Image.new("RGB", (width, height), "white")
        even.paste(frame)
        writer.send(np.ascontiguousarray(even))
    writer.close()
