"""Checkpoints: written by all ranks in parallel, complete or not there at all.

    checkpoints/step-00001000/        torch.distributed.checkpoint files, one or more per rank
                checkpoint.json       the marker: written last; samples_seen and other plain values
    checkpoints/.step-00001000.partial    while it is written; renamed when the marker is on disk

A directory without its marker does not count, so a kill at any instant leaves the newest complete
checkpoint loadable. Tensors are saved from and loaded into the live state in place; replicated ones
are written once, spread over the ranks, and loaded on any number of ranks.

The files hold pickles (torch.distributed.checkpoint's metadata): load only checkpoints you trust.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from dist_dsvae import distributed
from dist_dsvae.data.staging import fsync_directory

MARKER = "checkpoint.json"
_NAME = re.compile(r"step-(\d{8,})")


class CheckpointError(ValueError):
    """A checkpoint that cannot be written or read; the message says which and what to do."""


def checkpoint_name(step: int) -> str:
    return f"step-{step:08d}"


def complete_checkpoints(directory: Path) -> list[Path]:
    """Complete checkpoints in a run's checkpoints/ directory, oldest first."""
    if not directory.is_dir():
        return []
    found = [path for path in directory.iterdir() if _NAME.fullmatch(path.name) and (path / MARKER).is_file()]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]))


def read_marker(checkpoint: Path) -> dict[str, Any]:
    """The plain values stored with a checkpoint. Raises CheckpointError if it is not complete."""
    try:
        values = json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{checkpoint} is not a complete checkpoint: its {MARKER} cannot be read ({error}). "
            "Name another one, or resume with --resume auto, which takes the newest complete one."
        ) from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{checkpoint / MARKER} does not hold a JSON object; the file was damaged.")
    return values


def save(directory: Path, step: int, state: dict[str, Any], values: dict[str, Any], keep: int) -> Path:
    """Write ``state`` (nested dictionaries of tensors) and ``values`` (JSON) as checkpoint ``step``.

    keep: the newest ``keep`` checkpoints stay, older ones are removed.
    Called by all ranks. Raises CheckpointError on every rank if any could not write; the partial
    files are removed and older checkpoints stay.
    """
    final = directory / checkpoint_name(step)
    partial = directory / f".{final.name}.partial"

    def prepare() -> None:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)

    def publish() -> None:
        marker = json.dumps(values, indent=1) + "\n"
        with (partial / MARKER).open("w", encoding="utf-8") as stream:
            stream.write(marker)
            stream.flush()
            os.fsync(stream.fileno())
        if final.exists():
            shutil.rmtree(final)  # the same step of a run that was set back
        partial.rename(final)
        fsync_directory(directory)
        for old in complete_checkpoints(directory)[:-keep]:
            shutil.rmtree(old)

    try:
        _on_main(prepare)
        _collectively(lambda: _write(state, partial))
        _on_main(publish)
    except CheckpointError:
        if distributed.is_main():
            shutil.rmtree(partial, ignore_errors=True)
        raise
    return final


def load(checkpoint: Path, state: dict[str, Any]) -> None:
    """Load a checkpoint into the live tensors of ``state``, in place. Called by all ranks."""

    def read() -> None:
        with _quiet():
            dcp_load(state, checkpoint_id=checkpoint, no_dist=distributed.world_size() == 1)

    _collectively(read, f"{checkpoint} could not be read; an older one can be named with --resume PATH")


def _write(state: dict[str, Any], partial: Path) -> None:
    with _quiet():
        dcp_save(state, checkpoint_id=partial, no_dist=distributed.world_size() == 1)


def _quiet() -> warnings.catch_warnings:
    context = warnings.catch_warnings()
    # DCP announces that it runs in a single process, which is what no_dist asks for.
    warnings.filterwarnings("ignore", message=".*torch.distributed is (disabled|unavailable).*")
    return context


def _on_main(action: Callable[[], None]) -> None:
    """Run on rank 0; all ranks wait, and all raise if it failed."""
    _collectively(action if distributed.is_main() else lambda: None)


def _collectively(action: Callable[[], None], what: str = "The checkpoint could not be written") -> None:
    """Run on every rank; if it fails on any, raise CheckpointError on all, with the first reason."""
    problem: str | None = None
    try:
        action()
    except (Exception, CheckpointException) as error:  # or the other ranks would wait for ever
        problem = _explain(error)
    problems = [p for p in distributed.gather_objects(problem) if p]
    if problems:
        raise CheckpointError(f"{what}: {problems[0]}")


def _explain(error: BaseException) -> str:
    """The cause within torch's wrapping, as a sentence."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            return (
                "the disk is full. Free some space or lower train.keep_checkpoints, then start the same "
                "command again: it resumes from the last complete checkpoint."
            )
        if isinstance(cause, OSError) and cause.errno is not None:
            return f"{cause.strerror} ({cause.filename}). Mend that, then start the same command again."
    text = str(error)
    if "No space left on device" in text:
        return _explain(OSError(errno.ENOSPC, "No space left on device"))
    return f"{type(error).__name__}: {text.strip()}"


def _causes(error: BaseException) -> list[BaseException]:
    """The error, what it wraps (CheckpointException.failures) and what caused it, innermost last."""
    found = [error]
    failures = getattr(error, "failures", {})
    for failure in failures.values():
        found += _causes(failure[0])
    if error.__cause__ is not None:
        found += _causes(error.__cause__)
    return found
