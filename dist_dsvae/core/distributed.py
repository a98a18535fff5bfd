"""The few collectives in use. In a single process, without a process group, all are no-ops.

Every function here is called by all ranks or by none.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import register_rendezvous_handler, rendezvous

T = TypeVar("T")


_SCHEME = "by-attempt"


class ElsewhereError(ValueError):
    """What another host's process has found to be wrong there."""


def rendezvous_by_attempt() -> str:
    """An ``init_method``: through the launcher's store, but apart by attempt.

    After a crash the launcher starts all processes anew (--max_restarts), and its static rendezvous
    keeps one store for all attempts: addresses of dead processes would be found there and believed.
    """

    def by_attempt(url: str, **options: Any) -> Iterator[tuple[Store, int, int]]:
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        for store, rank, world_size in rendezvous("env://", **options):
            yield PrefixStore(f"attempt-{attempt}", store), rank, world_size

    with suppress(RuntimeError):  # already registered
        register_rendezvous_handler(_SCHEME, by_attempt)  # type: ignore[no-untyped-call]
    return f"{_SCHEME}://"


def is_initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if is_initialized() else 1


def backend() -> str:
    """What moves CUDA tensors between the ranks: "nccl" or "gloo"."""
    return dist.get_backend(dist.group.WORLD) if is_initialized() else "none"


def is_main() -> bool:
    """Rank 0 alone writes files and talks to people."""
    return rank() == 0


def barrier() -> None:
    if is_initialized():
        dist.barrier()


def new_cpu_group(timeout: timedelta | None = None) -> dist.ProcessGroup | None:
    """A gloo group of all ranks, for collectives beside those of training; None in a single process."""
    if world_size() == 1:
        return None
    group = dist.new_group(backend="gloo", timeout=timeout)
    assert isinstance(group, dist.ProcessGroup)
    return group


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Add ``tensor`` over all ranks, in place; returned for convenience."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def all_reduce_flat(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors' means over all ranks, through ONE all-reduce of one flat tensor.

    The tensors are dense, of one dtype and on one device; strides (channels-last or not) are kept.
    In a single process they are returned as they are.
    """
    if world_size() == 1:
        return list(tensors)
    flat = torch.cat([t.as_strided((t.numel(),), (1,)) for t in tensors])  # in memory order
    dist.all_reduce(flat)
    flat /= world_size()
    parts = torch.split(flat, [t.numel() for t in tensors])
    return [
        part.as_strided(t.shape, t.stride(), part.storage_offset())
        for part, t in zip(parts, tensors, strict=True)
    ]


def gather_into(whole: Tensor, part: Tensor) -> None:
    """Fill ``whole`` [world_size * n] with every rank's ``part`` [n], in the order of the ranks."""
    # the name that torch 2.14 deprecates is the only one of versions before
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    gather(whole, part)


def all_gather(tensor: Tensor) -> Tensor:
    """[...] on every rank -> [world_size, ...] on every rank, in the order of the ranks."""
    if world_size() == 1:
        return tensor[None]
    # into one tensor: of a list NCCL would copy every part, within each of the iteration's batch norms
    gathered = tensor.new_empty(world_size() * tensor.numel())
    gather_into(gathered, tensor.contiguous().view(-1))
    return gathered.view(world_size(), *tensor.shape)


def global_moments(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance [d] of the rows of all ranks, from every rank's own of equally many rows.

    The mean of the means; the mean of the variances + the variance of the means. One all-gather.
    """
    means, variances = all_gather(torch.stack([mean, variance])).unbind(1)
    whole = means.mean(0)
    return whole, variances.mean(0) + (means - whole).square().mean(0)


def gather_slices(flat: Tensor) -> None:
    """Fill a 1-D tensor in place from its equal slices: slice r is rank r's, the others are overwritten."""
    if world_size() > 1:
        gather_into(flat, flat.chunk(world_size())[rank()])


def gather_rows(rows: Tensor) -> Tensor:
    """[n_r, ...] with any n_r per rank -> [sum of n_r, ...] on every rank, in the order of the ranks."""
    if world_size() == 1:
        return rows
    counts = all_gather(torch.tensor([len(rows)], device=rows.device))[:, 0].tolist()
    padded = rows.new_zeros((max(counts), *rows.shape[1:]))
    padded[: len(rows)] = rows
    return torch.cat([part[:n] for part, n in zip(all_gather(padded), counts, strict=True)])


def broadcast_object(value: T) -> T:
    """Rank 0's ``value`` on every rank (pickled: between ranks of one job only)."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def from_main(find: Callable[[], T]) -> T:
    """What ``find`` gives on rank 0, on every rank; so is an OSError or ValueError that it raises there."""
    found: tuple[T | None, Exception | None] = None, None
    if is_main():
        try:
            found = find(), None
        except (OSError, ValueError) as error:
            found = None, error
    result, refused = broadcast_object(found)
    if refused is not None:
        raise refused
    return result  # type: ignore[return-value]


def on_all_ranks(find: Callable[[], T]) -> T:
    """What ``find`` gives here. An OSError or ValueError of any rank ends all: the others name its host.

    For what each host finds for itself: where one lacks a file, the others would wait for it in vain.
    """
    found: T | None = None
    refused: Exception | None = None
    try:
        found = find()
    except (OSError, ValueError) as error:
        refused = error
    said = None if refused is None else f"On {socket.gethostname()}: {refused}"
    said_by_others = [sentence for sentence in gather_objects(said) if sentence]
    if refused is not None:
        raise refused
    if said_by_others:
        raise ElsewhereError(said_by_others[0])
    return found  # type: ignore[return-value]


def gather_objects(value: T, group: dist.ProcessGroup | None = None) -> list[T]:
    """Every rank's ``value`` on every rank (pickled: between ranks of one job only)."""
    if world_size() == 1:
        return [value]
    values: list[T] = [value] * world_size()
    dist.all_gather_object(values, value, group=group)
    return values
