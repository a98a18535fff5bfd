"""launch/explore.py in a headless Chromium: the page as people use it.

Whatever a picture shows is compared with what the functions behind the page draw from the same model in
this process. No request leaves the machine. Screenshots go to pytest's temporary directory.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dist_dsvae.config import DSVAEConfig
from dist_dsvae.config.reading import load_config, to_tree
from dist_dsvae.core.types import ImageShape
from dist_dsvae.explore import renderings
from dist_dsvae.explore.uploads import read_upload
from dist_dsvae.methods.published import save_published
from dist_dsvae.pretrained.model import PretrainedModel
from dist_dsvae.sampling.holes import REFINE_STEPS
from tests.unit.explore.making import make_lively
from tests.unit.pretrained.making import CLASSES

pytest.importorskip("gradio", reason="the page needs the extra explore")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium")

REPOSITORY = Path(__file__).parents[2]
SHAPE = ImageShape(1, 32, 32)
MIB = 0.2
SECONDS = 15
SAMPLES = "Samples of the chosen classes, a class per row"
PLACE = "The picture at the chosen place between the two classes"
BASE = "The picture that the sliders start from"
VARIED = "The base with the values of the sliders"
SWAPPED = "Rows have the zs of the left picture, columns the zu of the top one"
INPAINTED = "The picture, its hole filled by the model"
TABS = ("Samples", "Between classes", "Dimensions of zu", "Swap", "Inpaint")


class Pages:
    """Two servers, one of a published model and one of a run that starts, and a browser."""

    def __init__(self, model_url: str, run_url: str, run: Path, browser: Any, shots: Path) -> None:
        self.model_url, self.run_url, self.run = model_url, run_url, run
        self.browser, self.shots = browser, shots
        self.outside: list[str] = []
        self.errors: list[str] = []

    def open(self, url: str | None = None, width: int = 1100) -> Any:
        """A page of a user of its own."""
        page = self.browser.new_context(viewport={"width": width, "height": 900}).new_page()
        page.set_default_timeout(SECONDS * 1000)
        address = url or self.model_url
        page.on("request", lambda r: self._note(r.url, address))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(address)
        return page

    def _note(self, url: str, address: str) -> None:
        if not url.startswith((address, "data:", "blob:")):
            self.outside.append(url)


def start(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "launch/explore.py", "--port", "0", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    with log.open("wb") as output:
        return subprocess.Popen(
            command, cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT, env=environment
        )


def address_in(log: Path, server: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and server.poll() is None:
        if found := re.search(r"Open (http://\S+)", log.read_text("utf-8")):
            return found[1]
        time.sleep(0.2)
    raise AssertionError(f"the page did not start: {log.read_text('utf-8')}")


@pytest.fixture(scope="module")
def model() -> PretrainedModel:
    return PretrainedModel(make_lively(DSVAEConfig()))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    folder = tmp_path_factory.mktemp("explore")
    published = make_lively(DSVAEConfig())._replace(about={"run": "tiny <b>model</b>"})
    save_published(published, folder / "model")
    run = folder / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps(to_tree(load_config(REPOSITORY / "configs/quickstart.json"))))
    (run / "dataset.json").write_text(json.dumps({"shape": SHAPE._asdict(), "classes": CLASSES}))
    logs = [folder / "model.log", folder / "run.log"]
    uploads = ["--max-upload-mib", str(MIB)]
    servers = [
        start(arguments, log)
        for arguments, log in zip(
            (["--model", str(folder / "model"), *uploads], ["--run", str(run)]), logs, strict=True
        )
    ]
    try:
        urls = [address_in(log, server) for log, server in zip(logs, servers, strict=True)]
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            yield Pages(*urls, run, browser, folder)
            browser.close()
    finally:
        for server in servers:
            server.terminate()
            server.wait(20)
    assert not [log.name for log in logs if "Traceback" in log.read_text("utf-8")]


@pytest.fixture(autouse=True)
def _nothing_else_happens(pages: Pages) -> Iterator[None]:
    yield
    assert pages.outside == []
    assert pages.errors == []
    for context in pages.browser.contexts:
        context.close()


# What a page shows


def picture_of(page: Any, name: str) -> np.ndarray | None:
    found = page.get_by_role("img", name=name)
    if found.count() == 0:
        return None
    content = page.request.get(found.first.get_attribute("src")).body()
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def wait_for(page: Any, name: str, expected: Callable[[np.ndarray], bool]) -> np.ndarray:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        picture = picture_of(page, name)
        if picture is not None and expected(picture):
            return picture
        page.wait_for_timeout(100)
    raise AssertionError(f"{name!r} does not come to show what was asked for")


def like(image: Image.Image) -> Callable[[np.ndarray], bool]:
    """Equal but for the rounding of grey values, which threads may change."""
    wanted = np.asarray(image.convert("RGB")).astype(int)
    return lambda seen: seen.shape == wanted.shape and int(np.abs(seen - wanted).max()) <= 1


def open_tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def upload(page: Any, number: int, path: Path) -> None:
    """Give a file to the ``number``-th slot that is shown and empty."""
    page.locator("[role=tabpanel]:visible input[type=file][accept*='.webp']").nth(number).set_input_files(
        path
    )


def message(page: Any) -> Any:
    return page.get_by_test_id("toast-body")


def picture_file(path: Path, seed: int, side: int = 40) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side + 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def drawn_samples(model: PretrainedModel, seed: int, classes: tuple[str, ...] = CLASSES) -> Image.Image:
    return renderings.samples(model, list(classes), 8, seed, shared_zu=True)


# What people do


def test_samples_of_chosen_classes(pages: Pages, model: PretrainedModel) -> None:
    page = pages.open()
    assert page.locator("h1").inner_text() == "tiny <b>model</b>"
    wait_for(page, SAMPLES, like(drawn_samples(model, 0)))
    page.get_by_label("Seed").locator("visible=true").fill("7")
    page.get_by_role("button", name="Draw samples").click()
    wait_for(page, SAMPLES, like(drawn_samples(model, 7)))
    page.get_by_role("combobox", name="Classes").press("Backspace")  # the last one goes
    wait_for(page, SAMPLES, like(drawn_samples(model, 7, CLASSES[:-1])))
    page.screenshot(path=pages.shots / "samples.png", full_page=True)


def test_two_users_at_once(pages: Pages, model: PretrainedModel, tmp_path: Path) -> None:
    users = [pages.open(), pages.open()]
    for seed, page in enumerate(users, start=21):
        page.get_by_label("Seed").locator("visible=true").fill(str(seed))
    for page in users:
        page.get_by_role("button", name="Draw samples").click()
    for seed, page in enumerate(users, start=21):
        wait_for(page, SAMPLES, like(drawn_samples(model, seed)))
    files = [picture_file(tmp_path / f"{seed}.png", seed) for seed in range(4)]
    for page in users:
        open_tab(page, "Swap")
    for number in (0, 1):  # the users take turns, so that one's pictures could be taken for the other's
        for user, page in enumerate(users):
            upload(page, 0, files[2 * user + number])
    for user, page in enumerate(users):
        own = [read_upload(path, SHAPE, 10**6) for path in files[2 * user : 2 * user + 2]]
        wait_for(page, SWAPPED, like(renderings.crossed(model, own[0], own[1], (None, None))))


def test_a_slider_moves_between_classes_by_keyboard(pages: Pages, model: PretrainedModel) -> None:
    page = pages.open()
    open_tab(page, "Between classes")
    first, last = CLASSES[0], CLASSES[-1]
    wait_for(page, PLACE, like(renderings.place_between(model, first, last, 0.5, 0)))
    page.get_by_label("range slider for Place between the classes (zs)").press("End")
    wait_for(page, PLACE, like(renderings.place_between(model, first, last, 1.0, 0)))
    page.screenshot(path=pages.shots / "between.png", full_page=True)


def test_a_slider_moves_a_dimension_of_zu(pages: Pages, model: PretrainedModel, tmp_path: Path) -> None:
    page = pages.open()
    open_tab(page, "Dimensions of zu")
    base, dimensions = (
        renderings.base_of_sample(model, CLASSES[0], 0),
        renderings.expressive_dimensions(model),
    )
    values = renderings.slider_values(base, dimensions)
    wait_for(page, VARIED, like(renderings.varied(model, base, dimensions, values)))
    slider = page.get_by_label(f"range slider for Dimension {dimensions[0]} of zu")
    assert float(slider.input_value()) == pytest.approx(values[0])
    slider.press("Home")
    moved = renderings.varied(model, base, dimensions, [-3.0, *values[1:]])
    assert not like(moved)(np.asarray(renderings.varied(model, base, dimensions, values).convert("RGB")))
    wait_for(page, VARIED, like(moved))
    page.get_by_role("button", name="Back to the base").click()
    wait_for(page, VARIED, like(renderings.varied(model, base, dimensions, values)))
    page.get_by_role("button", name="Start from a picture of your own").click()
    own = picture_file(tmp_path / "own.webp", 5)
    upload(page, 0, own)
    from_own = renderings.base_of_picture(model, read_upload(own, SHAPE, 10**6), None)
    wait_for(page, BASE, like(renderings.enlarged(renderings.model_picture(from_own.decoded(model)))))
    page.screenshot(path=pages.shots / "dimensions.png", full_page=True)


def test_swap_by_upload_and_broken_uploads(pages: Pages, model: PretrainedModel, tmp_path: Path) -> None:
    page = pages.open()
    open_tab(page, "Swap")
    first = picture_file(tmp_path / "first.png", 1)
    upload(page, 0, first)
    page.get_by_role("img", name="The picture given as: First picture").wait_for()

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    upload(page, 0, broken)  # the first slot is full, so the first empty one is the second
    message(page).get_by_text("broken.png is no picture that can be read").wait_for()
    page.screenshot(path=pages.shots / "broken.png", full_page=True)
    page.get_by_label("Clear").last.click()
    upload(page, 0, picture_file(tmp_path / "large.png", 1, side=400))
    message(page).get_by_text("exceed the maximum allowed size").wait_for()

    page.reload()  # what is left of a refused file
    open_tab(page, "Swap")
    second = tmp_path / "second.jpg"
    Image.open(first).rotate(90).save(second)
    upload(page, 0, first)
    page.get_by_role("img", name="The picture given as: First picture").wait_for()
    upload(page, 0, second)
    pictures = [read_upload(path, SHAPE, 10**6) for path in (first, second)]
    wait_for(page, SWAPPED, like(renderings.crossed(model, pictures[0], pictures[1], (None, None))))
    page.screenshot(path=pages.shots / "swap.png", full_page=True)


def test_inpaint_by_brush_and_by_name(pages: Pages, model: PretrainedModel) -> None:
    page = pages.open()
    open_tab(page, "Inpaint")
    page.get_by_role("button", name="Inpaint", exact=True).click()
    message(page).get_by_text("There is no picture yet").wait_for()
    page.get_by_role("button", name="Picture to inpaint: take a sample instead").click()
    page.get_by_role("img", name="The picture given as: Picture to inpaint").wait_for()
    page.get_by_role("button", name="Inpaint", exact=True).click()
    message(page).get_by_text("Nothing is painted").wait_for()

    box = page.locator("#hole-editor canvas").last.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 30, y)
    page.mouse.down()
    page.mouse.move(x + 30, y, steps=5)
    page.mouse.up()
    page.get_by_role("button", name="Inpaint", exact=True).click()
    picture, _ = renderings.sample_of_all(model, 0)
    original = np.asarray(renderings.enlarged(picture).convert("RGB")).astype(int)
    seen = wait_for(page, INPAINTED, lambda seen: seen.shape == original.shape)
    page.screenshot(path=pages.shots / "inpaint.png", full_page=True)
    rows, columns = np.nonzero(np.abs(seen - original).max(axis=-1) > 1)
    assert len(rows) > 0, "the hole was painted"
    assert (rows.min() > 60, rows.max() < 260, columns.min() > 60, columns.max() < 260) == (True,) * 4
    assert len(rows) < 0.25 * original[..., 0].size, "and nothing else"

    page.get_by_label("right-half").check()
    page.get_by_role("button", name="Inpaint", exact=True).click()
    wait_for(page, INPAINTED, like(renderings.inpainted(model, picture, "right-half", None, REFINE_STEPS)))


def test_a_narrow_screen_does_not_scroll_sideways(pages: Pages) -> None:
    page = pages.open(width=390)
    for name in TABS:
        open_tab(page, name)
        page.wait_for_timeout(300)
        widths = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert widths[0] <= widths[1] == 390, name
        page.screenshot(path=pages.shots / f"narrow-{name.split()[0]}.png", full_page=True)


def test_the_keyboard_reaches_every_control(pages: Pages, model: PretrainedModel) -> None:
    page = pages.open()
    wait_for(page, SAMPLES, like(drawn_samples(model, 0)))
    name_of_focus = (
        "(() => { const e = document.activeElement;"
        " return e.getAttribute('aria-label') || e.labels?.[0]?.innerText || e.innerText })()"
    )
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(name_of_focus).split("\n")[0])
        if reached[-1] == "Seed":
            page.keyboard.press("Control+a")
            page.keyboard.type("9")
        if reached[-1] == "Draw samples":
            page.keyboard.press("Enter")
            break
    controls = [*TABS, "Classes", "range slider for Samples per class", "Seed", "One zu per column"]
    assert [name for name in reached if name in controls] == controls
    wait_for(page, SAMPLES, like(drawn_samples(model, 9)))
    page.get_by_role("tab", name="Swap").focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="First picture: take a sample instead").wait_for()


def test_a_run_is_watched_while_it_trains(pages: Pages) -> None:
    page = pages.open(pages.run_url)
    progress = page.get_by_label("Progress")
    playwright.expect(progress).to_have_value("Nothing has been logged yet.")
    assert page.get_by_role("tab").all_inner_texts() == ["Training"]
    with (pages.run / "metrics.jsonl").open("a", encoding="utf-8") as metrics:
        for seen in (100, 200):
            metrics.write(json.dumps({"samples_seen": seen, "step": seen // 100, "gm": 1 / seen}) + "\n")
    (pages.run / "samples").mkdir()
    grid = Image.new("RGB", (60, 40), (0, 90, 200))
    grid.save(pages.run / "samples/step-00000002.png")
    wait_for(page, "The newest grid of samples of the run", like(grid))
    playwright.expect(progress).to_have_value("200 samples seen, step 2.")
    wait_for(page, "Losses and speed of the run over the samples seen", lambda seen: seen.std() > 1)
    page.screenshot(path=pages.shots / "training.png", full_page=True)
