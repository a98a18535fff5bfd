"""The page in a headless Chromium, as people use it.

Whatever a picture shows is compared with what the functions behind the page draw from the same model in
this process. No request leaves the machine. Screenshots go to pytest's temporary directory.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dist_dsvae.core.types import ImageShape
from dist_dsvae.explore import examples, renderings
from dist_dsvae.explore.examples import TYPICAL
from dist_dsvae.explore.uploads import read_upload
from dist_dsvae.pretrained.model import PretrainedModel
from dist_dsvae.pretrained.photographs import Photographs
from dist_dsvae.runs.open_model import open_model
from dist_dsvae.sampling.holes import REFINE_STEPS
from tests.browser.looking import (
    BASE,
    INPAINTED,
    PLACE,
    SAMPLES,
    SWAPPED,
    VARIED,
    content_of,
    image_file,
    like,
    message,
    open_tab,
    settled,
    stroke,
    upload,
    wait_for,
)
from tests.browser.serving import MAX_BYTES, Pages, commanded
from tests.unit.building.drawn_faces import photograph
from tests.unit.pretrained.making import CLASSES

SHAPE = ImageShape(1, 32, 32)


def best(model: PretrainedModel, seed: int, classes: tuple[str, ...] = CLASSES) -> Image.Image:
    return renderings.samples(model, list(classes), 8, seed, TYPICAL, shared_zu=True, only_best=True)


def own(path: Path) -> Image.Image:
    return read_upload(path, MAX_BYTES, Photographs(None, SHAPE, "auto")).image


def crossed(model: PretrainedModel, *images: Image.Image) -> Image.Image:
    return renderings.crossed(model, images[0], images[1], (None, None))


def test_it_opens_on_the_best_known_samples_and_the_dice_draw_others(
    pages: Pages, model: PretrainedModel
) -> None:
    page = pages.open()
    assert page.locator("h1").inner_text() == "tiny <b>model</b>"
    opened = wait_for(page, SAMPLES, like(best(model, 0)))
    page.get_by_role("button", name="More choices").click()
    page.get_by_role("button", name="Roll the dice").click()
    wait_for(page, SAMPLES, lambda seen: not np.array_equal(seen, opened))
    seed = page.get_by_label("Seed").locator("visible=true")
    assert seed.input_value() != "0"
    wait_for(page, SAMPLES, like(best(model, int(seed.input_value()))))
    seed.fill("7")
    seed.press("Enter")
    wait_for(page, SAMPLES, like(best(model, 7)))
    page.get_by_role("combobox", name="Classes").press("Backspace")  # the last one goes
    wait_for(page, SAMPLES, like(best(model, 7, CLASSES[:-1])))
    page.get_by_label("Only those that the model is surest of").uncheck()
    every = renderings.samples(model, list(CLASSES[:-1]), 8, 7, TYPICAL, shared_zu=True)
    wait_for(page, SAMPLES, like(every))
    assert not like(best(model, 7, CLASSES[:-1]))(np.asarray(every.convert("RGB")).astype(int))


def test_the_command_without_arguments_shows_the_model_in_the_box(pages: Pages, tmp_path: Path) -> None:
    boxed = open_model(None, None)
    with commanded(tmp_path) as url:
        page = pages.open(url)
        wait_for(page, SAMPLES, like(best(boxed, 0, boxed.classes)))
        page.screenshot(path=pages.shots / "box.png", full_page=True)


def test_two_users_at_once(pages: Pages, model: PretrainedModel, tmp_path: Path) -> None:
    users = [pages.open(), pages.open()]
    files = [image_file(tmp_path / f"{seed}.png", seed) for seed in range(4)]
    for page in users:
        open_tab(page, "Swap")
    for number in (0, 1):  # the users take turns, so that one's pictures could be taken for the other's
        for user, page in enumerate(users):
            upload(page, 0, files[2 * user + number])
    for user, page in enumerate(users):
        images = [own(path) for path in files[2 * user : 2 * user + 2]]
        wait_for(page, SWAPPED, like(crossed(model, *images)))


def test_a_slider_moves_between_classes_by_keyboard(pages: Pages, model: PretrainedModel) -> None:
    page = pages.open()
    open_tab(page, "Between classes")
    first, last = CLASSES[0], CLASSES[-1]
    wait_for(page, PLACE, like(renderings.place_between(model, first, last, 0.5, 0)))
    page.get_by_label("range slider for Place between the two").press("End")
    wait_for(page, PLACE, like(renderings.place_between(model, first, last, 1.0, 0)))


def test_a_slider_changes_a_look_and_pictures_above_it_show_how(
    pages: Pages, model: PretrainedModel, tmp_path: Path
) -> None:
    page = pages.open()
    open_tab(page, "Looks")
    base, dimensions = (
        renderings.base_of_sample(model, CLASSES[0], 0),
        renderings.expressive_dimensions(model),
    )
    values = renderings.slider_values(base, dimensions)
    wait_for(page, VARIED, like(renderings.varied(model, base, dimensions, values)))
    for number, dimension in enumerate(dimensions, start=1):
        name = f"What look {number} does, from its lowest to its highest value"
        wait_for(page, name, like(renderings.strip_of(model, base, dimension)))
    slider = page.get_by_label("range slider for Look 1")
    assert float(slider.input_value()) == pytest.approx(values[0])
    slider.press("Home")
    moved = renderings.varied(model, base, dimensions, [-3.0, *values[1:]])
    assert not like(moved)(np.asarray(renderings.varied(model, base, dimensions, values).convert("RGB")))
    wait_for(page, VARIED, like(moved))
    page.get_by_role("button", name="Back to the base").click()
    wait_for(page, VARIED, like(renderings.varied(model, base, dimensions, values)))
    page.get_by_role("button", name="Start from another picture").click()
    path = image_file(tmp_path / "own.webp", 5)
    upload(page, 0, path)
    from_own = renderings.base_of_image(model, own(path), None)
    wait_for(page, BASE, like(renderings.enlarged(from_own.decoded(model)[0])))


def test_swap_opens_with_two_examples_and_takes_others(pages: Pages, model: PretrainedModel) -> None:
    page = pages.open()
    open_tab(page, "Swap")
    images = [one.image for one in examples.examples(model, None, None)]
    wait_for(page, SWAPPED, like(crossed(model, images[0], images[1])))
    page.get_by_role("button", name="Thumbnail 4 of 8").locator("visible=true").first.click()
    wait_for(page, SWAPPED, like(crossed(model, images[3], images[1])))
    page.get_by_role("button", name="Thumbnail 3 of 8").locator("visible=true").last.press("Enter")
    wait_for(page, SWAPPED, like(crossed(model, images[3], images[2])))


def test_an_example_brings_its_class_where_that_is_needed(pages: Pages) -> None:
    page = pages.open(pages.labelled_url)
    open_tab(page, "Swap")
    found = examples.examples(pages.labelled, None, None)
    page.get_by_role("button", name="Thumbnail 4 of 8").locator("visible=true").first.click()
    pair = (found[3].class_name, found[1].class_name)
    expected = renderings.crossed(pages.labelled, found[3].image, found[1].image, pair)
    wait_for(page, SWAPPED, like(expected))
    assert page.get_by_label("Class of: First picture").input_value() == found[3].class_name


def test_swap_by_upload_and_broken_uploads(pages: Pages, model: PretrainedModel, tmp_path: Path) -> None:
    page = pages.open()
    open_tab(page, "Swap")
    first = image_file(tmp_path / "first.png", 1)
    example = examples.examples(model, None, None)[1].image
    wait_for(page, SWAPPED, lambda seen: True)
    upload(page, 0, first)
    wait_for(page, SWAPPED, like(crossed(model, own(first), example)))

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    upload(page, 0, broken)  # the first slot has a file, so the first without one is the second
    message(page).get_by_text("broken.png is no picture that can be read").wait_for()
    page.get_by_label("Clear").last.click()
    upload(page, 0, image_file(tmp_path / "large.png", 1, side=400))
    message(page).get_by_text("exceed the maximum allowed size").wait_for()


def test_photographs_come_back_with_the_people_swapped(pages: Pages, tmp_path: Path) -> None:
    page = pages.open(pages.faces_url)
    open_tab(page, "Swap")
    page.get_by_role("button", name="Back into the photographs").click()
    message(page).get_by_text("Neither of the pictures was cut out of a photograph").wait_for()
    paths = [tmp_path / "first.png", tmp_path / "second.png"]
    for seed, path in enumerate(paths):
        photograph(path, (seed, 90, 70, 36), size=160)
    model = pages.faces
    given = [read_upload(path, MAX_BYTES, model.photographs) for path in paths]
    for slot, path, one in zip(("First", "Second"), paths, given, strict=True):
        upload(page, 0, path)
        wait_for(page, f"The picture given as: {slot} picture", like(renderings.enlarged(one.image)))
    name = SWAPPED.replace("what it is", "who it is")
    wait_for(page, name, like(crossed(model, given[0].image, given[1].image)))
    page.get_by_role("button", name="Back into the photographs").click()
    expected = renderings.swapped_photographs(model, (given[0], given[1]), (None, None))
    shown = page.locator(".photographs img")
    shown.nth(1).wait_for()
    assert shown.count() == 2
    for place, photo in enumerate(expected):
        difference = content_of(page, shown.nth(place)) - np.asarray(photo.convert("RGB")).astype(int)
        assert np.abs(difference).mean() < 4, "but for JPEG"


def test_inpaint_by_brush_and_by_name(pages: Pages, model: PretrainedModel) -> None:
    page = pages.open()
    open_tab(page, "Inpaint")
    ground = page.locator("#hole-editor canvas").first  # the second, for cropping, may keep another width
    ground.wait_for()
    image = examples.examples(model, None, None)[0].image
    named = {
        name: like(renderings.inpainted(model, image, name, None, REFINE_STEPS))
        for name in ("right-half", "bottom-half")
    }
    wait_for(page, INPAINTED, named["right-half"])  # of the example that lies under the brush
    assert page.get_by_label("right-half").is_checked()
    page.get_by_label("painted", exact=True).check()
    page.get_by_role("button", name="Inpaint", exact=True).click()
    message(page).get_by_text("Nothing is painted").wait_for()
    page.get_by_label("bottom-half").check()
    wait_for(page, INPAINTED, named["bottom-half"])

    stroke(page, settled(page, ground))
    page.wait_for_function("document.querySelector('input[type=radio][value=painted]').checked")
    page.get_by_role("button", name="Inpaint", exact=True).click()
    original = np.asarray(renderings.enlarged(image).convert("RGB")).astype(int)
    half = original.shape[0] // 2
    seen = wait_for(page, INPAINTED, lambda seen: np.abs(seen - original)[-half // 4 :].max() <= 1)
    rows, columns = np.nonzero(np.abs(seen - original).max(axis=-1) > 1)
    assert len(rows) > 0, "the hole was painted"
    extent = (int(rows.min()), int(columns.min()), int(rows.max()), int(columns.max()))
    assert min(extent) > 60, f"only about the middle is filled: {extent}"
    assert max(extent) < 260, f"only about the middle is filled: {extent}"
    assert len(rows) < 0.25 * original[..., 0].size, "and nothing else"
