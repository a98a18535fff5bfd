"""Checkpoints: written by all ranks in parallel, complete or not there at all.

    checkpoints/step-00001000/        torch.distributed.checkpoint files, one or more per rank
                checkpoint.json       the marker: written last; samples_seen and other plain values,
                                      and the checksum of every other file (``marker``)
    checkpoints/.step-00001000.partial    while it is written; renamed when the marker is on disk

A directory without its marker does not count, so a kill at any instant leaves the newest complete
checkpoint loadable. Tensors are loaded into the live state in place; replicated ones are written
once, spread over the ranks, and loaded on any number of ranks. ``saver`` writes while training goes on.

The files hold pickles (torch.distributed.checkpoint's metadata): load only checkpoints you trust.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.distributed import ProcessGroup

from dist_dsvae.core import distributed
from dist_dsvae.core.files import fsync_directory, sha256_of
from dist_dsvae.runs.checkpoint_folder import (
    checkpoint_name,
    remove,
    remove_files,
    staying_if_it_must,
    surplus,
    unfinished,
)
from dist_dsvae.runs.marker import MARKER, CheckpointError, Marker, UnreadableCheckpointError

_PAUSES = (1.0, 5.0)  # seconds before another try to read

logger = logging.getLogger(__name__)


def read_marker(checkpoint: Path) -> dict[str, Any]:
    """The plain values stored with a checkpoint. Raises CheckpointError if it is not complete."""
    return Marker.read(checkpoint).values


def is_described_by(checkpoint: Path, record: Mapping[str, Any]) -> bool:
    """Whether figures with this record are of ``checkpoint``, and not of one that had its name before."""
    values = read_marker(checkpoint)
    same_moment = all(record.get(key) == values.get(key) for key in ("samples_seen", "train_seconds"))
    return record.get("checkpoint") == checkpoint.name and same_moment


def save(
    directory: Path,
    step: int,
    state: dict[str, Any],
    values: dict[str, Any],
    keep: int,
    *,
    keep_every: int = 0,
    group: ProcessGroup | None = None,
) -> Path:
    """Write ``state`` (nested dictionaries of tensors) and ``values`` (JSON) as checkpoint ``step``.

    keep: the newest ``keep`` checkpoints stay, older ones are removed, except those whose step is a
        multiple of ``keep_every`` (0: no exception).
    group: of all ranks, for this function's collectives; by default that of training.
    Called by all ranks. Raises CheckpointError on every rank if any could not write; the partial
    files are removed and older checkpoints stay.
    """
    final = directory / checkpoint_name(step)
    partial = directory / f".{final.name}.partial"
    checksums: dict[str, str] = {}

    def prepare() -> None:
        remove_files(partial)
        partial.mkdir(parents=True, exist_ok=True)

    def publish() -> None:
        _check_shared(partial, checksums)
        with (partial / MARKER).open("w", encoding="utf-8") as stream:
            stream.write(Marker(values, checksums).to_json())
            stream.flush()
            os.fsync(stream.fileno())
        fsync_directory(partial)
        remove(final)  # the same step of a run that was set back
        partial.rename(final)
        fsync_directory(directory)
        for old in surplus(directory, keep, keep_every):
            with staying_if_it_must(old):
                remove(old)
        for leftover in unfinished(directory):
            with staying_if_it_must(leftover):
                remove_files(leftover)

    try:
        _on_main(prepare, group)
        _collectively(lambda: _write_or_explain(state, partial, group), group)
        _collectively(lambda: checksums.update(_own_checksums(partial)), group)
        for others in distributed.gather_objects(dict(checksums), group):
            checksums.update(others)
        _on_main(publish, group)
    except CheckpointError:
        if distributed.is_main():
            remove_files(partial)
        raise
    return final


def _own_checksums(partial: Path) -> dict[str, str]:
    """sha256 of the files that this rank wrote, by name."""
    own = [*partial.glob(f"__{distributed.rank()}_*")]
    if distributed.is_main():
        own.append(partial / ".metadata")
    return {path.name: sha256_of(path) for path in own}


def _check_shared(partial: Path, written: Collection[str]) -> None:
    """Raise CheckpointError if what other processes wrote is not here: it would be on their hosts' disks."""
    if missing := sorted(name for name in written if not (partial / name).is_file()):
        raise CheckpointError(
            f"{partial / missing[0]}, which another process wrote, is not there for rank 0. All hosts must "
            "share the run directory: name one on a file system that they share with --run-dir."
        )


def verify(checkpoint: Path) -> None:
    """Compare every file, the marker included, with its checksum; the ranks share the work. By all ranks.

    Raises CheckpointError on every rank if a file is missing or not as it was written, and
    UnreadableCheckpointError if that cannot be told.
    """
    for problem in distributed.gather_objects(_problem(checkpoint)):
        if problem is not None:
            raise problem


