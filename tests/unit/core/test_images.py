"""Pictures of a folder: decoded no larger than needed, and not encoded again where they fit as they are."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from dist_dsvae.building.sources.file_encoder import FileEncoder
from dist_dsvae.building.sources.own_images.listing import is_image
from dist_dsvae.building.writer import Sample, UnreadableError
from dist_dsvae.core.images import Codec, Fitter, Format, Pixels
from dist_dsvae.data import decode
from dist_dsvae.pretrained.image_kinds import ImageError, read_image
from tests.unit.data.making import deep_png


def smooth(size: int = 16, mode: str = "RGB") -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC).convert(mode)


def stored(path: Path, size: int = 16, channels: int = 3, extension: Format = "jpg") -> bytes:
    encoder = FileEncoder(size=size, channels=channels, resize="crop", codec=Codec(extension=extension))
    return encoder(Sample(str(path), 0, path.name))[0]


@pytest.mark.parametrize(
    ("extension", "mode", "channels"),
    [("jpg", "RGB", 3), ("png", "RGB", 3), ("jpg", "L", 1), ("png", "L", 1)],
)
def test_a_picture_that_fits_is_kept_byte_for_byte(
    extension: Format, mode: str, channels: int, tmp_path: Path
) -> None:
    path = tmp_path / f"a.{extension}"
    smooth(mode=mode).save(path, quality=70)
    assert stored(path, channels=channels, extension=extension) == path.read_bytes()


def test_a_picture_that_does_not_fit_is_made_to(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 3
    frames = {"save_all": True, "append_images": [smooth().rotate(90)]}
    layer = smooth()
    layer.putalpha(100)
    misfits: list[tuple[str, Image.Image, dict[str, object]]] = [
        ("larger.jpg", smooth(17), {}),
        ("grey.jpg", smooth(mode="L"), {}),
        ("ink.jpg", smooth(mode="CMYK"), {}),
        ("turned.jpg", smooth(), {"exif": turned}),
        ("other.png", smooth(), {}),
        ("other.webp", smooth(), {"lossless": True}),
    ]
    of_png: list[tuple[str, Image.Image, dict[str, object]]] = [
        ("palette.png", smooth().quantize(16), {}),
        ("clear.png", layer, {}),
        ("hole.png", smooth(), {"transparency": (0, 0, 0)}),
        ("turned.png", smooth(), {"exif": turned}),
        ("frames.png", smooth(), frames),
        ("other.jpg", smooth(), {}),
    ]
    groups: list[tuple[Format, list[tuple[str, Image.Image, dict[str, object]]]]] = [
        ("jpg", misfits),
        ("png", of_png),
    ]
    for extension, images in groups:
        for name, image, options in images:
            path = tmp_path / name
            image.save(path, **options)
            content = stored(path, extension=extension)
            assert content != path.read_bytes(), name
            with Image.open(io.BytesIO(content)) as made:
                assert (made.size, made.mode) == ((16, 16), "RGB"), name
                assert made.format == {"jpg": "JPEG", "png": "PNG"}[extension], name
    upright, turned_over = np.asarray(smooth()).astype(int), tmp_path / "turned.png"
    made = np.asarray(Image.open(io.BytesIO(stored(turned_over, extension="png")))).astype(int)
    assert np.abs(made[::-1, ::-1] - upright).max() == 0


def test_a_picture_that_fits_but_is_cut_off_is_unreadable(tmp_path: Path) -> None:
    for extension in ("jpg", "png"):
        path = tmp_path / f"a.{extension}"
        smooth(64).save(path)
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(UnreadableError):
            stored(path, 64, extension=extension)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [8, 16])
def test_colours_of_16_bits(tmp_path: Path, size: int) -> None:
    """All of them are brought to 8, also where the picture fits; 12 of them would be nearly black."""
    path = tmp_path / "deep.png"
    path.write_bytes(deep_png(65535, size))
    with Image.open(io.BytesIO(stored(path, extension="png"))) as made:
        assert (made.tile[0][3], made.getpixel((0, 0))) == ("RGB", (255, 255, 255))
    path.write_bytes(deep_png(4095, size))
    with pytest.raises(UnreadableError, match=r"at most 14 bits per colour in 16.*convert it to 8 bits"):
        stored(path, extension="png")


def test_no_program_is_run_on_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands PostScript to Ghostscript, whatever the file is called."""
    path = tmp_path / "a.jpg"
    smooth(64).save(path, format="EPS")
    ran: list[object] = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *given, **_: ran.append(given) or smooth(64).im)
    with Image.open(path) as opened:
        opened.load()
    assert ran.pop()  # the test can fail
    with pytest.raises(UnreadableError, match="it is a PostScript drawing, which is not read"):
        stored(path, 32)
    with pytest.raises(ImageError, match="it is a PostScript drawing"):
        read_image(path)
    listed = tmp_path / "without an ending"
    path.rename(listed)
    assert not is_image(listed)
    assert ran == []


