"""The house as a tree, one line for every folder and file of the package, from their docstrings:

python -m tests.house            all of it
python -m tests.house --rooms    the folders alone, as CONTRIBUTING.md shows them
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.test_layering import FLOOR_OF, PACKAGE

_COLUMN = 30


def lines(folder: Path, *, rooms_only: bool, depth: int = 0) -> Iterator[str]:
    """The tree below ``folder``: first its own files, then its rooms."""
    yield _line(f"{folder.name}/", folder / "__init__.py", depth)
    if not rooms_only:
        for path in sorted(folder.glob("*.py")):
            if path.stem != "__init__":
                yield _line(path.name, path, depth + 1)
    for inner in sorted((path.parent for path in folder.glob("*/__init__.py")), key=_floor):
        yield from lines(inner, rooms_only=rooms_only, depth=depth + 1)


def _floor(folder: Path) -> tuple[int, str]:
    """From the ground up; inner folders by name."""
    return FLOOR_OF.get(folder.name, 0) if folder.parent == PACKAGE else 0, folder.name


def _line(name: str, path: Path, depth: int) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring is not None, f"{path} does not say what it owns"
    return f"{'  ' * depth + name:{_COLUMN}} {docstring.splitlines()[0]}"


if __name__ == "__main__":
    print("\n".join(lines(PACKAGE, rooms_only="--rooms" in sys.argv)))
