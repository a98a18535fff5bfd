"""The pictures behind the tabs: equal for equal choices, and what their captions say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dist_dsvae.config import CGANConfig, CVAEConfig, DSVAEConfig, MethodConfig
from dist_dsvae.core.noise import Noise
from dist_dsvae.explore import renderings
from dist_dsvae.explore.examples import TYPICAL
from dist_dsvae.explore.uploads import Given, read_upload
from dist_dsvae.pretrained.model import PretrainedModel
from dist_dsvae.pretrained.requests import RequestError
from dist_dsvae.sampling.temperature import Tempered
from tests.unit.building.drawn_faces import photograph
from tests.unit.explore.making import face_model, make_model
from tests.unit.pretrained.making import CLASSES, pixels

GENERATIVE = [DSVAEConfig(), CVAEConfig(), CGANConfig()]


@pytest.fixture(scope="module")
def model() -> PretrainedModel:
    return make_model(DSVAEConfig())


def same(first: Image.Image, second: Image.Image) -> bool:
    return np.array_equal(np.asarray(first), np.asarray(second))


def image(number: int) -> Image.Image:
    return Image.fromarray(pixels(2)[number, ..., 0])


def place(tile: Image.Image, factor: int, grid: Image.Image) -> tuple[int, int] | None:
    """Where a grey tile stands in a grid, each of its pixels a square of ``factor`` pixels."""
    wanted = np.kron(np.asarray(tile), np.ones((factor, factor), np.uint8))
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(grid.convert("L")), wanted.shape)
    for row, column in np.argwhere(
        (windows[..., 0, 0] == wanted[0, 0]) & (windows[..., -1, -1] == wanted[-1, -1])
    ):
        if np.array_equal(windows[row, column], wanted):
            return int(row), int(column)
    return None


def occurs(tile: Image.Image, factor: int, grid: Image.Image) -> bool:
    return place(tile, factor, grid) is not None


def small(enlarged: Image.Image) -> np.ndarray:
    """What was enlarged tenfold, and that it was without smoothing."""
    array = np.asarray(enlarged)
    assert array.shape[:2] == (320, 320)
    assert np.array_equal(np.kron(array[::10, ::10], np.ones((10, 10), np.uint8)), array)
    return array[::10, ::10]


@pytest.mark.parametrize("config", GENERATIVE, ids=lambda c: c.name)
def test_samples_follow_from_seed_and_choices(config: MethodConfig) -> None:
    model = make_model(config)

    def draw(classes: list[str], seed: int, shared_zu: bool) -> Image.Image:
        return renderings.samples(model, classes, 3, seed, shared_zu=shared_zu)

    one = draw(["bag", "coat"], 4, True)
    assert same(one, draw(["bag", "coat"], 4, True))
    for other in (draw(["bag", "coat"], 5, True), draw(["bag", "coat"], 4, False)):
        assert not same(one, other)


def test_samples_are_those_of_the_model(model: PretrainedModel) -> None:
    grid = renderings.samples(model, ["coat"], 2, 4, shared_zu=False)
    for expected in model.sample("coat", 2, 4):
        assert occurs(expected, 2, grid)
    assert not occurs(model.sample("coat", 2, 5)[0], 2, grid)


def test_samples_need_some_classes_and_not_too_many(model: PretrainedModel) -> None:
    with pytest.raises(RequestError, match="0 classes are chosen; choose 1 to 20"):
        renderings.samples(model, [], 3, 0, shared_zu=True)
    with pytest.raises(RequestError, match="21 classes are chosen"):
        renderings.samples(model, ["bag"] * 21, 3, 0, shared_zu=True)


def test_points_are_a_cloud() -> None:
    model = make_model(DSVAEConfig(), "mlp2d")
    cloud = np.asarray(renderings.samples(model, list(CLASSES[:2]), 3, 0, shared_zu=True).convert("RGB"))
    red, green, blue = cloud[..., 0].astype(int), cloud[..., 1].astype(int), cloud[..., 2].astype(int)
    assert ((blue - red) > 60).sum() > 100, "the first class is blue"
    assert ((red - blue) > 60).sum() > 100, "the second is orange"
    assert ((green - np.maximum(red, blue)) > 60).sum() == 0, "the third, green, was not chosen"


@pytest.mark.parametrize("config", GENERATIVE, ids=lambda c: c.name)
def test_the_way_between_classes_starts_at_one_and_ends_at_the_other(config: MethodConfig) -> None:
    model = make_model(config)
    first, second = renderings.base_of_sample(model, "bag", 3), renderings.base_of_sample(model, "coat", 3)
    assert torch.equal(first.zu, second.zu)
    assert not torch.equal(first.zs, second.zs)
    for fraction, end in ((0, first), (1, second)):  # whole numbers, as the browser sends them
        expected = renderings.enlarged(end.decoded(model)[0])
        assert same(renderings.place_between(model, "bag", "coat", fraction, 3), expected)
    middle = renderings.place_between(model, "bag", "coat", 0.5, 3)
    assert not same(middle, renderings.place_between(model, "bag", "coat", 0.0, 3))
    assert same(renderings.between(model, "bag", "coat", 3), renderings.between(model, "bag", "coat", 3))


def test_the_most_expressive_dimensions_come_first(model: PretrainedModel) -> None:
    dimensions = renderings.expressive_dimensions(model)
    ranks = model.expressiveness(8)
    assert len(dimensions) == min(renderings.NUM_DIMENSIONS, model.code_dims[1])
    assert [float(ranks[dim]) for dim in dimensions] == sorted(ranks.tolist(), reverse=True)[
        : len(dimensions)
    ]


def test_sliders_start_at_the_base_and_move_their_dimension(model: PretrainedModel) -> None:
    base, dimensions = renderings.base_of_sample(model, "coat", 1), [2, 0]
    exact = [float(base.zu[0, dim]) for dim in dimensions]
    assert renderings.slider_values(base, dimensions) == pytest.approx(exact, abs=0.006)
    at_base = renderings.varied(model, base, dimensions, exact)
    assert same(at_base, renderings.enlarged(base.decoded(model)[0]))
    assert not same(at_base, renderings.varied(model, base, dimensions, [exact[0] + 2, exact[1]]))
    assert float(base.zu[0, 2]) == exact[0], "the base itself stays"


def test_values_beyond_the_sliders_are_shown_at_their_end() -> None:
    base = renderings.Base(torch.zeros(1, 2), torch.tensor([[5.0, -4.0]]), "prior")
    assert renderings.slider_values(base, [0, 1]) == [3.0, -3.0]


def test_a_picture_can_be_the_base() -> None:
    model = make_model(CVAEConfig())
    base = renderings.base_of_image(model, image(0), "coat")
    zs, zu = model.encode(image(0), "coat")
    assert torch.equal(base.zs, zs)
    assert torch.equal(base.zu, zu.mean)


@pytest.mark.parametrize("config", [DSVAEConfig(), CVAEConfig()], ids=lambda c: c.name)
def test_swapping_crosses_two_pictures(config: MethodConfig) -> None:
    model = make_model(config)
    labels = ("bag", "coat") if model.needs_labels else (None, None)
    grid = renderings.crossed(model, image(0), image(1), labels)
    there = model.swap(image(0), image(1), *labels)
    back = model.swap(image(1), image(0), *reversed(labels))
    assert occurs(image(0), 4, grid)
    assert occurs(image(1), 4, grid)
    first, second = place(there, 4, grid), place(back, 4, grid)
    assert first is not None
    assert second is not None
    assert first[0] < second[0], "zs of the left"
    assert first[1] > second[1], "zu of the top"


def test_a_hole_is_where_half_of_a_pixel_is_painted() -> None:
    layer = np.zeros((320, 320, 4), np.uint8)
    layer[40:56, 100:110, 3] = 255  # pixel row 4, and the upper 6 of row 5's 10
    layer[0:4, 0:10, 3] = 255  # less than half of the first pixel
    hole = renderings.hole_of([layer, np.zeros_like(layer)], 32, 32)
    assert np.argwhere(hole).tolist() == [[4, 10], [5, 10]]
    assert not renderings.hole_of([], 32, 32).any()


def test_inpainting_changes_the_hole_alone(model: PretrainedModel) -> None:
    hole = np.zeros((32, 32), bool)
    hole[10:20, 5:9] = True
    result = small(renderings.inpainted(model, image(0), hole, None, 0))
    original = np.asarray(image(0))
    assert np.array_equal(result[~hole], original[~hole])
    assert not np.array_equal(result[hole], original[hole])
    named = small(renderings.inpainted(model, image(0), "right-half", None, 0))
    assert np.array_equal(named[:, :16], original[:, :16])


def test_inpainting_needs_a_hole(model: PretrainedModel) -> None:
    with pytest.raises(RequestError, match="Nothing is painted"):
        renderings.inpainted(model, image(0), np.zeros((32, 32), bool), None, 0)


def test_a_strip_shows_what_a_dimension_does(model: PretrainedModel) -> None:
    base = renderings.base_of_sample(model, "coat", 1)
    strip = renderings.strip_of(model, base, 2)
    places = []
    for value in (-renderings.EXTENT, 0.0, renderings.EXTENT):
        end = Image.fromarray(small(renderings.varied(model, base, [2], [value])))
        found = place(end, 2, strip)
        assert found is not None
        places.append(found[1])
    assert places == sorted(set(places)), "from low to high"


def test_the_base_is_a_typical_sample(model: PretrainedModel) -> None:
    usual = model.published.method.prior_codes
    noise = Noise(3, torch.zeros(1, dtype=torch.int64))
    labels = torch.tensor([CLASSES.index("coat")])
    with torch.no_grad():
        mean = usual(labels, Tempered(noise, 0.0), Tempered(noise, 0.0))
        drawn = usual(labels, noise, noise)
    base = renderings.base_of_sample(model, "coat", 3)
    zs_dim, _ = model.code_dims
    for code, part, temperature in (
        (base.zs, slice(zs_dim), TYPICAL.zs),
        (base.zu, slice(zs_dim, None), TYPICAL.zu),
    ):
        expected = mean[:, part] + temperature * (drawn[:, part] - mean[:, part])
        assert torch.allclose(code, expected, atol=1e-5)


def faces(tmp_path: Path) -> tuple[PretrainedModel, Given, Given]:
    """A model of faces, and photographs of two persons as the page reads them."""
    model = face_model()
    given = []
    for seed in (3, 4):
        path = tmp_path / f"{seed}.png"
        photograph(path, (seed, 90, 70, 36), size=160)
        given.append(read_upload(path, 10**6, model.photographs))
    return model, given[0], given[1]


def test_swapped_faces_go_back_into_their_photographs(tmp_path: Path) -> None:
    model, first, second = faces(tmp_path)
    assert first.face is not None
    assert second.face is not None
    made = renderings.swapped_photographs(model, (first, second), (None, None))
    expected = [
        first.face.paste(model.swap(second.image, first.image)),
        second.face.paste(model.swap(first.image, second.image)),
    ]
    assert all(same(one, other) for one, other in zip(made, expected, strict=True))
    assert not same(made[0], first.face.photograph)
    example = Given(image(0))
    (alone,) = renderings.swapped_photographs(model, (example, second), (None, None))
    assert same(alone, second.face.paste(model.swap(example.image, second.image)))
    with pytest.raises(RequestError, match="Neither of the pictures was cut out of a photograph"):
        renderings.swapped_photographs(model, (example, example), (None, None))


def test_a_filled_hole_goes_back_into_the_photograph(tmp_path: Path) -> None:
    model, first, _ = faces(tmp_path)
    assert first.face is not None
    made = renderings.inpainted_photograph(model, first, "eyes", None, 0)
    painted = model.inpaint(first.image, "eyes", refine_steps=0)
    assert same(made, first.face.paste(painted, model.holes("eyes")[0, 0].numpy()))
    with pytest.raises(RequestError, match="The picture was not cut out of a photograph"):
        renderings.inpainted_photograph(model, Given(image(0)), "eyes", None, 0)
