"""Versions of packages, for the records that runs and published models keep."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

_SOURCE_TREE = Path(__file__).resolve().parents[2]


def version_of(package: str) -> str | None:
    """The installed version of ``package``; None where it is not installed.

    A package that is only on the import path, as a source tree on PYTHONPATH is, counts as not installed,
    also where an editable installation of another environment has left its metadata in the tree.
    """
    for found in metadata.distributions(name=package):
        if Path(str(found.locate_file(""))).resolve() != _SOURCE_TREE:
            return found.version
    return None
