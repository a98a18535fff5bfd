"""Proof of what this project wrote, for nothing else may be removed or replaced.

    DIR/.dist_dsvae.json    format, and the bytes and sha256 of every file below DIR

Whoever makes a directory takes its inventory when it is complete. Later a file is this project's own if it
still has the content of which the inventory tells. Everything else, a link among it, is foreign: a person's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from dist_dsvae.core.files import sha256_as_of, sha256_of, write_atomically
from dist_dsvae.core.text import read_json

INVENTORY_FILE = ".dist_dsvae.json"
FORMAT = "dist_dsvae-inventory/1"


def mark(directory: Path) -> None:
    """Say that ``directory`` is being made by this project; ``take_inventory`` replaces the mark."""
    _write(directory, {})


def is_marked(directory: Path) -> bool:
    """Whether this project made ``directory``, or was about to."""
    return _recorded(directory) is not None


def take_inventory(directory: Path, hashes: Mapping[Path, str]) -> None:
    """Record all files that lie below ``directory`` now as this project's own.

    hashes: the sha256 of files that whoever wrote them has read already.
    """
    files = {}
    for path in files_below(directory):
        if path.name != INVENTORY_FILE:
            name = path.relative_to(directory).as_posix()
            files[name] = {"bytes": path.stat().st_size, "sha256": hashes.get(path) or sha256_of(path)}
    _write(directory, files)


def foreign_files(
    directory: Path, also_own: Collection[Path] = (), *, by_content: bool = True
) -> Iterator[Path]:
    """Files below ``directory`` that this project cannot prove to have written, in sorted order.

    also_own: paths below ``directory`` that another proof covers. by_content: files are read; without it the
    ones that differ by name or size are told, which is no proof of the others.
    """
    recorded = _recorded(directory)
    for path in files_below(directory):
        if path in also_own:
            continue
        if path == directory / INVENTORY_FILE and recorded is not None and not path.is_symlink():
            continue
        entry = (recorded or {}).get(path.relative_to(directory).as_posix())
        if entry is None or not _is_as_recorded(path, entry, by_content=by_content):
            yield path


def remove_own(directory: Path, also_own: Collection[Path] = ()) -> bool:
    """Remove what is not foreign, and folders that are empty then; whether ``directory`` is gone."""
    foreign = set(foreign_files(directory, also_own))
    last = directory / INVENTORY_FILE  # a kill on the way leaves the proof of what is left
    for path in [path for path in files_below(directory) if path != last] + [last]:
        if path not in foreign:
            path.unlink(missing_ok=True)
    return remove_empty_folders(directory)


def remove_empty_folders(directory: Path) -> bool:
    """Remove ``directory`` and its sub-folders as far as they are empty; whether it is gone."""
    for name, _, _ in os.walk(directory, topdown=False):
        folder = Path(name)
        if not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()
    return not directory.exists()


def files_below(directory: Path) -> list[Path]:
    """Everything below ``directory`` that is no folder, sorted; links are not followed but listed."""
    found = []
    for folder, folders, files in os.walk(directory):
        place = Path(folder)
        found += [place / name for name in files]
        found += [place / name for name in folders if (place / name).is_symlink()]
    return sorted(found)


def _is_as_recorded(path: Path, entry: Any, *, by_content: bool) -> bool:
    if path.is_symlink() or not path.is_file() or not isinstance(entry, dict):
        return False
    if path.stat().st_size != entry.get("bytes"):
        return False
    return not by_content or sha256_as_of(path) == entry.get("sha256")


def _recorded(directory: Path) -> dict[str, Any] | None:
    """File name -> what is recorded of it; None if there is no inventory of this project."""
    path = directory / INVENTORY_FILE
    try:
        document = read_json(path)
    except (OSError, ValueError):
        return None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        return None
    files = document.get("files")
    return files if isinstance(files, dict) else None


def _write(directory: Path, files: dict[str, Any]) -> None:
    text = json.dumps({"format": FORMAT, "files": files}, indent=1) + "\n"
    write_atomically(directory / INVENTORY_FILE, text.encode())
