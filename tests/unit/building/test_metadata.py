"""Shards hold pictures, and nothing else that their files had: no names, places or thumbnails."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from dist_dsvae.building.sources.metadata import without_metadata

NAME = "Jane Doe"


def picture(mode: str = "RGB") -> Image.Image:
    size = (40, 40, 3) if mode == "RGB" else (40, 40)
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8))


def jpeg(**options: object) -> bytes:
    exif = Image.Exif()
    exif[0x010E] = NAME  # ImageDescription
    stream = io.BytesIO()
    image = picture()
    image.save(stream, "JPEG", exif=exif, comment=NAME.encode(), icc_profile=NAME.encode(), **options)
    return stream.getvalue()


def png() -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", NAME)
    text.add_itxt("Description", NAME, zip=False)
    stream = io.BytesIO()
    picture().save(stream, "PNG", pnginfo=text)
    return stream.getvalue()


FILES = {
    "jpeg": jpeg(),
    "progressive": jpeg(progressive=True),
    "restarts": jpeg(restart_marker_blocks=2),
    "png": png(),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("behind", [b"", NAME.encode() + b"\xff\xd9"])
def test_pixels_stay_and_all_else_goes(kind: str, behind: bytes) -> None:
    content = FILES[kind]
    assert NAME.encode() in content
    stripped = without_metadata(content + behind)
    assert NAME.encode() not in stripped
    before, after = (np.asarray(Image.open(io.BytesIO(each))) for each in (content, stripped))
    assert np.array_equal(before, after)
    assert without_metadata(stripped) == stripped


def test_segments_about_colour_hold_nothing_else() -> None:
    """A thumbnail in JFIF's, and segments of others under the same two marks."""
    content = FILES["jpeg"]
    jfif = content[2:20]
    assert jfif[4:9] == b"JFIF\0"
    thumbnail = jfif[:2] + (16 + 12).to_bytes(2, "big") + jfif[4:16] + b"\x02\x02" + b"Jane Doe-RGB"
    others = b"".join(b"\xff" + mark + b"\x00\x0a" + NAME.encode() for mark in (b"\xe0", b"\xee"))
    odd = content[:2] + thumbnail + others + content[20:]
    stripped = without_metadata(odd)
    assert NAME.encode() not in stripped
    assert stripped == without_metadata(content)


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_ends_early_is_refused(kind: str) -> None:
    for end in (30, len(FILES[kind]) // 2, len(FILES[kind]) - 3):
        with pytest.raises(ValueError, match=r"ends|no end|marker"):
            without_metadata(FILES[kind][:end])


def test_the_kinds_of_colour_survive() -> None:
    """Adobe's segment says how a JPEG's three components are to be read."""
    stream = io.BytesIO()
    picture().save(stream, "JPEG", keep_rgb=True)
    content = stream.getvalue()
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(without_metadata(content)))), np.asarray(Image.open(stream))
    )


@pytest.mark.parametrize("options", [(), ("--unlabelled",)])
def test_no_metadata_is_in_the_shards(run, options: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    """Pictures of the very size go in as they are, but for that."""
    for number, content in enumerate([FILES["jpeg"], FILES["progressive"], FILES["restarts"]]):
        path = Path(f"raw/a/{number}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert run("folder", "raw", "out", "--size", 40, "--format", "jpg", *options) == 0
    tar = Path("out/train/000000.tar").read_bytes()
    assert NAME.encode() not in tar
    assert without_metadata(FILES["progressive"]) in tar


def test_a_file_of_unknown_parts_is_encoded_anew(run) -> None:  # type: ignore[no-untyped-def]
    """Decoders read over bytes between segments; what they are nobody knows."""
    odd = FILES["jpeg"][:2] + b"\xff\xe1\x00\x06Jane" + b"\x00\x00" + FILES["jpeg"][2:]
    assert Image.open(io.BytesIO(odd)).size == (40, 40)
    Path("raw/a").mkdir(parents=True)
    Path("raw/a/1.jpg").write_bytes(odd)
    assert run("folder", "raw", "out", "--size", 40, "--format", "jpg") == 0
    tar = Path("out/train/000000.tar").read_bytes()
    assert b"Jane" not in tar
    assert tar.count(b"\xff\xd8\xff") == 1
