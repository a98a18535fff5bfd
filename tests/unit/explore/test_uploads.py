"""Uploads: what is taken comes in the model's size; what is not gets a sentence, before it is decoded."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dist_dsvae.core.types import ImageShape
from dist_dsvae.explore.uploads import MAX_PIXELS, UploadError, read_upload
from dist_dsvae.pretrained.photographs import Photographs

GREY, COLOUR = (Photographs(None, ImageShape(channels, 32, 32), "auto") for channels in (1, 3))
LIMIT = 100_000


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize(("photographs", "mode"), [(GREY, "L"), (COLOUR, "RGB")])
def test_pictures_come_in_the_models_size(
    tmp_path: Path, suffix: str, photographs: Photographs, mode: str
) -> None:
    path = tmp_path / f"picture.{suffix}"
    Image.new("RGB", (90, 50), (200, 200, 200)).save(path)
    image = read_upload(path, LIMIT, photographs).image
    assert (image.size, image.mode) == ((32, 32), mode)
    assert abs(int(np.asarray(image).mean()) - 200) <= 2


def test_the_format_is_that_of_the_bytes_not_of_the_name(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    noise(40, 40).save(path, format="GIF")
    with pytest.raises(UploadError, match=r"picture\.png is no picture that can be read\. Allowed are PNG"):
        read_upload(path, LIMIT, COLOUR)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            "it is an SVG drawing, which is not read. Convert it to PNG",
        ),
        (
            b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
            "it is a HEIC picture, which is not read. Convert it to JPEG",
        ),
    ],
)
def test_formats_that_people_have(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "mine.jpg").write_bytes(content)
    with pytest.raises(UploadError, match=rf"mine\.jpg cannot be read as a picture: {reason}"):
        read_upload(tmp_path / "mine.jpg", LIMIT, COLOUR)


def test_a_broken_header(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\nand nothing more")
    with pytest.raises(UploadError, match=r"broken\.png is no picture"):
        read_upload(path, LIMIT, COLOUR)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_pixels_that_end_early(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"half.{suffix}"
    noise(64, 64).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UploadError, match=rf"half\.{suffix} is"):
        read_upload(path, LIMIT, COLOUR)


def test_too_many_bytes(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    noise(300, 300).save(path)
    with pytest.raises(UploadError, match=r"large\.png has 0\.3 MiB; at most 0\.0953674 MiB are taken"):
        read_upload(path, LIMIT, COLOUR)


def png_of(path: Path, width: int, height: int) -> None:
    """A file of some bytes whose header claims any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rows + chunk(b"IEND", b""))


@pytest.mark.parametrize("side", [int(MAX_PIXELS**0.5) + 1, 30_000])
def test_pixels_are_counted_before_they_are_decoded(
    tmp_path: Path, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", MAX_PIXELS
    )  # so that both limits are met, ours and Pillow's
    path = tmp_path / "bomb.png"
    png_of(path, side, side)
    with pytest.raises(UploadError, match=r"bomb\.png has too many pixels; at most 50 million"):
        read_upload(path, LIMIT, COLOUR)
