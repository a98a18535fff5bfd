"""Paths as people type them, with ``~``, ``~name``, ``$NAME`` and ``${NAME}`` as in a shell.

A shell expands few of them itself: not after ``=``, not within quotes, and nothing in a JSON file.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))", re.ASCII)


class PathError(ValueError):
    """A path that is empty, or names a variable which does not exist."""


def expanded(text: str) -> str:
    """A path with its home directory and variables filled in; a URL as it is.

    Raises PathError where there is nothing, and for a variable that the environment lacks, unless a file has
    that very name.
    """
    if not text:
        raise PathError("The path is empty, as a variable of the shell is that nobody set. Write it out.")
    if "://" in text or text.startswith("pipe:"):
        return text
    for braced, bare in _VARIABLE.findall(text):
        name = braced or bare
        if name not in os.environ and not os.path.lexists(text):
            raise PathError(
                f"{text} names the variable {name}, which the environment does not have. Set it "
                f"(export {name}=...), or write the path out."
            )
    kind, separator, path = text.rpartition("=")
    if path.startswith("~") and re.fullmatch(r"[\w-]+", kind):  # a kind of weights, as in KIND=~/file
        return kind + separator + expanded(path)
    # not Path's: it would fail on a user who does not exist, and tidy up what is no path
    return os.path.expanduser(os.path.expandvars(text))  # noqa: PTH111


def path_argument(text: str) -> Path:
    """A path on a command line, for argparse."""
    return Path(place_argument(text))


def place_argument(text: str) -> str:
    """A path, a URL or a hub's repository on a command line, for argparse."""
    try:
        return expanded(text)
    except PathError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
