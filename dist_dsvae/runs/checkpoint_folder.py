"""The folder of a run's checkpoints: which are there, and how old ones go.

step-00001000              complete, if its marker is there
.step-00001000.partial     on its way in
.step-00001000.removed     on its way out
abandoned-step-00001000    beyond the place where the run was set back to
kept-step-00001000         files of a person's that were in one that is gone
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dist_dsvae.runs.marker import MARKER

logger = logging.getLogger(__name__)

_NAME = re.compile(r"step-(\d{8,})")
_UNFINISHED = re.compile(r"\.step-\d{8,}\.(partial|removed)")
_FILE = re.compile(r"__\d+_\d+\.distcp|\.metadata(\.tmp)?|checkpoint\.json")


def checkpoint_name(step: int) -> str:
    return f"step-{step:08d}"


def complete_checkpoints(directory: Path) -> list[Path]:
    """Complete checkpoints in a run's checkpoints/ directory, oldest first."""
    if not directory.is_dir():
        return []
    found = [path for path in directory.iterdir() if _NAME.fullmatch(path.name) and (path / MARKER).is_file()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


def surplus(directory: Path, keep: int, keep_every: int) -> list[Path]:
    older = complete_checkpoints(directory)[:-keep]
    return [path for path in older if not keep_every or step_of(path) % keep_every]


def unfinished(directory: Path) -> list[Path]:
    """What killed jobs left of checkpoints on their way in or out: their steps may not come again."""
    return [p for p in directory.iterdir() if _UNFINISHED.fullmatch(p.name) and not p.is_symlink()]


@contextmanager
def staying_if_it_must(path: Path) -> Iterator[None]:
    """The new checkpoint is complete, whether or not an old one can be removed."""
    try:
        yield
    except OSError as error:
        logger.warning("%s could not be removed, and stays: %s.", path, error.strerror)


def remove(checkpoint: Path) -> None:
    """Delete a checkpoint; a kill on the way leaves nothing that counts as one.

    Files in it that are none of a checkpoint's stay, in ``kept-step-...``.
    """
    if checkpoint.is_symlink():
        checkpoint.unlink()  # what it leads to may be another run's
        return
    hidden = checkpoint.with_name(f".{checkpoint.name}.removed")
    for place in (hidden, checkpoint):  # first what a kill left of an earlier removal
        if place.exists():
            place.rename(hidden)
            try:
                remove_files(hidden)
            except OSError:
                if (hidden / MARKER).is_file():  # of a folder that is protected nothing is gone
                    hidden.rename(checkpoint)
                raise
            if hidden.exists():
                hidden.rename(_unused(checkpoint.with_name(f"kept-{checkpoint.name}")))


def remove_files(directory: Path) -> None:
    """Remove what ``save`` writes into a directory, and the directory if nothing else is in it.

    The marker first: what is left then counts as no checkpoint.
    """
    if directory.is_dir():
        for path in sorted(directory.iterdir(), key=lambda path: path.name != MARKER):
            if _FILE.fullmatch(path.name) and not path.is_dir():
                path.unlink()
        with suppress(OSError):
            directory.rmdir()


def _unused(path: Path) -> Path:
    """``path``, or with the first number behind it that is free."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain([path], numbered) if not candidate.exists())


def set_back(directory: Path, step: int) -> list[Path]:
    """Move checkpoints beyond ``step`` out of the way of a run that starts from there again.

    They are renamed to ``abandoned-...``, not deleted. Rank 0 only; returns the new names.
    """
    later = [path for path in complete_checkpoints(directory) if step_of(path) > step]
    return [path.rename(_unused(path.with_name(f"abandoned-{path.name}"))) for path in later]
