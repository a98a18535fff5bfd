"""A directory appears complete or not at all.

    OUT.incomplete-<pid>   written, flushed to the disk  --rename-->  OUT

A process killed at any instant leaves at most an ``.incomplete`` directory, which the next build
of OUT removes. The directory is locked while its process lives, so that a build never removes
the work of another one that is still running.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dist_dsvae.data.errors import DataError
from dist_dsvae.data.manifest import MANIFEST_FILE


@contextmanager
def building(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A fresh directory that becomes ``out`` when the block ends without an exception.

    overwrite: replace an ``out`` that holds shards; without it a non-empty ``out`` is an error.
    Raises DataError if ``out`` is taken, if another process is building it, or if the disk is full.
    """
    target = out.resolve()
    check_free(out, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    staging = target.with_name(f"{target.name}.incomplete-{os.getpid()}")
    staging.mkdir()
    lock = os.open(staging, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield staging
        _publish(staging, target)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DataError(
            f"The disk that holds {out.parent} is full; nothing was left at {out}. "
            "Free some space or choose another place, and build again."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(lock)


def check_free(out: Path, overwrite: bool) -> None:
    """Raises DataError if ``out`` is taken: for those who work long before they build."""
    target = out.resolve()
    if not target.exists():
        return
    if not target.is_dir():
        raise DataError(f"{out} exists and is not a directory. Choose another place for the shards.")
    if not any(target.iterdir()):
        return
    holds_shards = any(target.glob(MANIFEST_FILE)) or any(target.glob(f"*/{MANIFEST_FILE}"))
    if overwrite and not holds_shards:
        raise DataError(
            f"{out} holds something other than shards, so --overwrite does not touch it. "
            "Choose another place, or empty it yourself."
        )
    if not overwrite:
        remedy = "Add --overwrite to replace it, or choose" if holds_shards else "Choose"
        raise DataError(f"{out} exists already and is not empty. {remedy} another place.")


def _remove_leftovers(target: Path) -> None:
    for leftover in sorted(target.parent.iterdir()):
        if not leftover.name.startswith(f"{target.name}.incomplete-"):
            continue
        lock = os.open(leftover, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(leftover)
        except BlockingIOError as error:
            raise DataError(
                f"Another process is building {target} right now (in {leftover.name}). "
                "Wait until it ends, or stop it."
            ) from error
        finally:
            os.close(lock)


def _publish(staging: Path, target: Path) -> None:
    for directory in [staging, *(path for path in staging.rglob("*") if path.is_dir())]:
        fsync_directory(directory)
    if target.exists():
        replaced = staging.with_name(f"{staging.name}-replaced")
        target.rename(replaced)
        staging.rename(target)
        shutil.rmtree(replaced)
    else:
        staging.rename(target)
    fsync_directory(target.parent)


def fsync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
