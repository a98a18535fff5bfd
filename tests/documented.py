"""The command lines of the pages: what stands in their code blocks, word by word."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[1]
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "shards/README.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_PROGRAM = re.compile(r"(?:launch|shards)/\w+\.py|dsvae \w+")
_LINE = re.compile(r"(?:[A-Z_]+=\S+ |pip .*&& )*(?:python|accelerate|torchrun|dsvae) ")
_BRACES = re.compile(r"\{([^{}]*)\}")


class Command(NamedTuple):
    """page: where it stands. launcher: the words before program: launch/X.py, shards/X.py or "dsvae X"."""

    page: str
    launcher: tuple[str, ...]
    program: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join([*self.launcher, self.program, *self.arguments])


def commands() -> list[Command]:
    """All commands of all pages that start one of the project's programs, each once per page."""
    return list(dict.fromkeys(itertools.chain.from_iterable(map(_commands_of, PAGES))))


def _commands_of(page: Path) -> Iterator[Command]:
    for block in _FENCE.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            if not _LINE.match(line):
                continue
            for part in line.split("&&"):
                words = shlex.split(part, comments=True)
                if "dsvae" in words[:-1]:  # and its command are one word
                    place = words.index("dsvae")
                    words[place : place + 2] = [f"dsvae {words[place + 1]}"]
                place = next((i for i, word in enumerate(words) if _PROGRAM.fullmatch(word)), None)
                if place is not None:
                    launcher = tuple(itertools.dropwhile(lambda word: "=" in word, words[:place]))
                    arguments = tuple(itertools.chain.from_iterable(map(_expanded, words[place + 1 :])))
                    name = str(page.relative_to(REPOSITORY))
                    yield Command(name, launcher, words[place], arguments)


def _expanded(word: str) -> list[str]:
    """As a shell does: runs/{a,b}-x is two words."""
    if (found := _BRACES.search(word)) is None:
        return [word]
    return [word.replace(found.group(), choice) for choice in found.group(1).split(",")]
