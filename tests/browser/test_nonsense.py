"""Nonsense reaches no function of the page: it gets a sentence, in the browser as from a program."""

from __future__ import annotations

import json
import math
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.looking import message, open_tab
from tests.browser.serving import Pages

NUMBERS = ("number", "slider")
CHOICES = ("dropdown", "radio")
OTHERS = ("checkbox", "file", "imageeditor")


def requested(url: str, data: Any = None) -> bytes:
    body = None if data is None else json.dumps(data).encode()  # NaN and Infinity, as Python writes them
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        content = answer.read()
    assert isinstance(content, bytes)
    return content


def outcome(url: str, function: int, data: list[Any]) -> dict[str, Any]:
    """What the server answers to a call of one of the page's functions with ``data``."""
    session = f"s{function}"
    job = {
        "data": data,
        "fn_index": function,
        "session_hash": session,
        "trigger_id": None,
        "event_data": None,
    }
    requested(f"{url}gradio_api/queue/join?", job)
    events = requested(f"{url}gradio_api/queue/data?session_hash={session}").decode().split("\n\n")
    messages = [json.loads(event.removeprefix("data: ")) for event in events if event.startswith("data: ")]
    (done,) = [one for one in messages if one["msg"] == "process_completed"]
    assert isinstance(done, dict)
    return done


def calls(url: str) -> Iterator[tuple[int, str, list[Any], int, str]]:
    """Each function and each of its controls: number, what is right for all, place, label and kind."""
    config = json.loads(requested(f"{url}config"))
    components = {component["id"]: component for component in config["components"]}
    for dependency in config["dependencies"]:
        inputs = [components[number] for number in dependency["inputs"]]
        right = [
            component["props"].get("value")
            if component["type"] in NUMBERS + CHOICES + ("checkbox",)
            else None
            for component in inputs
        ]
        for place, component in enumerate(inputs):
            if component["type"] in NUMBERS + CHOICES + OTHERS:
                yield dependency["id"], component["type"], right, place, component["props"]["label"]


def test_a_program_gets_a_sentence_from_every_control_of_every_function(pages: Pages) -> None:
    tried = set()
    for function, kind, right, place, label in calls(pages.model_url):
        for value in (math.nan, math.inf, "text") if kind in NUMBERS else ("text",):
            done = outcome(pages.model_url, function, [*right[:place], value, *right[place + 1 :]])
            assert not done["success"]
            assert done["output"]["error"].startswith((f"{label} is ", f"{label} holds ")), done["output"]
        tried.add(kind)
    assert tried == {*NUMBERS, *CHOICES, *OTHERS}


def test_a_function_that_is_called_before_there_is_a_base(pages: Pages) -> None:
    config = json.loads(requested(f"{pages.model_url}config"))
    kinds = {component["id"]: component["type"] for component in config["components"]}
    (function,) = [
        dependency
        for dependency in config["dependencies"]
        if [kinds[number] for number in dependency["inputs"]] == ["state", *["slider"] * 4]
    ]
    done = outcome(pages.model_url, function["id"], [None, 0, 0, 0, 0])
    assert done["output"]["error"] == "There is no base picture yet. Choose a sample to start from."


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("", "Seed is empty; give a whole number from 0 to 2147483647."),
        ("-5", "Seed is -5; give a whole number from 0 to 2147483647."),
        ("1e300", "Seed is 1e+300; give a whole number from 0 to 2147483647."),
    ],
)
def test_a_person_gets_it_too(pages: Pages, typed: str, sentence: str) -> None:
    page = pages.open()
    open_tab(page, "Between classes")
    page.get_by_label("Seed").locator("visible=true").fill(typed)
    message(page).get_by_text(sentence).first.wait_for()


def test_no_class_at_all(pages: Pages) -> None:
    page = pages.open()
    page.get_by_role("img", name="Samples, a row for each class").wait_for()
    page.get_by_label("Clear").or_(page.get_by_title("Clear")).first.click()
    message(page).get_by_text("0 classes are chosen; choose 1 to 20.").wait_for()