def _problem(checkpoint: Path) -> CheckpointError | None:
    """Of this rank's share of the files. What cannot be read is read again: a file system may stumble."""
    for pause in (*_PAUSES, None):
        try:
            _check_files(checkpoint)
        except (OSError, UnreadableCheckpointError) as error:
            if pause is not None:
                time.sleep(pause)
            elif isinstance(error, CheckpointError):
                return error
            else:
                return UnreadableCheckpointError(
                    f"{checkpoint} cannot be read: {error.strerror} ({error.filename}). Mend that and start "
                    "the same command again, or name an older one with --resume PATH."
                )
        except CheckpointError as error:
            return error
        else:
            break
    return None


def _check_files(checkpoint: Path) -> None:
    recorded = sorted(Marker.read(checkpoint).files.items())
    for name, expected in recorded[distributed.rank() :: distributed.world_size()]:
        if not (checkpoint / name).is_file():
            raise CheckpointError(f"{checkpoint} is damaged: its file {name} is missing.")
        if sha256_of(checkpoint / name) != expected:
            raise CheckpointError(
                f"{checkpoint} is damaged: its file {name} is not as it was written (other checksum)."
            )


def load(checkpoint: Path, state: dict[str, Any]) -> None:
    """Load a checkpoint into the live tensors of ``state``, in place. Called by all ranks."""

    def read() -> None:
        from torch.distributed.checkpoint.state_dict_loader import load as dcp_load

        with _quiet():
            dcp_load(state, checkpoint_id=checkpoint, no_dist=distributed.world_size() == 1)

    what = f"{checkpoint} could not be read; an older one can be named with --resume PATH"
    _collectively(read, what=what)


def _write_or_explain(state: dict[str, Any], partial: Path, group: ProcessGroup | None) -> None:
    """Torch reports a full disk in several disguises; the free space tells."""
    from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

    try:
        with _quiet():
            dcp_save(state, checkpoint_id=partial, process_group=group, no_dist=distributed.world_size() == 1)
    except _failures() as error:
        if shutil.disk_usage(partial.parent).free < _num_bytes(state):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(partial)) from error
        raise


def _num_bytes(state: Any) -> int:
    if isinstance(state, dict):
        return sum(_num_bytes(value) for value in state.values())
    return int(state.numel() * state.element_size())


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # DCP announces that it runs in a single process, which is what no_dist asks for.
        warnings.filterwarnings("ignore", message=".*torch.distributed is (disabled|unavailable).*")
        # What it cannot read it tells the root logger by a traceback; ``_explain`` has the sentence
        root = logging.getLogger()
        root.addFilter(_is_not_of_dcp)
        try:
            yield
        finally:
            root.removeFilter(_is_not_of_dcp)


def _is_not_of_dcp(record: logging.LogRecord) -> bool:
    return record.module != "state_dict_loader"


def _on_main(action: Callable[[], None], group: ProcessGroup | None) -> None:
    """Run on rank 0; all ranks wait, and all raise if it failed."""
    _collectively(action if distributed.is_main() else lambda: None, group)


def _collectively(
    action: Callable[[], None],
    group: ProcessGroup | None = None,
    what: str = "The checkpoint could not be written",
) -> None:
    """Run on every rank; if it fails on any, raise CheckpointError on all, with the first reason."""
    problem: str | None = None
    try:
        action()
    except _failures() as error:  # or the other ranks would wait for ever
        problem = _explain(error)
    problems = [p for p in distributed.gather_objects(problem, group) if p]
    if problems:
        raise CheckpointError(f"{what}: {problems[0]}")


def _failures() -> tuple[type[BaseException], ...]:
    """All that writing and reading may raise; torch's own wrapping of it is no ``Exception``."""
    # torch.distributed.checkpoint takes a second, which those who only look at published models need not wait
    from torch.distributed.checkpoint.api import CheckpointException

    return Exception, CheckpointException


def _explain(error: BaseException) -> str:
    """The cause within torch's wrapping, as a sentence."""
    if isinstance(error, CheckpointError):
        return str(error)
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            return (
                "the disk is full. Free some space or lower train.keep_checkpoints, then start the same "
                "command again: it resumes from the last complete checkpoint."
            )
        if isinstance(cause, OSError) and cause.errno is not None:
            return f"{cause.strerror} ({cause.filename}). Mend that, then start the same command again."
    if "No space left on device" in str(error):
        return _explain(OSError(errno.ENOSPC, "No space left on device"))
    innermost = _causes(error)[-1]
    return f"{type(innermost).__name__}: {str(innermost).strip()}"


def _causes(error: BaseException) -> list[BaseException]:
    """The error, what it wraps (CheckpointException.failures) and what caused it, innermost last."""
    found = [error]
    failures = getattr(error, "failures", {})
    for failure in failures.values():
        found += _causes(failure[0])
    before = error.__cause__ or error.__context__
    if before is not None:
        found += _causes(before)
    return found
