"""A directory appears complete or not at all, and replaces nothing of a person's.

    OUT.incomplete-<pid>   written, inventory taken, flushed to the disk  --rename-->  OUT

A process killed at any instant leaves at most an ``.incomplete`` directory, which the next build
of OUT removes. The directory is locked while its process lives, so that a build never removes
the work of another one that is still running. Shards, exported models and folders of samples are all
made here, so there is one place that removes a directory, and ``inventory`` tells it what it may.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from dist_dsvae.core import inventory
from dist_dsvae.core.errors import DataError
from dist_dsvae.data.shards.manifest import MANIFEST_FILE, Manifest
from dist_dsvae.data.shards.table import TABLE_FILE

REPORT_FILE = "report.json"
_REPORT_KEYS = {"command", "samples_per_class", "left_out"}


@contextmanager
def building(out: Path, *, overwrite: bool = False, apart_from: Sequence[Path] = ()) -> Iterator[Path]:
    """A fresh directory that becomes ``out`` when the block ends without an exception.

    overwrite: replace an ``out`` of which every file is this project's own; without it a non-empty ``out``
    is an error. apart_from: what is read meanwhile; may neither hold ``out`` nor lie in it.
    Raises DataError if ``out`` is taken, if another process is building it, or if the disk is full.
    """
    target = out.resolve()
    check_free(out, overwrite, apart_from)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    staging = target.with_name(f"{target.name}.incomplete-{os.getpid()}")
    try:
        staging.mkdir()
    except FileExistsError:
        raise DataError(
            f"{staging} is in the way, and was not made by this program. Move it, or choose another place."
        ) from None
    inventory.mark(staging)
    lock = os.open(staging, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield staging
        _publish(staging, out)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DataError(
            f"The disk that holds {out.parent} is full; nothing was left at {out}. "
            "Free some space or choose another place, and build again."
        ) from error
    finally:
        _remove_made_now(staging)
        os.close(lock)


def check_free(out: Path, overwrite: bool, apart_from: Sequence[Path] = ()) -> None:
    """Raises DataError if ``out`` is taken: for those who work long before they build."""
    target = out.resolve()
    for source in apart_from:
        real = source.resolve()
        if real == target or real in target.parents or target in real.parents:
            raise DataError(
                f"{out} and {source} are one folder, or one lies in the other: what is made would be read "
                "as a source, or the source replaced. Choose a place beside it."
            )
    if not target.exists():
        return
    if not target.is_dir():
        raise DataError(f"{out} exists and is not a directory. Choose another place.")
    here = Path.cwd()
    if target == here or target in here.parents:
        raise DataError(f"{out} is the folder that you are in, or holds it. Give the name of a new folder.")
    if not any(target.iterdir()):
        return
    foreign = next(inventory.foreign_files(target, _files_of_older_shards(target)), None)
    if foreign is not None:
        what = f"{foreign.relative_to(target)}, which this program cannot prove to have written"
        more = ", so --overwrite does not touch it" if overwrite else ""
        raise DataError(
            f"{out} exists already and is not empty: it holds {what}{more}. Choose another place, or move "
            "that file away yourself."
        )
    if not overwrite:
        raise DataError(
            f"{out} exists already and is not empty. Add --overwrite to replace it, or choose another place."
        )


def _remove_leftovers(target: Path) -> None:
    ours = re.compile(rf"{re.escape(target.name)}\.incomplete-\d+(-replaced)?")
    for leftover in sorted(target.parent.iterdir()):
        if not ours.fullmatch(leftover.name) or leftover.is_symlink() or not inventory.is_marked(leftover):
            continue
        lock = os.open(leftover, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if leftover.name.endswith("-replaced"):
                inventory.remove_own(leftover)
            else:
                _remove_made_now(leftover)
        except BlockingIOError as error:
            raise DataError(
                f"Another process is building {target} right now (in {leftover.name}). "
                "Wait until it ends, or stop it."
            ) from error
        finally:
            os.close(lock)


def _remove_made_now(staging: Path) -> None:
    """Remove a marked directory that was never published: nobody but its process wrote there."""
    if not inventory.is_marked(staging):
        return  # it has become OUT
    mark = staging / inventory.INVENTORY_FILE
    for path in [path for path in inventory.files_below(staging) if path != mark] + [mark]:
        with suppress(OSError):
            path.unlink()
    with suppress(OSError):
        inventory.remove_empty_folders(staging)


def _publish(staging: Path, out: Path) -> None:
    target = out.resolve()
    inventory.take_inventory(staging)
    for directory in [staging, *(path for path in staging.rglob("*") if path.is_dir())]:
        fsync_directory(directory)
    if target.exists():
        check_free(out, overwrite=True)  # a person may have put something there meanwhile
        older = _files_of_older_shards(target)
        replaced = staging.with_name(f"{staging.name}-replaced")
        target.rename(replaced)
        staging.rename(target)
        inventory.remove_own(replaced, {replaced / path.relative_to(target) for path in older})
    else:
        staging.rename(target)
    fsync_directory(target.parent)


def _files_of_older_shards(directory: Path) -> set[Path]:
    """What manifests prove, for shards from before there were inventories.

    The tars of a split that was only indexed are whoever's made them.
    """
    own: set[Path] = set()
    for path in [directory / MANIFEST_FILE, *directory.glob(f"*/{MANIFEST_FILE}")]:
        if not path.is_file() or path.is_symlink():
            continue
        try:
            content = path.read_bytes()
            manifest = Manifest.parse(content, path.parent)
        except (DataError, OSError):
            continue
        own.add(path)
        if b'"shards_sha256"' in content:  # which was compared with the table's
            own.add(path.parent / TABLE_FILE)
        for number, shard in enumerate(manifest.shards):
            tar, index = path.parent / shard.file, path.parent / shard.index_file
            with suppress(DataError):
                manifest.index(number)
                own.add(index)
            if manifest.source != "index" and tar.is_file() and tar.stat().st_size == shard.num_bytes:
                own.add(tar)
    if own and _is_report(directory / REPORT_FILE):
        own.add(directory / REPORT_FILE)
    return {path for path in own if path.is_file() and not path.is_symlink()}


def _is_report(path: Path) -> bool:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.keys() >= _REPORT_KEYS


def fsync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
