"""The page of a run while it trains: progress, curves, grids, and a newer checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from dist_dsvae.explore import examples, renderings
from dist_dsvae.explore.examples import TYPICAL
from dist_dsvae.explore.subject import open_source
from dist_dsvae.explore.uploads import read_upload
from dist_dsvae.runs.open_model import open_model
from dist_dsvae.sampling.holes import REFINE_STEPS
from tests.browser.looking import (
    BASE,
    INPAINTED,
    SAMPLES,
    image_file,
    image_of,
    like,
    open_tab,
    upload,
    wait_for,
)
from tests.browser.serving import MAX_BYTES, Pages, playwright, served_apart
from tests.unit.explore.making import save_checkpoint
from tests.unit.pretrained.making import CLASSES


def test_a_run_is_watched_while_it_trains(pages: Pages) -> None:
    page = pages.open(pages.started_url)
    progress = page.get_by_label("Progress")
    playwright.expect(progress).to_have_value("Nothing has been logged yet.")
    assert page.get_by_role("tab").all_inner_texts() == ["Training"]
    with (pages.started / "metrics.jsonl").open("a", encoding="utf-8") as metrics:
        for seen in (100, 200):
            line = {"samples_seen": seen, "step": seen // 100, "gm": 1 / seen, "images_per_second": 65.0}
            metrics.write(json.dumps(line) + "\n")
    (pages.started / "samples").mkdir()
    grid = Image.new("RGB", (60, 40), (0, 90, 200))
    grid.save(pages.started / "samples/step-00000002.png")
    wait_for(page, "The newest grid of samples of the run", like(grid))
    playwright.expect(progress).to_have_value(
        "Iteration 2 of 80, 200 of 8,000 samples seen, 65 images per second. About 2 min to go at this speed."
    )
    wait_for(page, "Losses and speed of the run over the samples seen", lambda seen: seen.std() > 1)


def test_a_newer_checkpoint_is_picked_up_on_an_open_page(pages: Pages) -> None:
    page = pages.open(pages.saved_url)

    def drawn() -> Image.Image:
        model = open_model(pages.saved, None)
        return renderings.samples(model, list(CLASSES), 8, 0, TYPICAL, shared_zu=True, only_best=True)

    before = drawn()
    wait_for(page, SAMPLES, like(before))
    page.get_by_text("Pictures are drawn from its iteration 100.").wait_for()
    save_checkpoint(pages.saved, 250, brightness=0.3)
    page.get_by_text("Pictures are drawn from its iteration 250.").wait_for()
    after = drawn()
    assert not like(before)(np.asarray(after.convert("RGB")).astype(int))
    wait_for(page, SAMPLES, like(after))


def test_with_a_newer_checkpoint_every_tab_shows_what_it_showed(pages: Pages, tmp_path: Path) -> None:
    save_checkpoint(pages.saved, 300)
    page = pages.open(pages.saved_url)
    page.get_by_text("Pictures are drawn from its iteration 300.").wait_for()
    model = open_model(pages.saved, None)
    example = examples.examples(model, pages.saved, None)[0].image
    open_tab(page, "Inpaint")
    wait_for(page, INPAINTED, like(renderings.inpainted(model, example, "right-half", None, REFINE_STEPS)))
    open_tab(page, "Looks")
    page.get_by_role("button", name="Start from another picture").click()
    upload(page, 0, path := image_file(tmp_path / "own.png", 5))
    own = read_upload(path, MAX_BYTES, model.photographs).image
    wait_for(
        page, BASE, like(renderings.enlarged(renderings.base_of_image(model, own, None).decoded(model)[0]))
    )

    def sample() -> Image.Image:
        return renderings.enlarged(renderings.base_of_sample(model, CLASSES[0], 3).decoded(model)[0])

    page.get_by_label("Seed").locator("visible=true").fill("3")
    wait_for(page, BASE, like(sample()))
    save_checkpoint(pages.saved, 400, brightness=0.6)
    page.get_by_text("Pictures are drawn from its iteration 400.").wait_for()
    model = open_model(pages.saved, None)
    wait_for(page, BASE, like(sample()))
    open_tab(page, "Inpaint")
    wait_for(page, INPAINTED, like(renderings.inpainted(model, example, "right-half", None, REFINE_STEPS)))


def test_a_page_that_ends_leaves_the_pictures_of_others(pages: Pages) -> None:
    first = pages.open(pages.saved_url)
    with served_apart(open_source(None, pages.saved)) as (url, folder):
        second = pages.open(url)
        shown = image_of(second, SAMPLES)
        assert shown is not None
        wait_for(first, SAMPLES, lambda seen: np.array_equal(seen, shown))
        assert [*folder.rglob("image.*")]
        second.context.close()
    assert not folder.exists()
    assert np.array_equal(image_of(first, SAMPLES), shown)
