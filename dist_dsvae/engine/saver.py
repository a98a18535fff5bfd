"""Saver: checkpoints written in the background while training goes on.

    training thread    share out: each tensor is one rank's to write
                       stage: this rank's live tensors --copy--> host memory    ...next iterations...
    background thread                                  write, checksum, marker, rename, prune
                                                       (``checkpoint.save``, over a gloo group of its own)

Training waits for the copy alone, and for the write of the checkpoint before if that is still under
way. Host memory for a rank's share of the state is taken at the first save and kept (pinned for a GPU):
all ranks of a job together hold one copy.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from dist_dsvae.core import distributed
from dist_dsvae.runs import checkpoint
from dist_dsvae.runs.marker import CheckpointError

logger = logging.getLogger(__name__)


class CheckpointSaver:
    """Writes the checkpoints of one run. Made by all ranks; ``save`` and ``wait`` are called by all.

    keep, keep_every: see ``checkpoint.save``. timeout: of the collectives among the writers.
    synchronize: returns when the device is done with all that it was given (``Fence.synchronize``).
    """

    def __init__(
        self,
        directory: Path,
        keep: int,
        keep_every: int = 0,
        timeout: timedelta | None = None,
        synchronize: Callable[[], None] = lambda: None,
    ) -> None:
        self.directory = directory
        self.keep = keep
        self.keep_every = keep_every
        self._group = distributed.new_cpu_group(timeout)
        self._synchronize = synchronize
        device = torch.cuda.current_device() if torch.cuda.is_available() else None
        self._thread = ThreadPoolExecutor(1, "checkpoint", initializer=_work_on, initargs=(device,))
        self._staged: dict[str, Any] = {}
        self._pending: Future[Path] | None = None
        self._finished: list[Path] = []

    def save(self, step: int, state: dict[str, Any], values: dict[str, Any]) -> None:
        """Start writing; returns when ``state`` may change again.

        Raises CheckpointError, on every rank, if the checkpoint before this could not be written.
        """
        self.wait()
        self._staged = _staged(_share(state, self._group), self._staged)
        self._synchronize()
        self._pending = self._thread.submit(
            _write,
            self.directory,
            step,
            self._staged,
            values,
            self.keep,
            keep_every=self.keep_every,
            group=self._group,
        )

    def wait(self) -> None:
        """Until the checkpoint under way is complete. Raises CheckpointError, on every rank, if it failed."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self._finished.append(pending.result())  # the ranks' threads agreed on success or failure

    def went_well(self) -> bool:
        """Waits for the checkpoint under way. False if it failed, which has been told: another may not."""
        try:
            self.wait()
        except CheckpointError:
            return False
        return True

    def take_finished(self) -> list[Path]:
        """Checkpoints that became complete since the last call, as far as this rank knows."""
        if self._pending is not None and self._pending.done() and self._pending.exception() is None:
            self.wait()
        finished, self._finished = self._finished, []
        return finished

    def close(self) -> None:
        """Let a checkpoint under way become complete, or fail silently: the run is ending anyway."""
        self._thread.shutdown(wait=True)


def _write(directory: Path, step: int, *what: Any, **how: Any) -> Path:
    """As ``checkpoint.save``. A failure is told at once: it may be long until the training thread asks."""
    try:
        return checkpoint.save(directory, step, *what, **how)
    except CheckpointError as error:
        if distributed.is_main():
            logger.error("Step %d: %s", step, error)
        raise


def _work_on(device: int | None) -> None:
    """In a new thread, which would start on GPU 0, whichever its process trains on."""
    if device is not None:
        torch.cuda.set_device(device)


def _share(state: dict[str, Any], group: ProcessGroup | None) -> dict[str, Any]:
    """What this rank writes of ``state``: each tensor is for one of the ranks that hold it. Called by all.

    The largest first, each to the one that has the fewest bytes so far.
    """
    held = distributed.gather_objects(dict(_sizes(state)), group)
    loads = [0] * len(held)
    own: dict[str, Any] = {}
    sizes = {path: size for of_rank in held for path, size in of_rank.items()}
    for path in sorted(sizes, key=lambda path: (-sizes[path], path)):
        rank = min((rank for rank, of_rank in enumerate(held) if path in of_rank), key=loads.__getitem__)
        loads[rank] += sizes[path]
        if rank == distributed.rank():
            tensor, branch = state, own
            for name in path[:-1]:
                tensor, branch = tensor[name], branch.setdefault(name, {})
            branch[path[-1]] = tensor[path[-1]]
    return own


def _sizes(state: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    """Where each tensor is, and its bytes."""
    for name, value in state.items():
        if isinstance(value, Tensor):
            yield (*path, name), value.nbytes
        else:
            yield from _sizes(value, (*path, name))


def _staged(live: dict[str, Any], staged: dict[str, Any]) -> dict[str, Any]:
    """``live`` copied into the tensors of ``staged``, which are made where they are missing."""
    copies: dict[str, Any] = {}
    for name, value in live.items():
        before = staged.get(name)
        if isinstance(value, Tensor):
            if not isinstance(before, Tensor) or before.shape != value.shape or before.dtype != value.dtype:
                before = torch.empty_like(value, device="cpu", pin_memory=value.is_cuda)
            copies[name] = before.copy_(value.detach(), non_blocking=True)
        else:
            copies[name] = _staged(value, before if isinstance(before, dict) else {})
    return copies
