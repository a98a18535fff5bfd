"""Without simplejpeg Pillow decodes JPEGs to the same pixels, and a line says that it is slower."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg
from PIL import ExifTags, Image, features

from dist_dsvae.config import DataConfig
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.images import flatten
from dist_dsvae.core.types import ImageShape
from dist_dsvae.data import decode
from dist_dsvae.data.decode import decode_into, empty_batch, shape_of
from dist_dsvae.data.open_splits import open_splits
from tests.unit.data.making import deep_png
from tests.unit.engine.making import write_images

SIZES = (32, 33, 64, 250)
SUBSAMPLINGS = ("444", "422", "420", "440", "411", "Gray")


def pixels_of(size: int) -> npt.NDArray[np.uint8]:
    """uint8 [size, size, 3]: smooth colours with noise on them."""
    rng = np.random.default_rng(size)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC)).astype(int)
    return np.clip(smooth + rng.integers(-20, 20, smooth.shape), 0, 255).astype(np.uint8)


def jpegs(size: int) -> list[bytes]:
    """A picture in the kinds of JPEG that there are."""
    pixels = pixels_of(size)
    files = [
        simplejpeg.encode_jpeg(pixels, quality=quality, colorsubsampling=subsampling)
        for quality in (50, 90, 95)
        for subsampling in SUBSAMPLINGS
    ]
    for image in (Image.fromarray(pixels), Image.fromarray(pixels[..., 0])):
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=90, progressive=True)
        files.append(stream.getvalue())
    return files


@pytest.mark.skipif(not features.check_feature("libjpeg_turbo"), reason="Pillow is built on another libjpeg")
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_both_decoders_give_the_same_pixels(
    size: int, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = jpegs(size)
    shape = ImageShape(channels, size, size)
    fast, slow = empty_batch(shape, len(files)), empty_batch(shape, len(files))
    for file, out in zip(files, fast, strict=True):
        decode_into(memoryview(file), out)
    monkeypatch.setattr(decode, "decode_jpeg", None)
    for file, out in zip(files, slow, strict=True):
        decode_into(memoryview(file), out)
    assert fast.std() > 10
    assert np.array_equal(fast, slow)


@pytest.mark.parametrize(("extension", "is_said"), [("jpg", True), ("png", False)])
def test_a_line_says_that_it_is_slower(
    extension: Literal["png", "jpg"],
    is_said: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_images(tmp_path / "train", ("a", "b"), 4, ImageShape(3, 32, 32), extension)
    config = DataConfig(train=str(tmp_path / "train"))
    with caplog.at_level(logging.WARNING):
        open_splits(config)
        assert caplog.text == ""
        monkeypatch.setattr(decode, "decode_jpeg", None)
        open_splits(config)
    assert ("simplejpeg is not installed: Pillow decodes JPEGs, more slowly" in caplog.text) == is_said


def packed(image: Image.Image, kind: str, orientation: int = 1) -> bytes:
    """The file of a picture, which is to be turned by so much."""
    exif = Image.Exif()
    if orientation != 1:
        exif[ExifTags.Base.Orientation] = orientation
    stream = io.BytesIO()
    image.save(stream, kind, exif=exif, **({"quality": 100} if kind == "JPEG" else {}))
    return stream.getvalue()


@pytest.mark.parametrize("without_simplejpeg", [False, True])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_pictures_are_turned_as_their_exif_says(
    kind: str, without_simplejpeg: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `dsvae build folder` turns them: all eight, also where that exchanges width and height."""
    if without_simplejpeg:
        monkeypatch.setattr(decode, "decode_jpeg", None)
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:8, :12] = 255
    for orientation in range(1, 9):
        data = memoryview(packed(Image.fromarray(pixels), kind, orientation))
        with Image.open(io.BytesIO(data)) as opened:
            expected = np.asarray(flatten(opened)).astype(int)
        for channels in (1, 3):
            shape = shape_of(data)._replace(channels=channels)
            out = empty_batch(shape, 1)[0]
            decode_into(data, out)
            assert out.shape == (*expected.shape[:2], channels)
            assert np.abs(out.astype(int) - expected).max() < 16, orientation
    with pytest.raises(DataError, match="it decodes to 16x24 pixels, while the manifest says 24x16 pixels"):
        decode_into(data, empty_batch(ImageShape(3, 16, 24), 1)[0])


def test_a_damaged_exif_turns_nothing() -> None:
    for kind in ("JPEG", "WEBP"):
        data = packed(Image.new("RGB", (8, 8), (200, 0, 0)), kind, 6).replace(b"MM\x00*", b"MM\x00!")
        out = empty_batch(ImageShape(3, 8, 8), 1)[0]
        decode_into(memoryview(data), out)
        assert out[0, 0, 0] > 190


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(mode: str) -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:4] = (90, 90, 90, 255)
    image = Image.fromarray(pixels)
    if mode == "P":
        image = Image.new("P", (8, 8), 1)
        image.paste(0, (0, 0, 8, 4))
        image.putpalette([90, 90, 90, 0, 0, 0])
        image.info["transparency"] = 1
    data = memoryview(packed(image if mode == "P" else image.convert(mode), "PNG"))
    for channels in (1, 3):
        out = empty_batch(ImageShape(channels, 8, 8), 1)[0]
        decode_into(data, out)
        assert (out[:4] == 90).all()
        assert (out[4:] == 255).all()


def test_colours_of_which_the_upper_bits_tell_nothing_are_refused() -> None:
    """12 bits in 16 would be nearly black; all 16 are read by their upper 8."""
    for largest in (4095, 65535):
        data = memoryview(deep_png(largest))
        if largest == 65535:
            assert shape_of(data) == (3, 8, 8)
            continue
        with pytest.raises(DataError, match=r"at most 14 bits per colour in 16.*convert it to 8 bits"):
            shape_of(data)
