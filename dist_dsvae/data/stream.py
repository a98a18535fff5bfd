"""Stream: the planned samples, read from tar shards and decoded, batch by batch, from any position.

    planned_batches   positions of this worker's next batch, from the plan       -> PlannedBatch
    read_and_decode   bytes by offset from the tars, decoded into one array      -> HostBatch
                      (shards from afar are fetched a window of the plan ahead)
    (device)          feed.Feed.to_batch: normalise, flip, convert              -> types.Batch

The first two stages form a ``webdataset.DataPipeline``, which a DataLoader runs in worker
processes. Worker w of W makes batches w, w + W, w + 2W, ...; the DataLoader takes from its workers
in turn, so their number never changes the order.
"""

from __future__ import annotations

import functools
import itertools
import logging
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info
from webdataset.pipeline import DataPipeline

from dist_dsvae.config import DataConfig
from dist_dsvae.core.errors import CorruptSampleError, DataError
from dist_dsvae.core.noise import Draw, hash_words
from dist_dsvae.core.text import clause
from dist_dsvae.data.decode import Array, BatchBuffers, decode_into, empty_batch
from dist_dsvae.data.plan import IntArray, Plan, SpreadSamples
from dist_dsvae.data.reader import ShardReader
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.workers import leave_signals_to_the_trainer, worker_failed

logger = logging.getLogger(__name__)

_REPLACEMENT_TRIES = 16
_WINDOWS_AHEAD = 2  # the window being read and the one after it
SHARDS_AHEAD = 4  # in one pass through the shards in their order


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """Which part of every global batch belongs to this rank."""

    global_batch_size: int
    rank: int
    world_size: int

    def __post_init__(self) -> None:
        if self.global_batch_size % self.world_size:
            raise DataError(
                f"data.batch_size is {self.global_batch_size}, which {self.world_size} processes cannot "
                f"share evenly. Make it a multiple of {self.world_size} or change the number of processes."
            )

    @property
    def batch_size(self) -> int:
        return self.global_batch_size // self.world_size

    def first_position(self, batch_number: int) -> int:
        """Position of this rank's first sample in the batch_number-th global batch, counted from 0."""
        return batch_number * self.global_batch_size + self.rank * self.batch_size


class PlannedBatch(NamedTuple):
    """coming_shards: those of this window of the plan and the next; None while the window stays the same."""

    positions: IntArray
    shards: IntArray
    rows: IntArray
    coming_shards: list[int] | None


class HostBatch(NamedTuple):
    """One rank's batch as it leaves the reader.

    images: uint8 [B, H, W, C], or float32 [B, C] for points. labels, positions: int64 [B].
    num_replaced: corrupt samples in whose place another one stands.
    """

    images: Tensor
    labels: Tensor
    positions: Tensor
    num_replaced: int


class Inputs(NamedTuple):
    """One rank's batch as an iteration takes it: tensors that ``feed.Feed.to_batch`` understands."""

    tensors: tuple[Tensor, ...]
    num_replaced: int


class _Failure(NamedTuple):
    """A DataError on its way from a worker process: its sentence without the worker's traceback."""

    message: str


def planned_batches(
    samples_per_shard: IntArray, window_shards: int, seed: int, part: Slice, start_position: int
) -> Iterator[PlannedBatch]:
    """Source stage: this worker's batches from ``start_position`` on, without end."""
    plan = Plan(samples_per_shard, seed, window_shards)
    worker = get_worker_info()
    number, stride = (worker.id, worker.num_workers) if worker else (0, 1)
    window: tuple[int, int] | None = None
    while True:
        first = start_position + part.first_position(number)
        shards, rows = plan.samples(first, first + part.batch_size)
        before, window = window, plan.window_at(first)
        coming = plan.shards_ahead(first, _WINDOWS_AHEAD) if window != before else None
        yield PlannedBatch(np.arange(first, first + part.batch_size), shards, rows, coming)
        number += stride


def read_and_decode(
    manifest: Manifest, config: DataConfig, seed: int, batches: Iterator[PlannedBatch]
) -> Iterator[HostBatch | _Failure]:
    """Second stage: bytes from the tars, decoded in place."""
    replace = config.replaces_corrupt
    buffers: BatchBuffers | None = None
    with closing(ShardReader(manifest, max_open_shards=config.window_shards)) as reader:
        for batch in batches:
            buffers = buffers or BatchBuffers(manifest.shape, len(batch.positions))
            images = buffers.take()
            try:
                if batch.coming_shards is not None:
                    reader.expect(batch.coming_shards)
                labels, num_replaced = _read_batch(reader, batch, images, seed if replace else None)
            except DataError as error:
                yield _Failure(str(error))
                return
            positions = torch.from_numpy(batch.positions)
            yield HostBatch(torch.from_numpy(images), torch.from_numpy(labels), positions, num_replaced)


def _read_batch(
    reader: ShardReader, batch: PlannedBatch, images: Array, replacement_seed: int | None
) -> tuple[IntArray, int]:
    """Decode a batch into ``images``; its labels, and how many corrupt samples were replaced.

    replacement_seed: chooses what stands in for a corrupt sample; None raises DataError at one.
    """
    labels = np.empty(len(batch.positions), np.int64)
    num_replaced = 0
    places = zip(batch.positions.tolist(), batch.shards.tolist(), batch.rows.tolist(), strict=True)
    for i, (position, shard, row) in enumerate(places):
        try:
            labels[i] = read_one(reader, shard, row, images[i])
        except CorruptSampleError as error:
            if replacement_seed is None:
                raise DataError(
                    f'{error} Set data.corrupt_sample to "replace" to go on without such samples.'
                ) from None
            logger.warning("replaced a corrupt sample: %s", error)
            labels[i] = _read_replacement(reader, replacement_seed, position, (shard, row), images[i])
            num_replaced += 1
    return labels, num_replaced


