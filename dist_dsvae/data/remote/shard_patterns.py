"""Shards named one by one, as WebDataset wants them, where a split is wanted: x.tar, x-{000..009}.tar, *.tar.

A split is a directory with a manifest. Names that are all of its shards stand for it; any others get a
sentence that says which directory to give.
"""

from __future__ import annotations

import re
from pathlib import Path

from dist_dsvae.core.errors import DataError
from dist_dsvae.data.remote.location import is_remote
from dist_dsvae.data.shards.manifest import MANIFEST_FILE, Manifest
from dist_dsvae.data.shards.system_names import is_system_name
from dist_dsvae.data.shards.unpacked import TAR_SUFFIXES

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]+)\.\.([0-9]+)")
_MOST_NAMES = 1_000_000


def names_shards(location: str) -> bool:
    """Whether a location is a tar, or a pattern of several, and not a directory that happens to look so."""
    if location.startswith("pipe:"):
        return False
    file = location.partition("?")[0] if is_remote(location) else location
    return file.endswith(TAR_SUFFIXES) and (is_remote(location) or not Path(location).is_dir())


def directory_of(location: str) -> str:
    """The split whose shards are all those that ``location`` names; any other location as it is.

    Raises DataError if it names shards that are not the whole of a split.
    """
    if not names_shards(location):
        return location
    parent, _, pattern = location.rpartition("/")
    if is_remote(location) or any(sign in parent for sign in "{}*?["):
        where = parent if is_remote(location) else "the directory that holds them"
        raise DataError(
            f"{location} names shards one by one; a split is given as a directory with a {MANIFEST_FILE}. "
            f"Give {where}; `dsvae build index DIR` makes the manifest of shards of other tools."
        )
    directory = Path(parent or ("/" if location.startswith("/") else "."))
    if not (directory / MANIFEST_FILE).is_file():
        raise DataError(
            f"{location} names shards, and {directory} has no {MANIFEST_FILE} of them. Make one with\n"
            f"    dsvae build index {directory}\nand give {directory}."
        )
    shards = {shard.file for shard in Manifest.load(directory).shards}
    named = {name for each in _alternatives(pattern) for name in _existing(directory, each)}
    if named == shards:
        return str(directory)
    other = min(named ^ shards)
    verb = "does not name" if other in shards else "names"
    has = "is one of" if other in shards else "is none of"
    raise DataError(
        f"{location} {verb} {other}, which {has} the {len(shards):,} shards of {directory}; a split is read "
        f"whole. Give {directory}, or move the shards that you want into a directory of their own and run "
        "`dsvae build index` on it."
    )


def _existing(directory: Path, pattern: str) -> list[str]:
    """The files that a pattern with * and ? fits; the name itself where it has none of them."""
    if not any(sign in pattern for sign in "*?["):
        return [pattern]
    return [path.name for path in directory.glob(pattern) if not is_system_name(path.name)]


def _alternatives(pattern: str) -> list[str]:
    """What a shell makes of {000..009} and {a,b}."""
    found = _BRACES.search(pattern)
    if found is None:
        return [pattern]
    numbers = _RANGE.fullmatch(found[1])
    if numbers is None:
        middles = found[1].split(",")
    else:
        first, last = int(numbers[1]), int(numbers[2])
        if last - first >= _MOST_NAMES:
            raise DataError(f"{pattern} names more than {_MOST_NAMES:,} shards. Give their directory.")
        middles = [f"{number:0{len(numbers[1])}d}" for number in range(first, last + 1)]
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [before + middle + rest for middle in middles for rest in _alternatives(after)]
