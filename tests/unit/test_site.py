"""The pages as one site: mkdocs builds it without a warning, and every link in it leads to something."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.documented import PAGES, REPOSITORY

pytest.importorskip("mkdocs")
pytest.importorskip("material")
# A table or list that Markdown took for words, since no blank line or too few spaces stand before it
NOT_RENDERED = re.compile(r"^ *(?:\|-|[-*] )", re.MULTILINE)


class Reader(HTMLParser):
    """What a page links to and shows, and the text of its paragraphs, list items and cells."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.text: list[str] = []
        self._in_code = 0
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_code += tag in ("code", "script", "style")
        self.links += [value for name, value in attrs if name in ("href", "src") and value]

    def handle_endtag(self, tag: str) -> None:
        self._in_code -= tag in ("code", "script", "style")

    def handle_data(self, data: str) -> None:
        if not self._in_code:
            self.text.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def missing(page: Path, link: str) -> bool:
    """Whether a relative link leads to no file."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc or not parts.path or parts.path.startswith("/"):
        return False
    target = (page.parent / unquote(parts.path)).resolve()
    return not (target / "index.html" if parts.path.endswith(("/", ".")) else target).is_file()


def test_every_page_is_in_it(site: Path) -> None:
    names = [page.relative_to(REPOSITORY).as_posix().removeprefix("docs/") for page in PAGES]
    folders = [re.sub(r"(?:README)?\.md$", "", name).rstrip("/") for name in [*names, "CHANGELOG.md"]]
    assert [folder for folder in folders if not (site / folder / "index.html").is_file()] == []
    assert not (site / "mkdocs_hooks.py").exists()


def test_every_link_leads_somewhere(site: Path) -> None:
    pages = [page for page in site.rglob("*.html") if page.name != "404.html"]
    assert len(pages) >= len(PAGES)
    broken = {
        f"{page.relative_to(site)}: {link}"
        for page in pages
        for link in Reader(page).links
        if missing(page, link)
    }
    assert broken == set()
    assert missing(site / "index.html", "nowhere/")
    assert missing(site / "index.html", "images/none.png")


def test_tables_and_lists_are_rendered(site: Path) -> None:
    for page in site.rglob("index.html"):
        assert NOT_RENDERED.findall("".join(Reader(page).text)) == [], page
    assert NOT_RENDERED.findall("words\n|---|---|\n- item\n") == ["|-", "- "]
