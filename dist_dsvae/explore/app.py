"""The page and its server: on this machine alone unless told otherwise, and without the internet."""

from __future__ import annotations

import html
import socket
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from dist_dsvae.explore.controls import MODEL, Change
from dist_dsvae.explore.subject import Subject, open_source
from dist_dsvae.explore.tab_training import training_tab
from dist_dsvae.explore.tabs_codes import between_tab, dimensions_tab, samples_tab
from dist_dsvae.explore.tabs_pictures import inpaint_tab, swap_tab
from dist_dsvae.explore.uploads import BYTES_PER_MIB, MAX_PIXELS
from dist_dsvae.pretrained.requests import RequestError

_LOCAL = ("127.0.0.1", "localhost", "::1")
_MAX_WAITING = 64
_SECONDS_KEPT = 3600  # uploads and results on disk
_STYLE = """
.sharp img { image-rendering: pixelated; }
.picture .image-container { padding-top: 32px; }
:focus-visible { outline: 3px solid #2563eb !important; outline-offset: 2px; }
.gradio-container { max-width: 1100px !important; }
"""


def build_page(source: Subject, max_bytes: int) -> gr.Blocks:
    """The tabs that the model can fill, and the run's."""
    with gr.Blocks(
        title=f"dist_dsvae: {source.name}",
        analytics_enabled=False,
        delete_cache=(_SECONDS_KEPT, _SECONDS_KEPT),
    ) as page:
        gr.HTML(f"<h1>{html.escape(source.name)}</h1><p>{html.escape(source.note)}</p>")
        at_start: list[Change] = []
        with gr.Tabs(overflow_behavior="wrap"):
            if source.model is not None:
                at_start += _model_tabs(source, max_bytes)
            if source.run is not None:
                with gr.Tab("Training"):
                    at_start += training_tab(source.run)
        for change in at_start:
            page.load(*change, **MODEL)
    return page


def _model_tabs(source: Subject, max_bytes: int) -> list[Change]:
    model = source.model
    assert model is not None
    with gr.Tab("Samples"):
        at_start = samples_tab(model)
    if not model.shape.is_image:
        return at_start
    with gr.Tab("Between classes"):
        at_start += between_tab(model)
    with gr.Tab("Dimensions of zu"):
        at_start += dimensions_tab(model, max_bytes)
    if model.can_encode:
        with gr.Tab("Swap"):
            swap_tab(model, max_bytes)
        with gr.Tab("Inpaint"):
            inpaint_tab(model, max_bytes)
    return at_start


def explore(model: str | None, run: Path | None, host: str, port: int, max_upload_mib: float) -> None:
    """Serve the page until interrupted.

    model, run: as for ``open_source``. port: 0 takes a free one. Prints the address once it answers.
    Raises what ``open_source`` does, and RequestError if the port cannot be used.
    """
    port = usable_port(host, port)  # before what takes longer
    max_bytes = int(max_upload_mib * BYTES_PER_MIB)
    # Gradio opens the editor's layers itself, and whatever else is sent in their place.
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow refuses from twice this
    page = build_page(open_source(model, run), max_bytes)
    if host not in _LOCAL:
        print(f"Anybody who can reach {host} can use this page: there is no password.", flush=True)
    page.queue(max_size=_MAX_WAITING)
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        max_file_size=max_bytes,
        prevent_thread_lock=True,
        quiet=True,
        **_closed(),
    )
    print(f"Open {address} (Ctrl-C ends it).", flush=True)
    page.block_thread()


def _closed() -> dict[str, Any]:
    """Everything that would reach beyond this machine, or let others reach in, is off."""
    font = ["system-ui", "sans-serif"]
    return {
        "share": False,
        "show_error": False,
        "enable_monitoring": False,
        "mcp_server": False,
        "pwa": False,
        "ssr_mode": False,
        "allowed_paths": [],
        "footer_links": [],
        "theme": gr.themes.Default(font=font, font_mono=["ui-monospace", "monospace"]),
        "css": _STYLE,
    }


def usable_port(host: str, port: int) -> int:
    """``port``, or a free one for 0. Raises RequestError if it is taken, or ``host`` is not this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server itself will
        try:
            probe.bind((host, port))
        except OSError as error:
            raise RequestError(
                f"Port {port} of {host} cannot be listened on: {error.strerror}. Give another --port (0 "
                "takes a free one), or a --host that is an address of this machine."
            ) from None
        return int(probe.getsockname()[1])
