"""Contrast, names of buttons, the keyboard, narrow and wide screens: for all tabs of the page."""

from __future__ import annotations

from typing import Any

import pytest

from dist_dsvae.explore import renderings
from dist_dsvae.explore.examples import TYPICAL
from dist_dsvae.pretrained.model import PretrainedModel
from tests.browser.looking import SAMPLES, TABS, like, open_tab, wait_for
from tests.browser.serving import Pages
from tests.unit.pretrained.making import CLASSES

# Text that is shown, its contrast with what lies behind it (WCAG 2), where that is below the limit.
# Backgrounds that let others through are laid over them, and so is text that lets its background through.
FAINT = """(limit) => {
  const parse = (colour) => {
    const context = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const behind = (element) => {
    const own = parse(getComputedStyle(element).backgroundColor);
    if (own[3] === 1) return own;
    const under = element.parentElement ? behind(element.parentElement) : parse('white');
    return own[3] === 0 ? under : over(own, under);
  };
  const luminance = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  let looked = 0;
  const look = (element, text, colour) => {
    const ground = behind(element);
    const pair = [luminance(over(parse(colour), ground)), luminance(ground)].sort((a, b) => b - a);
    const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
    looked += 1;
    if (contrast < limit) found.push(`${text.trim().slice(0, 40)}: ${contrast.toFixed(2)}`);
  };
  for (const element of document.querySelectorAll('body *')) {
    if (!element.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    if (element.closest(':disabled, svg, canvas')) continue;
    const style = getComputedStyle(element);
    for (const node of element.childNodes)
      if (node.nodeType === Node.TEXT_NODE && node.data.trim()) look(element, node.data, style.color);
    if (element.matches('input:not([type=range], [type=checkbox], [type=radio], [type=file])'))
      if (element.value) look(element, element.value, style.color);
  }
  return {found, looked};
}"""

NAMELESS = """() => [...document.querySelectorAll('button, input, select, textarea, [role=button]')]
  .filter((element) => element.checkVisibility({visibilityProperty: true}))
  .filter((element) => {
    const labelled = (element.getAttribute('aria-labelledby') ?? '').split(' ')
      .map((id) => document.getElementById(id)?.innerText ?? '').join('');
    const labels = [...(element.labels ?? [])].map((label) => label.innerText).join('');
    const name = element.getAttribute('aria-label') || labelled || labels || element.title
      || element.innerText || element.querySelector('img[alt]')?.alt || element.placeholder;
    return !name?.trim();
  }).map((element) => element.outerHTML.slice(0, 200))"""


def opened(pages: Pages, url: str, **how: Any) -> Any:
    """A page with all that it opens with, and More choices."""
    page = pages.open(url, **how)
    page.get_by_role("img", name="Samples, a row for each").wait_for()
    page.get_by_role("button", name="More choices").click()
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_what_lies_behind_it(pages: Pages, scheme: str) -> None:
    page = opened(pages, pages.saved_url, scheme=scheme)
    problems = {}
    for name in (*TABS, "Training"):
        open_tab(page, name)
        page.wait_for_timeout(700)  # colours of tabs and buttons fade in
        result = page.evaluate(FAINT, 4.5)
        assert result["looked"] > 10
        if result["found"]:
            problems[name] = result["found"]
    assert problems == {}


def test_the_measure_of_contrast_is_that_of_the_standard(pages: Pages) -> None:
    page = pages.open()
    page.set_content(
        "<body style='background: white'><p style='color: #777'>grey</p>"
        "<p style='color: #767676'>enough</p><p style='background: black; color: #ffffff80'>half</p>"
        "<div style='background: #0008'><b style='color: black'>veil</b></div></body>"
    )
    assert page.evaluate(FAINT, 4.5)["found"] == ["grey: 4.48"]
    found = page.evaluate(FAINT, 21.5)["found"]
    assert found == ["grey: 4.48", "enough: 4.54", "half: 5.32", "veil: 4.69"]


def test_every_control_has_a_name(pages: Pages) -> None:
    page = opened(pages, pages.faces_url)
    for name in TABS:
        open_tab(page, name if name != "Between classes" else "Between people")
        page.wait_for_timeout(500)
        assert page.evaluate(NAMELESS) == [], name


@pytest.mark.parametrize("width", [360, 1280])
def test_no_screen_scrolls_sideways(pages: Pages, width: int) -> None:
    page = opened(pages, pages.model_url, width=width)
    for name in TABS:
        open_tab(page, name)
        page.wait_for_timeout(300)
        widths = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert widths[0] <= widths[1] == width, name
        page.screenshot(path=pages.shots / f"{width}-{name.split()[0]}.png", full_page=True)


def test_arrow_keys_move_between_tabs(pages: Pages) -> None:
    page = opened(pages, pages.model_url)
    page.get_by_role("tab", name="Samples").focus()
    chosen = page.locator("[role=tab][aria-selected=true]")
    for key, expected in (
        ("ArrowRight", "Between classes"),
        ("ArrowRight", "Looks"),
        ("ArrowLeft", "Between classes"),
        ("End", "Inpaint"),
        ("ArrowRight", "Samples"),
        ("ArrowLeft", "Inpaint"),
        ("Home", "Samples"),
    ):
        page.keyboard.press(key)
        page.wait_for_timeout(100)
        assert chosen.inner_text() == expected
        assert page.evaluate("document.activeElement.innerText") == expected


def test_the_keyboard_reaches_every_control(pages: Pages, model: PretrainedModel) -> None:
    page = opened(pages, pages.model_url)
    page.locator("h1").click()
    name_of_focus = (
        "(() => { const e = document.activeElement;"
        " return e.getAttribute('aria-label') || e.labels?.[0]?.innerText || e.innerText })()"
    )
    controls = ["Classes", "Roll the dice", "More choices", "range slider for Samples of each class", "Seed"]
    reached: list[str] = []
    page.get_by_role("tab", name="Samples").focus()
    while len(reached) < 60 and (not reached or reached[-1] != "Seed"):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(name_of_focus).split("\n")[0].removeprefix("\N{DIE FACE-5} "))
    assert [name for name in reached if name in controls] == controls
    page.keyboard.press("Control+a")
    page.keyboard.type("9")
    page.keyboard.press("Enter")
    expected = renderings.samples(model, list(CLASSES), 8, 9, TYPICAL, shared_zu=True, only_best=True)
    wait_for(page, SAMPLES, like(expected))