def read_one(reader: ShardReader, shard: int, row: int, out: Array) -> int:
    """Decode one sample into ``out``; its label.

    Raises CorruptSampleError naming shard and key, and DataError where its whole shard cannot be had.
    """
    data, label = reader.read(shard, row)
    try:
        decode_into(data, out)
    except DataError as error:
        raise CorruptSampleError(f"{reader.describe(shard, row)} is corrupt: {clause(error)}.") from None
    return label


def _read_replacement(
    reader: ShardReader, seed: int, position: int, corrupt: tuple[int, int], out: Array
) -> int:
    """Another sample in place of a corrupt one; its label."""
    places = replacements(reader.manifest, seed, position, *corrupt)
    for shard, row in places:
        try:
            return read_one(reader, shard, row, out)
        except CorruptSampleError:
            continue
    raise not_replaced(reader.manifest, corrupt[0], len(places))


def replacements(manifest: Manifest, seed: int, position: int, shard: int, row: int) -> list[tuple[int, int]]:
    """(shard, row) of samples to try, each once, instead of a corrupt one.

    They are of its shard, or of all where it is alone in that: a function of (seed, position), the same on
    every machine.
    """
    counts = manifest.num_samples_per_shard
    pool = np.arange(len(counts)) if counts[shard] == 1 else np.array([shard])
    ends = np.cumsum(counts[pool])
    numbers = hash_words(seed, Draw.REPLACEMENT, position, torch.arange(_REPLACEMENT_TRIES)) % int(ends[-1])
    every = range(ends[-1]) if ends[-1] <= _REPLACEMENT_TRIES else ()  # of a few, chance may leave some out
    tried = np.array([*numbers.tolist(), *every])
    places = np.searchsorted(ends, tried, side="right")
    rows = tried - (ends - counts[pool])[places]
    found = dict.fromkeys(zip(pool[places].tolist(), rows.tolist(), strict=True))
    return [place for place in found if place != (shard, row)]


def not_replaced(manifest: Manifest, shard: int, num_tried: int) -> DataError:
    tried = f"{num_tried} others that were tried are" if num_tried > 1 else "the only other one is"
    why = f"{tried} corrupt as well: this is not a stray file" if num_tried else "there is no other"
    return DataError(
        f"A corrupt sample of {manifest.shards[shard].file} in {manifest.location} cannot be replaced: "
        f"{why}. Build the shards again."
    )


def stream(
    manifest: Manifest,
    config: DataConfig,
    seed: int,
    part: Slice,
    *,
    start_position: int = 0,
    pin_memory: bool = False,
) -> Iterator[HostBatch]:
    """Endless batches from ``start_position`` on, read ahead by worker processes.

    Raises DataError (shard and sample named) at a corrupt sample, unless the policy is to replace.
    """
    counts, window = manifest.num_samples_per_shard, config.window_shards
    stages = DataPipeline(  # which can be sent to worker processes
        functools.partial(planned_batches, counts, window, seed, part, start_position),
        functools.partial(read_and_decode, manifest, config, seed),
    )
    with warnings.catch_warnings():
        # Readers wait for disks and networks: more of them than cores is nobody's mistake.
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        loader: DataLoader[HostBatch] = DataLoader(
            stages,
            batch_size=None,
            num_workers=config.num_workers,
            pin_memory=pin_memory,
            prefetch_factor=4 if config.num_workers else None,
            timeout=config.worker_timeout_seconds if config.num_workers else 0,
            worker_init_fn=leave_signals_to_the_trainer,
        )
    batches = iter(loader)
    for number in itertools.count():
        try:
            batch = next(batches)
        except RuntimeError as error:  # all that the DataLoader says of a worker
            raise worker_failed(error, number % (config.num_workers or 1), config, part.rank) from error
        if isinstance(batch, _Failure):
            raise DataError(batch.message)
        yield batch


def one_pass(
    manifest: Manifest,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    *,
    first_batch: int = 0,
    limit: int | None = None,
    max_shards: int | None = None,
    skip_corrupt: bool = False,
) -> Iterator[HostBatch]:
    """Every sample of a split once, in the order of the shards, for evaluation.

    Rank r yields batches first_batch + r, first_batch + r + world_size, ...; the last batch may be short,
    and a rank may get none.
    limit: take only this many samples, evenly spread over the split.
    max_shards: read only this many shards, evenly spread likewise.
    skip_corrupt: leave corrupt samples out (each is logged) instead of raising DataError.
    """
    taken = SpreadSamples(manifest.num_samples_per_shard, limit, max_shards)
    visited, reached = taken.shards, -1
    with closing(ShardReader(manifest, max_open_shards=2)) as reader:
        for first in range((first_batch + rank) * batch_size, taken.number, batch_size * world_size):
            shards, rows, chosen = taken.samples(first, min(first + batch_size, taken.number))
            if shards[0] != reached:
                reached = int(shards[0])
                coming = int(np.searchsorted(visited, reached))
                reader.expect(visited[coming : coming + SHARDS_AHEAD].tolist())
            images = empty_batch(manifest.shape, len(chosen))
            labels: list[int] = []
            kept: list[int] = []
            for i, (shard, row) in enumerate(zip(shards.tolist(), rows.tolist(), strict=True)):
                try:
                    labels.append(read_one(reader, shard, row, images[len(kept)]))
                    kept.append(i)
                except CorruptSampleError as error:
                    if not skip_corrupt:
                        raise
                    logger.warning("left out a corrupt sample: %s", error)
            yield HostBatch(
                torch.from_numpy(images[: len(kept)]),
                torch.tensor(labels, dtype=torch.int64),
                torch.from_numpy(chosen[kept]),
                0,
            )
