"""What a page shows, and how people give it things."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.browser.serving import SECONDS

TABS = ("Samples", "Between classes", "Looks", "Swap", "Inpaint")
SAMPLES = "Samples, a row for each class"
PLACE = "The picture at the chosen place between the two"
BASE = "The picture that the sliders start from"
VARIED = "The base with the values of the sliders"
SWAPPED = "Rows: what it is, by the left picture. Columns: how it looks, by the top one."
INPAINTED = "The picture, its hole filled by the model"
FRAMES = (
    30  # a spring of Gradio's, a step of it in each frame, has moved by more than a grey value in so many
)


def image_of(page: Any, name: str) -> np.ndarray | None:
    found = page.get_by_role("img", name=name)
    if found.count() == 0:
        return None
    return content_of(page, found.first)


def content_of(page: Any, image: Any) -> np.ndarray:
    answer = page.request.get(image.get_attribute("src"))
    assert answer.ok, f"{answer.url} is answered by {answer.status}: {answer.text()[:500]}"
    return np.asarray(Image.open(io.BytesIO(answer.body())).convert("RGB")).astype(int)


def wait_for(page: Any, name: str, expected: Callable[[np.ndarray], bool]) -> np.ndarray:
    """The picture of that name, once it is as expected."""
    deadline = time.monotonic() + SECONDS
    image = None
    while time.monotonic() < deadline:
        image = image_of(page, name)
        if image is not None and expected(image):
            return image
        page.wait_for_timeout(100)
    shown = "nothing" if image is None else f"{image.shape} with a mean of {image.mean()}"
    said = page.inner_text("body")
    raise AssertionError(
        f"{name!r} does not come to show what was asked for, but shows {shown}. The page says: {said}"
    )


def settled(page: Any, place: Any) -> dict[str, float]:
    """Where a place lies once nothing in it moves any more: Gradio's editor slides its picture into view."""
    deadline = time.monotonic() + SECONDS
    before = None
    while time.monotonic() < deadline:
        now = (place.bounding_box(), place.screenshot())
        if now == before:
            return now[0]
        before = now
        page.evaluate(
            "frames => new Promise(done => {"
            " const next = () => frames-- > 0 ? requestAnimationFrame(next) : done(); next(); })",
            FRAMES,
        )
    raise AssertionError("the page does not come to rest")


def stroke(page: Any, box: dict[str, float]) -> None:
    """Paint with the brush, through the middle of a place that ``settled`` found."""
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 30, y)
    page.mouse.down()
    page.mouse.move(x + 30, y, steps=5)
    page.mouse.up()


def like(image: Image.Image) -> Callable[[np.ndarray], bool]:
    """Equal but for the rounding of grey values, which threads may change."""
    wanted = np.asarray(image.convert("RGB")).astype(int)
    return lambda seen: seen.shape == wanted.shape and int(np.abs(seen - wanted).max()) <= 1


def open_tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def upload(page: Any, number: int, path: Path) -> None:
    """Give a file to the ``number``-th slot that is shown and has none."""
    page.locator("[role=tabpanel]:visible input[type=file][accept*='.webp']").nth(number).set_input_files(
        path
    )


def message(page: Any) -> Any:
    return page.get_by_test_id("toast-body")


def image_file(path: Path, seed: int, side: int = 40) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side + 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path
