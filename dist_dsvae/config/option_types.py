"""Types of command-line options: numbers within bounds, and files of pictures.

``argparse`` calls them with what was typed and puts "argument --option: " before their sentences. Every
number that a command takes goes through one of them, or through the config's checks where it changes a
config (a test sees to it), so nan, infinity, or a size that no machine has never reaches the work.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

from dist_dsvae.config.fields import MAX_TEMPERATURE
from dist_dsvae.core.paths import path_argument

MANY = 10**9  # stands for "no upper bound" of a count
MAX_SEED = 2**62
FILM_SUFFIXES = (".gif", ".webp", ".mp4")


def whole(low: int, high: int = MANY) -> Callable[[str], int]:
    """A whole number from ``low`` to ``high``, both included."""
    bounds = f"of at least {low}" if high >= MANY else f"from {low} to {high}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise _refused(text, f"it must be a whole number {bounds}") from None
        if value > high >= MANY:
            raise _refused(text, f"it must be a whole number of at most {high:,}")
        if not low <= value <= high:
            raise _refused(text, f"it must be a whole number {bounds}")
        return value

    return parse


def number(
    low: float, high: float = float(MANY), *, above: bool = False, below: bool = False
) -> Callable[[str], float]:
    """A finite number from ``low`` (with ``above``: above it) to ``high`` (with ``below``: below it)."""
    bounds = f"{'above' if above else 'of at least'} {low:g}"
    if high < MANY:
        bounds += f" and {'below' if below else 'at most'} {high:g}"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or (above and value == low) or (below and value == high):
            raise _refused(text, f"it must be a number {bounds}")
        return value

    return parse


def _refused(text: str, rule: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"{text!r} is not allowed; {rule}")


positive = whole(1)
seed = whole(0, MAX_SEED)
step = whole(0)
batch_size = whole(1, 2**16)
edge = whole(1, 2**12)  # of a picture, in pixels
training_batch_size = whole(2, 2**16)  # batch norm needs two
num_classes = whole(1, 10**7)
num_workers = whole(1, 1024)
share = number(0, 1, below=True)
panels = whole(1, 200)  # along one side of a figure: its pixels have to fit a PNG
temperature = number(0, MAX_TEMPERATURE, above=True)


def temperatures(text: str) -> tuple[float, float]:
    """Of zs and zu: one number for both, or "ZS:ZU"."""
    zs, separator, zu = text.partition(":")
    return temperature(zs), temperature(zu if separator else zs)


def png_or_film_file(text: str) -> Path:
    """Where a picture or a film is to be written."""
    return png_file(text, FILM_SUFFIXES)


def png_file(text: str, others: tuple[str, ...] = ()) -> Path:
    """Where a picture is to be written. others: suffixes that are allowed besides."""
    path = path_argument(text)
    try:
        is_directory = not path.name or path.is_dir()
    except OSError as error:  # a folder that this user may not enter, a name that is too long
        raise argparse.ArgumentTypeError(
            f"{text!r} cannot be written: {error.strerror}; give another place"
        ) from None
    if is_directory:
        raise argparse.ArgumentTypeError(
            f"{text!r} is a directory; give the name of a file, such as {path / 'figure.png'}"
        )
    if path.suffix.lower() not in ("", ".png", *others):
        films = f", films as {', '.join(others)}" if others else ""
        raise argparse.ArgumentTypeError(
            f"{text!r} ends in {path.suffix}, but pictures are written as PNG{films}; "
            f"name it {path.with_suffix('.png')}"
        )
    return path
