"""Pictures of every kind into tensors and back to the same kind."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dist_dsvae.core.types import ImageShape
from dist_dsvae.pretrained import image_kinds
from dist_dsvae.pretrained.image_kinds import ImageError, ImageList, ImageRows, Kind, read_images, to_network
from dist_dsvae.sampling.pixels import to_bytes
from tests.unit.methods.making import SHAPES
from tests.unit.pretrained.making import pixels

GREY, COLOUR, POINTS = SHAPES["small32"], SHAPES["conv32"], SHAPES["mlp2d"]


def test_every_kind_comes_back_bit_for_bit() -> None:
    grey, colour = pixels(3), pixels(3, 3)
    floats = torch.rand(3, 1, 32, 32) * 2 - 1
    for given, shape in [
        (grey, GREY),
        (grey[0], GREY),
        (grey[0, :, :, 0], GREY),
        (colour, COLOUR),
        (torch.from_numpy(colour).movedim(3, 1), COLOUR),
        (floats, GREY),
        (floats[0], GREY),
        (floats.half(), GREY),
        (floats.movedim(1, 3).numpy(), GREY),
        (torch.randn(4, 2), POINTS),
        (np.float32([1.5, -2.0]), POINTS),
    ]:
        tensor, kind = read_images(given, shape)
        back = kind.wrap(tensor)
        assert type(back) is type(given)
        assert back.dtype == given.dtype
        assert np.array_equal(back, given)
        if shape.is_image:
            assert tensor.shape[1:] == shape
            assert to_network(tensor).abs().max() <= 1.001


def test_pil_pictures_come_back_as_what_they_were() -> None:
    for shape, mode, channels in ((GREY, "L", 1), (COLOUR, "RGB", 3)):
        arrays = pixels(2, channels)
        images = [Image.fromarray(a[..., 0] if channels == 1 else a) for a in arrays]
        tensor, kind = read_images(images, shape)
        back = kind.wrap(tensor)
        assert [p.mode for p in back] == [mode, mode]
        assert all(np.array_equal(a, b) for a, b in zip(back, images, strict=True))
        alone, kind = read_images(images[1], shape)
        assert np.array_equal(kind.wrap(alone), images[1])
    assert kind.wrap_grid(tensor, 2)[1][0].size == (32, 32)


def test_pil_pictures_of_any_size_and_mode_are_cut_to_the_centre() -> None:
    wide = np.zeros((64, 256, 4), np.uint8)
    wide[:, 90:166] = (255, 0, 0, 255)  # the middle, and a little; the rest is transparent, so white
    tensor, _ = read_images([Image.fromarray(wide)], COLOUR)
    assert tensor.shape == (1, 3, 32, 32)
    assert tensor[0].flatten(1).float().mean(1).tolist() == [255.0, 0.0, 0.0]
    high, _ = read_images(Image.new("1", (5, 9), 1), GREY)
    assert high.float().mean() == 255


def test_bytes_survive_the_networks_range() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_bytes(to_network(values)), values)
    assert to_bytes(torch.tensor([-9.0, 9.0])).tolist() == [0, 255]


@pytest.mark.parametrize(
    ("given", "shape", "message"),
    [
        (
            np.zeros((2, 28, 28, 1), np.uint8),
            GREY,
            r"shape \[2, 28, 28, 1\]; this model takes \[N, 32, 32, 1\]",
        ),
        (torch.zeros(2, 3, 32, 32), GREY, r"takes \[N, 1, 32, 32\] or \[1, 32, 32\] \(channels, height"),
        (torch.full((1, 1, 32, 32), 200.0), GREY, r"floats up to 200; floats must lie in \[-1, 1\]"),
        (torch.full((1, 1, 32, 32), float("nan")), GREY, "not finite"),
        (torch.zeros(1, 1, 32, 32, dtype=torch.int64), GREY, "torch.int64; allowed are uint8"),
        (torch.zeros(1, 1, 32, 32).to(torch.float8_e4m3fn), GREY, "torch.float8_e4m3fn; allowed are uint8"),
        (np.zeros((1, 32, 32, 1), np.longdouble), GREY, "array of float128; allowed are uint8"),
        (np.zeros((1, 32, 32, 1), np.int32), GREY, "array of int32; allowed are uint8"),
        (np.zeros((3, 5), np.float32), POINTS, r"takes \[N, 2\] or \[2\]"),
        (Image.new("L", (4, 4)), POINTS, "was trained on points"),
        (
            [Image.new("L", (4, 4)), Image.new("RGB", (0, 5))],
            GREY,
            r"images\[1\] cannot .* no pixels \(0x5\)\.",
        ),
        ("cat.jpg", GREY, "is a str. Give a PIL picture"),
        ([Image.new("L", (4, 4)), 7], GREY, "a list with int in it"),
    ],
)
def test_what_is_wrong_gets_a_sentence(given, shape, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ImageError, match=message):
        read_images(given, shape)


def test_kinds_by_name() -> None:
    assert Kind.named("pil", GREY).dtype == torch.uint8
    assert Kind.named("array", POINTS).dtype == torch.float32
    for name, shape in (("jpeg", GREY), ("pil", POINTS)):
        with pytest.raises(ImageError, match=f"kind is '{name}'; allowed are"):
            Kind.named(name, shape)


@pytest.fixture
def untold() -> None:
    """Nobody was told of the range of floats yet."""
    image_kinds._warn_of_range.cache_clear()


@pytest.mark.usefixtures("untold")
def test_floats_as_totensor_makes_them_are_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """They are valid floats in [-1, 1] as well, so they are taken; but hardly anybody means them."""
    as_totensor = torch.from_numpy(pixels(2)).movedim(3, 1) / 255
    for _ in range(2):
        read_images(as_totensor, GREY)
        read_images(as_totensor.half().movedim(1, 3).numpy(), GREY)
    assert caplog.text.count("images holds no value below 0, and is taken as floats in [-1, 1]") == 1
    assert "give images * 2 - 1, or uint8" in caplog.text
    read_images(as_totensor, GREY, "b")
    assert "give b * 2 - 1" in caplog.text  # each of two arguments may have it


@pytest.mark.usefixtures("untold")
@pytest.mark.parametrize(
    ("given", "shape"),
    [
        (torch.from_numpy(pixels(2)).movedim(3, 1) / 255 * 2 - 1, GREY),
        (torch.from_numpy(pixels(2)).movedim(3, 1), GREY),
        (torch.ones(2, 1, 32, 32), GREY),  # white in either range
        (torch.zeros(2, 1, 32, 32, dtype=torch.bfloat16), GREY),  # one colour
        (torch.rand(2, 1, 32, 32) / 4 + 0.7, GREY),  # nearly white in either range
        (
            torch.cat([torch.rand(1, 1, 32, 32), -torch.ones(1, 1, 32, 32)]),
            GREY,
        ),  # one is bright
        (torch.zeros(0, 1, 32, 32), GREY),
        (torch.rand(4, 2), POINTS),
    ],
)
def test_other_pictures_and_points_get_no_warning(
    given: torch.Tensor, shape: ImageShape, caplog: pytest.LogCaptureFixture
) -> None:
    read_images(given, shape)
    assert caplog.text == ""


def test_a_notebook_shows_the_tiles_that_are_saved(tmp_path: Path) -> None:
    pictures = ImageList(Image.fromarray(one[..., 0]) for one in pixels(6))
    for shown in (pictures, pictures.in_rows(2), ImageRows(pictures.in_rows(3).rows)):
        shown.save(tmp_path / "saved.png")
        with Image.open(tmp_path / "saved.png") as saved, Image.open(io.BytesIO(shown._repr_png_())) as seen:
            assert saved.tobytes() == seen.tobytes()
    for nothing in (ImageList(), ImageRows(), ImageRows([ImageList()])):
        assert nothing._repr_png_() is None
    assert ImageList(pictures * 100)._repr_png_() is None  # megabytes in a notebook