def test_a_photograph_is_decoded_at_a_fraction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest that is no smaller than the target; hardly another picture than from all its pixels."""
    seen: list[tuple[int, int]] = []
    fit = FileEncoder.fit_pixels

    def spied(self: FileEncoder, pixels: Pixels) -> Image.Image:
        seen.append(pixels.shape[:2])
        return fit(self, pixels)

    monkeypatch.setattr(FileEncoder, "fit_pixels", spied)
    path = tmp_path / "a.jpg"
    smooth(250).save(path, quality=95)
    made = np.asarray(Image.open(io.BytesIO(stored(path, 64, extension="png")))).astype(int)
    whole = np.asarray(smooth(250).resize((64, 64), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(made - whole).mean() < 1.5
    for size in (62, 125, 126):
        stored(path, size)
    assert seen == [(125, 125), (63, 63), (125, 125), (250, 250)]
    smooth(250).resize((500, 250)).save(path)
    stored(path, 64)
    assert seen[-1] == (125, 250)


def test_pillow_gives_the_same_bytes_where_simplejpeg_is_not_installed_or_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jpg"
    noisy = np.random.default_rng(0).integers(0, 256, (250, 250, 3), dtype=np.uint8)
    Image.blend(smooth(250), Image.fromarray(noisy), 0.2).save(path)
    assert decode.decode_plain_jpeg(path.read_bytes(), 64) is not None
    by_simplejpeg = stored(path, 64)
    for absent in (None, refusing):
        monkeypatch.setattr(decode, "decode_jpeg", absent)
        assert stored(path, 64) == by_simplejpeg


def refusing(*arguments: object, **options: object) -> None:
    raise ValueError("Corrupt JPEG data")


def test_what_only_pillow_reads_right_is_left_to_it(tmp_path: Path) -> None:
    """Turned by EXIF, grey, in ink, cut off, claiming to be huge, of the target's size, or no JPEG at all."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.jpg"
    refused: list[tuple[Image.Image, dict[str, object]]] = [
        (smooth(200), {"exif": exif}),
        (smooth(200, "L"), {}),
        (smooth(200, "CMYK"), {}),
        (smooth(64), {}),
        (smooth(200), {"format": "PNG"}),
    ]
    for image, options in refused:
        image.save(path, **options)
        assert decode.decode_plain_jpeg(path.read_bytes(), 64) is None, options
    smooth(200).save(path)
    content = path.read_bytes()
    assert decode.decode_plain_jpeg(content, 64) is not None
    assert decode.decode_plain_jpeg(content[: len(content) // 2], 64) is None
    frame = content.index(b"\xff\xc0")
    huge = content[: frame + 5] + b"\xff\xdc\xff\xdc" + content[frame + 9 :]
    assert decode.decode_plain_jpeg(huge, 64) is None
    path.write_bytes(huge)
    with pytest.raises(UnreadableError, match="too many pixels"):
        stored(path, 64)
    turned = smooth(200).convert("RGB")
    turned.save(path, exif=exif, quality=95)
    made = np.asarray(Image.open(io.BytesIO(stored(path, 100, extension="png")))).astype(int)
    upright = np.asarray(turned.resize((100, 100)).rotate(-90)).astype(int)
    assert np.abs(made - upright).mean() < 3


@pytest.mark.parametrize(("width", "height"), [(125, 125), (300, 200), (63, 90), (20, 30), (1, 7)])
def test_pictures_are_resized_as_pillow_does(width: int, height: int) -> None:
    """Bicubic and antialiased, whether smaller or larger: to a grey value, in a crop, a pad and a stretch.

    Of middle greys, which no pass overshoots: the first pass is cut to 0 ... 255 before the second, and which
    comes first differs (Pillow 13 takes the cheaper one, torch and Pillow 12 the horizontal one).
    """
    pixels = np.random.default_rng(0).integers(64, 192, (height, width, 3), dtype=np.uint8)
    image, bicubic = Image.fromarray(pixels), Image.Resampling.BICUBIC
    edge = min(width, height)
    left, top = (width - edge) // 2, (height - edge) // 2
    inner = [max(1, round(64 * side / max(width, height))) for side in (width, height)]
    padded = Image.new("RGB", (64, 64), "white")
    padded.paste(image.resize((inner[0], inner[1]), bicubic), ((64 - inner[0]) // 2, (64 - inner[1]) // 2))
    expected = {
        "crop": image.crop((left, top, left + edge, top + edge)).resize((64, 64), bicubic),
        "pad": padded,
        "stretch": image.resize((64, 64), bicubic),
    }
    for resize, by_pillow in expected.items():
        made = Fitter(size=64, channels=3, resize=resize).fit(image)  # type: ignore[arg-type]
        difference = np.asarray(made).astype(int) - np.asarray(by_pillow).astype(int)
        assert np.abs(difference).max() <= 1, resize
