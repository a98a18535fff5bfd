"""What a control may hold, looked at before anything is done with it, whoever sent it.

A browser keeps most nonsense from being typed; a program that speaks to the server need not. Both get a
sentence that names the control, what it held, and what it takes.
"""

from __future__ import annotations

import html
import math
from typing import Any

import gradio as gr

SECONDS_SHOWN = 15
_LONGEST_SHOWN = 60  # characters of what was given


class Page(gr.Blocks):  # type: ignore[misc]  # Gradio's types are not looked at
    """A page whose controls are checked (``problem``) before a function sees their values."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *more: Any, **named: Any) -> Any:
        for control, value in zip(block_fn.inputs, inputs, strict=False):
            if sentence := problem(control, value):
                raise message(sentence)
        try:
            return await super().preprocess_data(block_fn, inputs, *more, **named)
        except gr.Error:
            raise
        except Exception:  # whatever Gradio's components make of something that is none of theirs
            labels = [
                repr(label) for control in block_fn.inputs if (label := getattr(control, "label", None))
            ]
            raise message(
                f"One of the controls {', '.join(labels)} was given something that it cannot hold. Load the "
                "page again and choose anew."
            ) from None


def message(sentence: object) -> gr.Error:
    """An error that the page shows. Gradio shows HTML, and sentences quote names of files and classes."""
    return gr.Error(html.escape(str(sentence)), duration=SECONDS_SHOWN, print_exception=False)


def problem(control: Any, value: Any) -> str:
    """A sentence on ``value`` where ``control`` cannot have it, or ""."""
    match control:
        case gr.Slider() | gr.Number():
            return _problem_of_number(control, value)
        case gr.Dropdown(multiselect=True):
            known = [name for _, name in control.choices]
            if not isinstance(value, list):
                return f"{control.label} holds {_shown(value)}; it takes a list of names."
            unknown = [one for one in value if one not in known]
            return _unknown(control, unknown[0], known) if unknown else ""
        case gr.Dropdown() | gr.Radio():
            known = [name for _, name in control.choices]
            return "" if value in known else _unknown(control, value, known)
        case gr.Checkbox():
            ok = isinstance(value, bool)
            return "" if ok else f"{control.label} holds {_shown(value)}; it is either on or off."
        case gr.File():
            ok = value is None or isinstance(value, dict)
            return "" if ok else f"{control.label} holds {_shown(value)}; it takes one picture file."
        case gr.ImageEditor():
            ok = value is None or isinstance(value, dict)
            return "" if ok else f"{control.label} holds {_shown(value)}; it takes what was painted in it."
    return ""


def _problem_of_number(control: Any, value: Any) -> str:
    is_whole = control.precision == 0 or control.step == 1
    what = f"a {'whole ' if is_whole else ''}number from {control.minimum} to {control.maximum}"
    if value is None or value == "":
        return f"{control.label} is empty; give {what}."
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_within = is_number and math.isfinite(value) and control.minimum <= value <= control.maximum
    if is_within and (not is_whole or value == int(value)):
        return ""
    return f"{control.label} is {_shown(value)}; give {what}."


def _unknown(control: Any, value: Any, known: list[Any]) -> str:
    names = ", ".join(map(str, known[:10])) + (", ..." if len(known) > 10 else "")
    given = f"holds {_shown(value)}" if value not in (None, "") else "is empty"
    return f"{control.label} {given}; choose from {names}."


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
