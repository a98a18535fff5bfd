"""What the pages point to exists: relative links and their anchors, configs, scripts, tests."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGES = sorted(
    [
        *REPOSITORY.glob("*.md"),
        *(path for folder in ("docs", "shards") for path in (REPOSITORY / folder).glob("*.md")),
    ]
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
NAMED = re.compile(
    r"(?<![\w./-])((?:configs|launch|tests|dist_dsvae)/[\w./-]*\.(?:json|yaml|py|sbatch))(?![\w*{<])"
)
IN_THE_PACKAGE = re.compile(r"`((?:[a-z_]+/)+[a-z_0-9]+\.py)`")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
PLACEHOLDERS = ("X", "DATA", "NAME", "mine", "test_mine")


def broken_links(page: Path, text: str) -> Iterator[str]:
    """Relative links of ``text``, as it would stand in ``page``, whose file or heading is missing."""
    for target in LINK.findall(FENCE.sub("", text)):
        if "://" in target or target.startswith("mailto:"):
            continue
        place, _, anchor = target.partition("#")
        file = (page.parent / place).resolve() if place else page
        if not file.exists():
            yield target
        elif anchor:
            linked = text if file == page else file.read_text(encoding="utf-8")
            if anchor not in anchors(linked):
                yield target


def anchors(text: str) -> set[str]:
    """Headings as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def missing_files(text: str) -> list[str]:
    """Files of the repository that ``text`` names and that do not exist."""
    named = {name for name in NAMED.findall(text) if Path(name).stem not in PLACEHOLDERS}
    named |= {name for name in IN_THE_PACKAGE.findall(text) if Path(name).stem not in PLACEHOLDERS}
    places = (REPOSITORY, REPOSITORY / "dist_dsvae")
    return sorted(name for name in named if not any((place / name).is_file() for place in places))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert list(broken_links(page, text)) == []
    assert missing_files(text) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_lines_end_cleanly(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.endswith("\n")
    assert not re.search(r"[ \t]+$", text, re.MULTILINE)
    assert text.count("```") % 2 == 0


def test_the_test_can_fail() -> None:
    page = REPOSITORY / "README.md"
    text = (
        "# A title\n[a](docs/none.md) [b](README.md#nowhere) [c](#a-title) [d](https://example.org) ![e](x)"
    )
    assert list(broken_links(page, text)) == ["docs/none.md", "README.md#nowhere", "x"]
    assert missing_files("`configs/none.json`, `configs/toy.json`, launch/none.py, `data/none.py`.") == [
        "configs/none.json",
        "data/none.py",
        "launch/none.py",
    ]


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, ahead = set[Path](), [REPOSITORY / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in seen:
            continue
        seen.add(page)
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            linked = (page.parent / target.partition("#")[0]).resolve()
            if linked.suffix == ".md" and linked.is_file():
                ahead.append(linked)
    assert set(PAGES) - seen == set()


def test_the_readme_begins_with_the_two_commands_that_ci_runs() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    first_block = FENCE.findall(text)[0].splitlines()[1:-1]
    install, test = first_block
    assert install.startswith("pip install -e . && accelerate launch launch/train.py --config configs/")
    assert test == 'pip install -e ".[test]" && pytest'


# What other programs say
FOREIGN = ("CUDA out of memory", "No space left on device")
# What a message on the page has in the place of something that differs from case to case
PLACEHOLDER = re.compile(r"\b[A-Z]+\b|\b\d[\dx,.]*\b|'[^']*'|\"[^\"]*\"|\.\.\.|\w+\.json|\(.*$")


def messages() -> list[str]:
    """All texts of the code; what is filled in stands as a NUL."""
    found = []
    for folder in ("dist_dsvae", "launch"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    found.append(
                        "".join(v.value if isinstance(v, ast.Constant) else "\0" for v in node.values)
                    )
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def test_the_messages_of_the_troubleshooting_page_are_those_of_the_code() -> None:
    said = messages()
    quoted = 0
    for line in (REPOSITORY / "docs/troubleshooting.md").read_text(encoding="utf-8").splitlines():
        first_cell = line.split(" | ")[0] if line.startswith("| ") else ""
        for message in re.findall(r"`([^`]+)`", first_cell):
            fixed = [part.strip(" ,;:.") for part in PLACEHOLDER.split(message)]
            fixed = [part for part in fixed if len(part) >= 6]
            if not fixed or message.startswith(FOREIGN):
                continue
            quoted += 1
            missing = [part for part in fixed if not any(part in text for text in said)]
            assert not missing, f"nothing in the code says {missing} ({message})"
    assert quoted > 40
