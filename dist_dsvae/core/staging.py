"""A directory appears complete or not at all, and replaces nothing of a person's.

    OUT.incomplete-<hex>   written, inventory taken, flushed to the disk  --rename-->  OUT

A process killed at any instant leaves at most an ``.incomplete`` directory, which the next build of OUT
removes, or the empty ``.OUT.<random>`` by which it looks whether OUT can be renamed. The directory is
locked while its process lives, so that a build never removes the work of another one that is still
running. Shards, exported models and folders of samples are all made here, so there is one place that
removes a directory, and ``inventory`` tells it what it may.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

from dist_dsvae.core import inventory
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.files import fsync_directory, speaking_of

# The files below a directory that are this project's own by another proof than an inventory
Proof = Callable[[Path], set[Path]]
_NONE_KNOWN: Mapping[Path, str] = MappingProxyType({})


def _no_other_proof(directory: Path) -> set[Path]:
    return set()


@contextmanager
def building(
    out: Path,
    *,
    overwrite: bool = False,
    apart_from: Sequence[Path] = (),
    proof: Proof = _no_other_proof,
    hashes: Mapping[Path, str] = _NONE_KNOWN,
) -> Iterator[Path]:
    """A fresh directory that becomes ``out`` when the block ends without an exception.

    overwrite: replace an ``out`` of which every file is this project's own; without it a non-empty ``out``
    is an error. apart_from: what is read meanwhile; may neither hold ``out`` nor lie in it. proof: tells
    which files are this project's own in an ``out`` that has no inventory. hashes: the sha256 of files that
    the block writes and reads itself, filled by it.
    Raises DataError if ``out`` is taken, if another process is building it, or if the disk is full. Where all
    is made and only the name cannot be taken, the error says where it lies.
    """
    target = out.resolve()
    check_free(out, overwrite, apart_from, proof)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    # not this process's number: one of another machine or container may have the same
    staging = target.with_name(f"{target.name}.incomplete-{secrets.token_hex(4)}")
    with speaking_of(out):
        staging.mkdir()
    lock = os.open(staging, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        inventory.mark(staging)
        yield staging
        _publish(staging, out, overwrite, proof, hashes)
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


def check_free(
    out: Path, overwrite: bool, apart_from: Sequence[Path] = (), proof: Proof = _no_other_proof
) -> None:
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
    if any(target.iterdir()):
        _check_own(target, out, overwrite, proof)
    _check_movable(target, out)


def _check_own(target: Path, out: Path, overwrite: bool, proof: Proof) -> None:
    """Raise DataError unless ``target`` may be replaced; its files are read only where it is to be."""
    own = _proven_else(target, proof)
    foreign = next(inventory.foreign_files(target, own, by_content=overwrite), None)
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


def _check_movable(target: Path, out: Path) -> None:
    """Raise DataError if ``target`` cannot give way: a mount point cannot, nor a layer of an image below.

    It is moved onto a folder that is not empty. That never succeeds, so ``target`` is there at any moment,
    and the reason tells.
    """
    with speaking_of(out), tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as name:
        occupied = Path(name)
        (occupied / occupied.name).touch()
        try:
            target.rename(occupied)
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.EXDEV):
                raise DataError(
                    f"{out} exists and cannot be renamed ({error.strerror}): something is mounted there, or "
                    "it belongs to a lower layer of the file system. What is made replaces the whole folder, "
                    f"so give a new folder inside it, such as {out / 'shards'}."
                ) from error
            return  # not empty, as expected; or what will be said when it is replaced
        occupied.rename(target)  # by a file system with rules of its own
        (target / occupied.name).unlink(missing_ok=True)


def _proven_else(target: Path, proof: Proof) -> set[Path]:
    """The files that ``proof`` tells of; none where there is an inventory, which knows their contents."""
    return set() if inventory.is_marked(target) else proof(target)


def _remove_leftovers(target: Path) -> None:
    ours = re.compile(rf"{re.escape(target.name)}\.incomplete-[0-9a-f]+(-replaced)?")
    for leftover in sorted(target.parent.iterdir()):
        if not ours.fullmatch(leftover.name) or leftover.is_symlink() or not inventory.is_marked(leftover):
            continue
        with suppress(FileNotFoundError), locked(leftover, target):  # unless it has become OUT meanwhile
            if leftover.name.endswith("-replaced"):
                inventory.remove_own(leftover)
            else:
                _remove_made_now(leftover)


@contextmanager
def locked(folder: Path, target: Path) -> Iterator[None]:
    """Hold the lock of ``folder``, in which what becomes ``target`` is made.

    Raises DataError if another process holds it, and FileNotFoundError if there is no such folder any more.
    """
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(
                f"Another process is building {target} right now (in {folder.name}). "
                "Wait until it ends, or stop it."
            ) from error
        if not os.path.samestat(os.fstat(lock), folder.stat()):  # removed and made again meanwhile
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
        yield
    finally:
        os.close(lock)


def _remove_made_now(staging: Path) -> None:
    """Remove a marked directory that was never published: nobody but its process wrote there."""
    if not inventory.is_marked(staging):
        with suppress(OSError):
            staging.rmdir()  # unless it has become OUT: the disk was full before it could be marked
        return
    mark = staging / inventory.INVENTORY_FILE
    for path in [path for path in inventory.files_below(staging) if path != mark] + [mark]:
        with suppress(OSError):
            path.unlink()
    with suppress(OSError):
        inventory.remove_empty_folders(staging)


def _publish(staging: Path, out: Path, overwrite: bool, proof: Proof, hashes: Mapping[Path, str]) -> None:
    target = out.resolve()
    inventory.take_inventory(staging, hashes)
    for directory in [staging, *(path for path in staging.rglob("*") if path.is_dir())]:
        fsync_directory(directory)
    if target.exists():
        check_free(out, overwrite, proof=proof)  # a person, or another build, may have put something there
        older = _proven_else(target, proof)
        replaced = staging.with_name(f"{staging.name}-replaced")
        with _kept_if_unnamed(staging, out):
            target.rename(replaced)
            try:
                staging.rename(target)
            except OSError:
                replaced.rename(target)
                raise
        inventory.remove_own(replaced, {replaced / path.relative_to(target) for path in older})
    else:
        with _kept_if_unnamed(staging, out):
            staging.rename(target)
    fsync_directory(target.parent)


@contextmanager
def _kept_if_unnamed(staging: Path, out: Path) -> Iterator[None]:
    """What is complete stays, under a name that no build removes, where a rename inside fails."""
    try:
        yield
    except OSError as error:
        complete = staging.with_name(f"{out.resolve().name}.complete-{secrets.token_hex(4)}")
        staging.rename(complete)
        raise DataError(
            f"{out} is made, but cannot be given its name ({error.strerror or error}). It lies whole in "
            f"{complete}: use it there, or rename it yourself."
        ) from error
