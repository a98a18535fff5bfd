"""Choices that follow one another while a picture is drawn: what is shown in the end is of the last."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from dist_dsvae.explore import examples, renderings
from dist_dsvae.explore.examples import TYPICAL
from dist_dsvae.pretrained.model import PretrainedModel
from dist_dsvae.sampling.holes import REFINE_STEPS
from tests.browser.looking import INPAINTED, SAMPLES, SWAPPED, like, open_tab, wait_for
from tests.browser.serving import Pages
from tests.unit.pretrained.making import CLASSES

SECONDS = 1.0  # that a picture takes to draw, so that there is time for another choice


def slowed(monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    """The function of that name of ``renderings``, as it was before it took its time."""
    function = getattr(renderings, name)

    def slow(*arguments: Any, **named: Any) -> Any:
        time.sleep(SECONDS)
        return function(*arguments, **named)

    monkeypatch.setattr(renderings, name, slow)
    return function


def test_two_holes(pages: Pages, model: PretrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    image = examples.examples(model, None, None)[0].image
    page = pages.open()
    open_tab(page, "Inpaint")
    wait_for(page, INPAINTED, lambda seen: True)
    inpainted = slowed(monkeypatch, "inpainted")
    page.get_by_label("bottom-half").check()
    page.wait_for_timeout(SECONDS * 300)
    page.get_by_label("centre", exact=True).check()
    wait_for(page, INPAINTED, like(inpainted(model, image, "centre", None, REFINE_STEPS)))


def test_two_examples(pages: Pages, model: PretrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [one.image for one in examples.examples(model, None, None)]
    page = pages.open()
    open_tab(page, "Swap")
    wait_for(page, SWAPPED, lambda seen: True)
    crossed = slowed(monkeypatch, "crossed")
    for number in (4, 6, 3):  # the first is crossed when the others are chosen
        page.get_by_role("button", name=f"Thumbnail {number} of 8").locator("visible=true").first.click()
        page.wait_for_timeout(SECONDS * 300)
    wait_for(page, SWAPPED, like(crossed(model, images[2], images[1], (None, None))))


def test_examples_that_take_their_time_to_open(
    pages: Pages, model: PretrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [one.image for one in examples.examples(model, None, None)]
    page = pages.open()
    open_tab(page, "Swap")
    wait_for(page, SWAPPED, lambda seen: True)
    enlarged = slowed(monkeypatch, "enlarged")
    for number in (4, 3):
        page.get_by_role("button", name=f"Thumbnail {number} of 8").locator("visible=true").first.click()
        page.wait_for_timeout(SECONDS * 300)
    wait_for(page, "The picture given as: First picture", like(enlarged(images[2])))


def test_a_box_and_the_dice(pages: Pages, model: PretrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    page = pages.open()
    opened = wait_for(page, SAMPLES, lambda seen: True)
    page.get_by_role("button", name="More choices").click()
    samples = slowed(monkeypatch, "samples")
    box = page.get_by_label("Only those that the model is surest of")
    page.get_by_role("button", name="Roll the dice").click()
    page.wait_for_timeout(SECONDS * 300)
    box.uncheck()
    page.wait_for_timeout(SECONDS * 300)
    box.check()
    page.wait_for_timeout(SECONDS * 300)
    box.uncheck()
    seed = int(page.get_by_label("Seed").locator("visible=true").input_value())
    assert seed != 0
    every = samples(model, list(CLASSES), 8, seed, TYPICAL, shared_zu=True)
    assert not np.array_equal(opened, np.asarray(every.convert("RGB")))
    wait_for(page, SAMPLES, like(every))
