"""The page and its server: on this machine alone unless told otherwise, and without the internet."""

from __future__ import annotations

import html
import ipaddress
import itertools
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import processing_utils
from PIL import Image
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from dist_dsvae.core.files import write_atomically
from dist_dsvae.core.process import stop_signals
from dist_dsvae.explore.appearance import HEAD, KEYS, STYLE, theme
from dist_dsvae.explore.control_checks import Page
from dist_dsvae.explore.controls import LOOKING, MODEL, Change, TabChanges
from dist_dsvae.explore.subject import ShownModel, Subject, open_source
from dist_dsvae.explore.tab_training import training_tab
from dist_dsvae.explore.tabs_codes import between_tab, looks_tab, samples_tab
from dist_dsvae.explore.tabs_images import inpaint_tab, swap_tab
from dist_dsvae.explore.uploads import BYTES_PER_MIB, MAX_PIXELS
from dist_dsvae.explore.words import words_for
from dist_dsvae.pretrained.requests import RequestError

_LOCAL = ("127.0.0.1", "localhost", "[::1]")  # as they stand in addresses of pages
_MAX_WAITING = 64
_SECONDS_KEPT = 3600  # uploads and results on disk
_SECONDS_BETWEEN_LOOKS = 10  # for a newer checkpoint
_FOLDER = "GRADIO_TEMP_DIR"  # Gradio's variable for where a page keeps its files


def build_page(source: Subject, max_bytes: int) -> gr.Blocks:
    """The tabs that the model can fill, and the run's."""
    with Page(
        title=f"dist_dsvae: {source.name}",
        analytics_enabled=False,
        delete_cache=(_SECONDS_KEPT, _SECONDS_KEPT),
    ) as page:
        note = gr.HTML(_heading(source.name, source.note), elem_classes=["note"])
        tabs = TabChanges([], [])
        with gr.Tabs(overflow_behavior="wrap"):
            if source.shown is not None:
                tabs = _model_tabs(source.shown, max_bytes)
            if source.run is not None:
                with gr.Tab("Training"):
                    tabs.at_start.extend(training_tab(source.run))
        if source.shown is not None:
            footnote = html.escape(words_for(source.shown.model).footnote)
            gr.HTML(f"<p>{footnote}</p>", elem_classes=["footnote"])
        for change in tabs.at_start:
            page.load(*change, **MODEL)
        if source.shown is not None and source.run is not None:
            _follow(page, source.name, source.shown, note, tabs.at_newer)
    return page


def _heading(name: str, note: str) -> str:
    return f"<h1>{html.escape(name)}</h1><p>{html.escape(note)}</p>"


def _model_tabs(shown: ShownModel, max_bytes: int) -> TabChanges:
    tabs = []
    with gr.Tab("Samples"):
        tabs.append(samples_tab(shown))
    if shown.model.shape.is_image:
        with gr.Tab(f"Between {words_for(shown.model).many}"):
            tabs.append(between_tab(shown))
        with gr.Tab("Looks"):
            tabs.append(looks_tab(shown, max_bytes))
        if shown.model.can_encode:
            with gr.Tab("Swap"):
                tabs.append(swap_tab(shown, max_bytes))
            with gr.Tab("Inpaint") as tab:
                tabs.append(inpaint_tab(shown, max_bytes, tab))
    at_start, at_newer = zip(*tabs, strict=True)
    return TabChanges([*itertools.chain(*at_start)], [*itertools.chain(*at_newer)])


def _follow(page: Any, name: str, shown: ShownModel, note: Any, changes: list[Change]) -> None:
    """Look for a newer checkpoint now and then; what is shown is drawn anew where there is one."""

    def look(seen: str) -> tuple[Any, ...]:
        shown.look_for_newer()
        heading, checkpoint = _heading(name, shown.note), shown.checkpoint
        return (heading, gr.skip(), gr.skip()) if checkpoint == seen else (heading, checkpoint, checkpoint)

    seen = gr.State("")
    newer = gr.State("")
    page.load(lambda: (_heading(name, shown.note), shown.checkpoint), None, [note, seen], **LOOKING)
    gr.Timer(_SECONDS_BETWEEN_LOOKS).tick(look, [seen], [note, seen, newer], **LOOKING)
    for change in changes:
        newer.change(*change, **MODEL)


