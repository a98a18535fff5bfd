"""Tables of pages between marks, written from results.

    <!-- results NAME [VIEW] -->     the table of DIR/NAME.json in one of ``results_tables.VIEWS`` (methods)
    ...
    <!-- end of results -->

VIEW of NAME "paper" is none: that table is of what the paper prints. Text outside the marks is nobody's but
its author's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from dist_dsvae.core.files import write_atomically
from dist_dsvae.evaluation.comparing.evaluated import ComparisonError
from dist_dsvae.evaluation.comparing.results import Results, read_results
from dist_dsvae.evaluation.comparing.results_tables import VIEWS, areas_text, caption, paper_table

_END = "<!-- end of results -->"
_BLOCK = re.compile(rf"(<!-- results (\S+)(?: (\S+))? -->\r?\n)(.*?)({_END})", re.DOTALL)
_MARK = re.compile(r"<!-- (?:end of )?results\b")

Reader = Callable[[str], Results]


def with_tables(text: str, read: Reader, where: str) -> str:
    """``text`` with every marked table as the results are.

    read: the results of a name. where: names the page in sentences.
    Raises ComparisonError for marks that are not in pairs, an unknown view, and what ``read`` raises.
    """
    if len(_MARK.findall(text)) != 2 * len(_BLOCK.findall(text)):
        raise ComparisonError(
            f"{where} has marks of results that are not in pairs. Each table begins with "
            f"<!-- results NAME --> and ends with {_END}."
        )

    def written(block: re.Match[str]) -> str:
        lines = _content(block[2], block[3], read, where)
        return block[1] + (lines.replace("\n", "\r\n") if block[1].endswith("\r\n") else lines) + block[5]

    return _BLOCK.sub(written, text)


def _content(name: str, view: str | None, read: Reader, where: str) -> str:
    if name == "paper":
        return f"\n{paper_table()}\n\n"
    if view is not None and view not in VIEWS:
        raise ComparisonError(f"{where} asks for results {name!r} as {view!r}. Views are {', '.join(VIEWS)}.")
    results = read(name)
    below = areas_text(results) if view == "temperatures" else caption(results)
    return f"\n{VIEWS[view or 'methods'](results)}\n\n{below}\n\n"


def write_pages(results_dir: Path) -> list[Path]:
    """Write the marked tables of all pages beside the folder of results; the pages that have changed.

    results_dir: such as docs/results, for the pages docs/*.md.
    Raises ComparisonError as ``with_tables`` does, and for a page that is not UTF-8.
    """
    if not any(results_dir.glob("*.json")):
        raise ComparisonError(
            f"There are no results in {results_dir}, so no page has a table of them. Give the folder of the "
            "results with --out, or reproduce some."
        )
    changed = []
    for page in sorted(results_dir.resolve().parent.glob("*.md")):
        try:
            before = page.read_bytes().decode()  # a byte order mark stays, as do ends of lines
        except UnicodeDecodeError as error:
            raise ComparisonError(f"{page}: byte {error.start:,} is not UTF-8: save it as UTF-8.") from None
        after = with_tables(before, lambda name: read_results(results_dir / f"{name}.json"), page.name)
        if after != before:
            write_atomically(page, after.encode())
            changed.append(page)
    return changed
