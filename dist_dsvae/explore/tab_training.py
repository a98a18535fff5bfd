"""The tab that watches a run: its files are looked at every few seconds, and shown when they changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from dist_dsvae.explore import watched_run
from dist_dsvae.explore.controls import Change, shown

_SECONDS_BETWEEN = 5
_READING: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def training_tab(run: Path) -> list[Change]:
    """The newest grids and the curves. Returns what fills the tab when the page is opened."""

    total = watched_run.total_samples_of(run)

    def look(seen: tuple[object, ...] | None) -> tuple[Any, ...]:
        state = watched_run.state_of(run)
        if state == seen:
            return tuple(gr.skip() for _ in range(5))
        return state, *watched_run.snapshot(run, state, total)

    seen = gr.State(None)
    status = gr.Textbox(label="Progress", interactive=False)
    with gr.Row():
        with gr.Column(min_width=280):
            samples = shown("Newest samples", "The newest grid of samples of the run")
        with gr.Column(min_width=280):
            swaps = shown("Newest swaps", "The newest grid of swaps of the run")
    with gr.Column(elem_classes=["curves"]):
        curves = shown("Curves", "Losses and speed of the run over the samples seen")
    outputs = [seen, status, curves, samples, swaps]
    gr.Timer(_SECONDS_BETWEEN).tick(look, [seen], outputs, **_READING)
    return [Change(look, [seen], outputs)]
