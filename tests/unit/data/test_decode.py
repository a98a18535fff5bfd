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
from PIL import Image, features

from dist_dsvae.config import DataConfig
from dist_dsvae.core.types import ImageShape
from dist_dsvae.data import decode
from dist_dsvae.data.decode import decode_into, empty_batch
from dist_dsvae.data.open_splits import open_splits
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
