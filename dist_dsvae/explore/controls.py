"""Between a control and a function: messages for what a person can mend, one request at a time."""

from __future__ import annotations

import functools
import html
from collections.abc import Callable
from typing import Any, NamedTuple

import gradio as gr

from dist_dsvae.explore.uploads import UploadError
from dist_dsvae.pretrained.pictures import PictureError
from dist_dsvae.pretrained.requests import RequestError

MENDABLE = (PictureError, RequestError, UploadError)
MAX_SEED = 2**31 - 1
_SECONDS_SHOWN = 15

# Requests of all users take turns at the networks. Nothing is offered to programs.
MODEL: dict[str, Any] = {
    "concurrency_id": "model",
    "concurrency_limit": 1,
    "api_visibility": "private",
    "show_progress": "minimal",
}
# Of a slider's many values, the last is drawn; the ones between may be left out.
SLIDING: dict[str, Any] = MODEL | {"trigger_mode": "always_last", "show_progress": "hidden"}


class Change(NamedTuple):
    """function(*inputs) fills outputs."""

    function: Callable[..., Any]
    inputs: list[Any]
    outputs: list[Any]


def telling(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, its errors that a person can mend shown as a message on the page."""

    @functools.wraps(function)
    def told(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except MENDABLE as error:
            # Gradio shows messages as HTML, and they quote names of files and classes.
            raise gr.Error(html.escape(str(error)), duration=_SECONDS_SHOWN, print_exception=False) from None

    return told


def warn(message: Exception | str) -> None:
    """Show a message, and go on."""
    gr.Warning(html.escape(str(message)), duration=_SECONDS_SHOWN)


def seed_control() -> Any:
    """A number; an empty one is refused by ``whole``."""
    return gr.Number(
        0, label="Seed", info="Equal seeds give equal pictures", precision=0, minimum=0, maximum=MAX_SEED
    )


def whole(seed: float | None) -> int:
    """The seed in a number box. Raises RequestError if it is empty."""
    if seed is None:
        raise RequestError(f"The seed is empty; give a whole number from 0 to {MAX_SEED}.")
    return int(seed)


def shown(label: str, alt_text: str, height: int | None = None) -> Any:
    """A place for a result. height: of a single, enlarged picture; grids take what they need."""
    return gr.Image(
        label=label,
        alt_text=alt_text,
        interactive=False,
        type="pil",
        format="png",
        buttons=["download", "fullscreen"],
        height=height,
        elem_classes=["picture"] if height is None else ["picture", "sharp"],
    )