def explore(model: str | None, run: Path | None, host: str, port: int, max_upload_mib: float) -> None:
    """Serve the page until interrupted.

    model, run: as for ``open_source``. port: 0 takes a free one. Prints the address once it answers.
    Raises what ``open_source`` does, and RequestError if the port cannot be used.
    """
    host = host.strip("[]")  # of IPv6, as in addresses of pages
    port = usable_port(host, port)  # before what takes longer
    max_bytes = int(max_upload_mib * BYTES_PER_MIB)
    # Gradio opens the editor's layers itself, and whatever else is sent in their place.
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow refuses from twice this
    source = open_source(model, run)
    with folder_of_its_own():
        page = build_page(source, max_bytes)
        if not is_local(host):
            print(f"Anybody who can reach {host} can use this page: there is no password.", flush=True)
        print(f"Open {serve(page, host, port, max_bytes)} (Ctrl-C ends it).", flush=True)
        for number in stop_signals():
            signal.signal(number, signal.default_int_handler)  # so that the page's files go then, too
        page.block_thread()


@contextmanager
def folder_of_its_own() -> Iterator[Path]:
    """A temporary folder for the uploads and pictures of the pages that are built and served in the block.

    Gradio names a picture by its content, in a folder that all pages of a machine share, and a page that
    ends removes its pictures there: from under any other that shows the same ones.
    """
    before = os.environ.get(_FOLDER)
    if before is not None:
        Path(before).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory("", "dsvae-explore-", before, ignore_cleanup_errors=True) as folder:
        os.environ[_FOLDER] = folder
        try:
            yield Path(folder)
        finally:
            os.environ.pop(_FOLDER)
            if before is not None:
                os.environ[_FOLDER] = before


def serve(page: gr.Blocks, host: str, port: int, max_bytes: int) -> str:
    """Answer requests from now on, in a thread; returns the address. ``page.close()`` ends it.

    Everything that would reach beyond this machine, or let others reach in, is off. A page for this machine
    answers to names of this machine alone: a website whose own name leads here could read it otherwise.
    """
    answered = [*_LOCAL, _in_url(host)] if is_local(host) else ["*"]
    # Gradio's own writes in place: whoever is shown the same picture at that moment may get a part of it, and
    # its editor, which asks once, then has no picture and does not tell of the first stroke.
    processing_utils.save_pil_to_cache = _save_whole
    page.queue(max_size=_MAX_WAITING)
    _, address, _ = page.launch(
        server_name=_in_url(host),
        server_port=port,
        max_file_size=max_bytes,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        show_error=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        ssr_mode=False,
        allowed_paths=[],
        app_kwargs={
            "middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=answered, www_redirect=False)]
        },
        footer_links=[],
        theme=theme(),
        css=STYLE,
        head=HEAD,
        js=KEYS,
    )
    return str(address).replace("[::]", "localhost")  # all addresses of this machine: as Gradio has 0.0.0.0


def _save_whole(image: Image.Image, cache_dir: str, name: str = "image", format: str = "webp") -> str:
    """Gradio's ``save_pil_to_cache``, whose files are there as a whole or not at all."""
    content = processing_utils.encode_pil_to_bytes(image, format)
    path = (Path(cache_dir) / processing_utils.hash_bytes(content) / f"{name}.{format}").resolve()
    path.parent.mkdir(exist_ok=True, parents=True)
    write_atomically(path, content)
    return str(path)


def is_local(host: str) -> bool:
    """Whether an address to listen on, or a name of one, can be reached from this machine alone."""
    try:
        found = {str(address[0]) for *_, address in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(address).is_loopback for address in found)


def usable_port(host: str, port: int) -> int:
    """``port``, or a free one for 0. Raises RequestError if it is taken, or ``host`` is not this machine."""
    if "%" in host:
        raise RequestError(
            f"--host {host} names an interface, which an address of a page cannot. Give an address without %."
        )
    is_ipv6 = ":" in host
    try:
        with socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server itself will
            probe.bind((host, port))
            found = int(probe.getsockname()[1])
    except OSError as error:
        raise RequestError(
            f"Port {port} of {host} cannot be listened on: {error.strerror}. Give another --port (0 "
            "takes a free one), or a --host that is an address of this machine."
        ) from None
    return usable_port("127.0.0.1", found) if is_ipv6 else found  # of which Gradio sees that it is free, too


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
