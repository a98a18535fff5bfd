"""Versions of packages, for the records that runs and published models keep."""

from __future__ import annotations

from importlib import metadata


def version_of(package: str) -> str | None:
    """The installed version of ``package``; None where it is not installed.

    A package that is only on the import path, as a source tree on PYTHONPATH is, counts as not installed.
    """
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
