"""Servers and a browser for the tests of the page: skipped without Gradio, playwright, or a Chromium.

The model that comes with the project is served by the command, in a process of its own; the others in this
one, so that their pictures can be compared with what the functions behind the page draw here.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from dist_dsvae.config import CVAEConfig, DSVAEConfig
from tests.unit.explore.making import face_model, make_model, make_run, save_checkpoint

pytest.importorskip("gradio", reason="the page needs the extra explore")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")

from dist_dsvae.explore.app import build_page, folder_of_its_own, serve, usable_port  # noqa: E402
from dist_dsvae.explore.subject import ShownModel, Subject, open_source  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
REPOSITORY = Path(__file__).parents[2]
MAX_BYTES = 200_000
_TRIES = 5  # Gradio gives a server five seconds, which is little on such a machine
SECONDS = 120  # at most, on a machine that has other things to do
playwright.expect.set_options(timeout=SECONDS * 1000)
# A result, or a run's progress: what functions of the page have filled in.
_FILLED = """document.querySelector('.picture img[src]') !== null
    || [...document.querySelectorAll('textarea')].some(text => text.value !== '')"""


class Pages:
    """Addresses of the pages, each served from its first use on, what they show, and a browser.

    started, saved: runs, the second with a checkpoint.
    """

    def __init__(self, browser: Any, shots: Path) -> None:
        self.browser, self.shots = browser, shots
        self.model, self.faces = make_model(DSVAEConfig()), face_model()
        self.labelled = make_model(CVAEConfig())
        self.started, self.saved = shots / "started", shots / "saved"
        make_run(self.started)
        make_run(self.saved)
        save_checkpoint(self.saved, 100)
        self.outside: list[str] = []
        self.errors: list[str] = []
        self._served: list[Any] = []

    @cached_property
    def model_url(self) -> str:
        return self._serve(Subject("tiny <b>model</b>", ShownModel(self.model), None, "A note."))

    @cached_property
    def faces_url(self) -> str:
        return self._serve(Subject("faces", ShownModel(self.faces), None, ""))

    @cached_property
    def labelled_url(self) -> str:
        return self._serve(Subject("labelled", ShownModel(self.labelled), None, ""))

    @cached_property
    def started_url(self) -> str:
        return self._serve(open_source(None, self.started))

    @cached_property
    def saved_url(self) -> str:
        return self._serve(open_source(None, self.saved))

    def _serve(self, subject: Subject) -> str:
        for _ in range(_TRIES - 1):
            with contextlib.suppress(OSError):
                return self._serve_once(subject)
        return self._serve_once(subject)

    def _serve_once(self, subject: Subject) -> str:
        page = build_page(subject, MAX_BYTES)
        address = serve(page, "127.0.0.1", usable_port("127.0.0.1", 0), MAX_BYTES)
        self._served.append(page)
        return address

    def close(self) -> None:
        for page in self._served:
            page.close(verbose=False)

    def open(self, url: str | None = None, width: int = 1100, scheme: str = "light") -> Any:
        """A page of a user of its own, filled.

        One that stays empty is loaded once more, as a person would, with a warning that says what was
        answered: why a page did, on a machine that had other things to do, is not known.
        """
        context = self.browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        page.set_default_timeout(SECONDS * 1000)
        address = url or self.model_url
        answered: list[str] = []
        page.on("request", lambda request: self._note(request.url, address))
        page.on("response", lambda answer: answered.append(f"{answer.status} {answer.url}"))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(address)
        try:
            page.wait_for_function(_FILLED)
        except playwright.TimeoutError:
            warnings.warn(f"{address} stayed empty; answered: {answered}", stacklevel=2)
            page.reload()
            page.wait_for_function(_FILLED)
        return page

    def _note(self, url: str, address: str) -> None:
        if not url.startswith((address, "data:", "blob:")):
            self.outside.append(url)


@contextmanager
def served(shots: Path) -> Iterator[Pages]:
    """The pages, served until the end of the block."""
    if CHROMIUM is None:
        pytest.skip("needs a Chromium")
    with folder_of_its_own(), playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        pages = Pages(browser, shots)
        yield pages
        browser.close()
        pages.close()


@contextmanager
def served_apart(subject: Subject) -> Iterator[tuple[str, Path]]:
    """The address of a page, and the folder of its own, until the end of the block."""
    with folder_of_its_own() as folder:
        page = build_page(subject, MAX_BYTES)
        yield serve(page, "127.0.0.1", usable_port("127.0.0.1", 0), MAX_BYTES), folder
        page.close(verbose=False)


@contextmanager
def commanded(folder: Path) -> Iterator[str]:
    """Where ``dsvae explore``, in an empty folder and without arguments, says that its page is."""
    log = folder / "box.log"
    command = [sys.executable, str(REPOSITORY / "launch/explore.py"), "--port", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    with log.open("wb") as output:
        server = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, env=environment)
    deadline = time.monotonic() + 4 * SECONDS
    try:
        while not (found := re.search(r"Open (http://\S+)", log.read_text("utf-8"))):
            is_running = server.poll() is None and time.monotonic() < deadline
            assert is_running, log.read_text("utf-8")
            time.sleep(0.2)
        yield found[1]
    finally:
        server.terminate()
        server.wait(20)
    assert "Traceback" not in log.read_text("utf-8")
