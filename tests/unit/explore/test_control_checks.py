"""Nonsense in a control gets a sentence that names the control, whichever it is and whoever sent it."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from dist_dsvae.config import CVAEConfig, DSVAEConfig
from tests.unit.explore.making import make_model

gr = pytest.importorskip("gradio", reason="the page needs the extra explore")

from dist_dsvae.explore.app import build_page  # noqa: E402
from dist_dsvae.explore.control_checks import problem  # noqa: E402
from dist_dsvae.explore.subject import ShownModel, Subject  # noqa: E402

NONSENSE = [
    *(math.nan, math.inf, -math.inf, 1e308, -1e308, 2**80, -7, None, "", "text", "\0" * 5000, True),
    *([], {}, [math.nan], ["text"], [[]], [{}], {"value": math.nan}, {"path": "/etc/passwd"}),
]
CONTROLS = (gr.Number, gr.Slider, gr.Dropdown, gr.Radio, gr.Checkbox, gr.File, gr.ImageEditor)
SEED = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=9)
PLACE = gr.Slider(0, 1, value=0.5, step=0.01, label="Place")


@pytest.mark.parametrize(
    ("control", "value", "sentence"),
    [
        (SEED, 3, ""),
        (SEED, 3.0, ""),
        (SEED, None, "Seed is empty; give a whole number from 0 to 9."),
        (SEED, math.nan, "Seed is nan; give a whole number from 0 to 9."),
        (SEED, 2.5, "Seed is 2.5; give a whole number from 0 to 9."),
        (SEED, "3", "Seed is '3'; give a whole number from 0 to 9."),
        (PLACE, 0.25, ""),
        (PLACE, 1, ""),
        (PLACE, -math.inf, "Place is -inf; give a number from 0 to 1."),
        (gr.Dropdown(["bag", "coat"], label="Class"), "bag", ""),
        (gr.Dropdown(["bag", "coat"], label="Class"), "hat", "Class holds 'hat'; choose from bag, coat."),
        (gr.Dropdown(["bag", "coat"], label="Class"), None, "Class is empty; choose from bag, coat."),
        (gr.Dropdown(["bag"], multiselect=True, label="Classes"), ["bag"], ""),
        (gr.Dropdown(["bag"], multiselect=True, label="Classes"), [], ""),  # how many, says the function
        (gr.Dropdown(["bag"], multiselect=True, label="Classes"), "bag", "takes a list of names."),
        (gr.Checkbox(label="Best"), False, ""),
        (gr.Checkbox(label="Best"), 1, "Best holds 1; it is either on or off."),
    ],
)
def test_what_a_control_holds(control: Any, value: Any, sentence: str) -> None:
    assert problem(control, value).endswith(sentence)
    assert bool(problem(control, value)) == bool(sentence)


def test_what_is_shown_of_it_is_short() -> None:
    assert len(problem(SEED, "x" * 10**6)) < 150


def test_every_control_of_the_page_refuses_nonsense_by_a_sentence() -> None:
    """Through what answers requests, for every function and each of its controls; the others stay right."""
    tried = set[str]()
    for config in (DSVAEConfig(), CVAEConfig()):
        page = build_page(Subject("tiny", ShownModel(make_model(config)), None, ""), 1000)
        for function in page.fns.values():
            right = [_as_sent(control) for control in function.inputs]
            asyncio.run(page.preprocess_data(function, list(right), None))
            for place, control in enumerate(function.inputs):
                if not isinstance(control, CONTROLS):
                    continue
                tried.add(f"{type(control).__name__} {control.label}")
                for value in NONSENSE:
                    _refuses_or_understands(page, function, [*right[:place], value, *right[place + 1 :]])
    assert len(tried) > 20
    assert {name.split()[0] for name in tried} == {control.__name__ for control in CONTROLS}


def _as_sent(control: Any) -> Any:
    return None if isinstance(control, gr.State | gr.File | gr.ImageEditor) else control.value


def _refuses_or_understands(page: Any, function: Any, inputs: list[Any]) -> None:
    """A sentence, or values that are those of the control: a File may be None, a multiple choice empty."""
    try:
        taken = asyncio.run(page.preprocess_data(function, inputs, None))
    except gr.Error as error:
        sentence = str(error.message)
    else:
        sentence = ""
    if sentence:
        assert sentence.endswith(".")
        return
    for control, value in zip(function.inputs, taken, strict=True):
        if isinstance(control, gr.Number | gr.Slider):
            assert control.minimum <= value <= control.maximum
        if isinstance(control, gr.Checkbox):
            assert isinstance(value, bool)
        if isinstance(control, gr.Dropdown | gr.Radio):
            known = {name for _, name in control.choices}
            assert set(value) <= known if isinstance(value, list) else value in known
        if isinstance(control, gr.File):
            assert value is None


def test_too_few_values_get_a_sentence_too() -> None:
    page = build_page(Subject("tiny", ShownModel(make_model(DSVAEConfig())), None, ""), 1000)
    function = next(function for function in page.fns.values() if len(function.inputs) > 2)
    with pytest.raises(gr.Error, match=r"One of the controls .* was given something that it cannot hold"):
        asyncio.run(page.preprocess_data(function, [_as_sent(function.inputs[0])], None))
