"""Between a control and a function: messages for what a person can mend, one request at a time."""

from __future__ import annotations

import functools
import html
import secrets
from collections.abc import Callable
from typing import Any, NamedTuple

import gradio as gr

from dist_dsvae.explore.control_checks import SECONDS_SHOWN, message
from dist_dsvae.explore.uploads import UploadError
from dist_dsvae.pretrained.image_kinds import ImageError
from dist_dsvae.pretrained.requests import RequestError

MENDABLE = (ImageError, RequestError, UploadError)
MAX_SEED = 2**31 - 1

# Requests of all users take turns at the networks. Nothing is offered to programs. Of several choices while
# one is drawn, the last is drawn then, with what the controls hold by that time: Gradio's own default is to
# drop them, and the picture would stay another's.
MODEL: dict[str, Any] = {
    "concurrency_id": "model",
    "concurrency_limit": 1,
    "api_visibility": "private",
    "show_progress": "minimal",
    "trigger_mode": "always_last",
}
SLIDING: dict[str, Any] = MODEL | {"show_progress": "hidden"}
# Of what an event itself brings, such as the number of an example: one that waits would bring the first's.
SELECTING: dict[str, Any] = MODEL | {"trigger_mode": "multiple"}
# Without the networks, and so at once.
ROLLING: dict[str, Any] = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}
# Of a run's files, beside the networks: what is drawn need not wait for it.
LOOKING: dict[str, Any] = {
    "concurrency_id": "run",
    "concurrency_limit": 1,
    "api_visibility": "private",
    "show_progress": "hidden",
}


class Change(NamedTuple):
    """function(*inputs) fills outputs."""

    function: Callable[..., Any]
    inputs: list[Any]
    outputs: list[Any]


class TabChanges(NamedTuple):
    """at_start: what fills a tab when the page is opened. at_newer: what is drawn anew with a newer model."""

    at_start: list[Change]
    at_newer: list[Change]


def telling(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, its errors that a person can mend shown as a message on the page."""

    @functools.wraps(function)
    def told(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except MENDABLE as error:
            raise message(error) from None

    return told


def warn(sentence: Exception | str) -> None:
    """Show a sentence, and go on."""
    gr.Warning(html.escape(str(sentence)), duration=SECONDS_SHOWN)


def introduce(sentence: str) -> None:
    """What a tab is for."""
    gr.HTML(f"<p>{html.escape(sentence)}</p>", elem_classes=["note"])


def seed_control() -> Any:
    """A whole number; others are refused by ``control_checks``."""
    info = "Equal seeds give equal pictures"
    return gr.Number(0, label="Seed", info=info, precision=0, minimum=0, maximum=MAX_SEED)


def dice_button() -> Any:
    return gr.Button("\N{DIE FACE-5} Roll the dice", variant="primary")


def rolled() -> int:
    """A seed that nobody chose."""
    return secrets.randbelow(MAX_SEED + 1)


def shown(
    label: str, alt_text: str, height: int | None = None, *, sharp: bool = False, visible: bool = True
) -> Any:
    """A place for a result. height: of a single, enlarged picture; others take what they need.

    sharp: its pixels are squares, also where the page shows it larger; so are those of single pictures.
    """
    return gr.Image(
        label=label,
        alt_text=alt_text,
        interactive=False,
        type="pil",
        format="png",
        buttons=["download", "fullscreen"],
        height=height,
        min_width=140,
        visible=visible,
        elem_classes=["picture"] if height is None and not sharp else ["picture", "sharp"],
    )


def strip(alt_text: str) -> Any:
    """A place for small pictures side by side, as wide as what stands below it."""
    return gr.Image(
        label=alt_text,
        alt_text=alt_text,
        show_label=False,
        interactive=False,
        type="pil",
        format="png",
        buttons=[],
        container=False,
        elem_classes=["strip"],
    )
