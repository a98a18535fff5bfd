"""What mkdocs.yml needs beyond its options: pages and files outside of docs/ in the site.

Links stand in the pages as a code host follows them, from file to file in the repository. In the site
README.md is the first page, docs/ is the top, and what else is linked to keeps its place in the repository.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES_OUTSIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "shards/README.md")
FENCE = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what lies outside of docs/: the pages, and the files that any page links to."""
    wanted = set(PAGES_OUTSIDE)
    pages = [*PAGES_OUTSIDE, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    for page in pages:
        for link in LINK.findall((REPOSITORY / page).read_text(encoding="utf-8")):
            target = in_the_repository(page, link)
            if not target.startswith("docs/") and (REPOSITORY / target).is_file():
                wanted.add(target)
    for path in sorted(wanted):
        place, source = in_the_site(path), str(REPOSITORY / path)
        files.append(File.generated(config, place, abs_src_path=source, inclusion=InclusionLevel.INCLUDED))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page's links as the site has them."""
    here = Path(str(page.file.abs_src_path)).relative_to(REPOSITORY).as_posix()
    folder = posixpath.dirname(in_the_site(here))

    def link_in_the_site(link: re.Match[str]) -> str:
        return posixpath.relpath(in_the_site(in_the_repository(here, link.group())), folder or ".")

    parts = FENCE.split(markdown)  # every second one is code
    parts[::2] = [LINK.sub(link_in_the_site, part) for part in parts[::2]]
    return "".join(parts)


def in_the_repository(page: str, link: str) -> str:
    """Where a relative link of a page leads, from the root of the repository."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def in_the_site(path: str) -> str:
    """Where a file of the repository lies in the site."""
    return "index.md" if path == "README.md" else path.removeprefix("docs/")
