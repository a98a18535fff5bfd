"""Resident: the whole split decoded once into one uint8 tensor on the device, then gathered by index.

    shards --read, decode once--> images [N, H, W, C], labels [N] on the device
    plan   --places of a batch--> gather on the device ---------------------> images, labels

The plan is that of ``stream``, so batches are bit for bit the same; what differs is that nothing is
decoded twice and nothing crosses to the device but indices. FaceScrub at 64x64 takes 1.1 GB.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import psutil
import torch
from torch import Tensor

from dist_dsvae.config import DataConfig
from dist_dsvae.core import distributed
from dist_dsvae.core.errors import CorruptSampleError, DataError
from dist_dsvae.data.decode import empty_batch
from dist_dsvae.data.plan import IntArray
from dist_dsvae.data.reader import ShardReader
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.stream import (
    SHARDS_AHEAD,
    Inputs,
    PlannedBatch,
    Slice,
    not_replaced,
    planned_batches,
    read_one,
    replacements,
)

logger = logging.getLogger(__name__)

_USABLE_SHARE = 0.6  # of the free memory: networks and activations want the rest


class ResidentData:
    """A split in the device's memory.

    Raises DataError if it does not fit, or at a corrupt sample unless the policy is to replace it.
    """

    def __init__(self, manifest: Manifest, config: DataConfig, seed: int, device: torch.device) -> None:
        _check_it_fits(manifest, device)
        self.manifest = manifest
        self.config = config
        self.seed = seed
        counts = manifest.num_samples_per_shard
        self._first_of_shard = np.cumsum(counts) - counts
        decoded = empty_batch(manifest.shape, manifest.num_samples)
        labels = np.zeros(manifest.num_samples, np.int64)
        self._corrupt: set[int] = set()
        with closing(ShardReader(manifest, max_open_shards=1)) as reader:
            for shard, first in enumerate(self._first_of_shard.tolist()):
                reader.expect(range(shard, min(shard + SHARDS_AHEAD, len(counts))))
                for row in range(int(counts[shard])):
                    try:
                        labels[first + row] = read_one(reader, shard, row, decoded[first + row])
                    except CorruptSampleError as error:
                        if not config.replaces_corrupt:
                            raise
                        logger.warning("will replace a corrupt sample: %s", error)
                        self._corrupt.add(first + row)
        self.images = torch.from_numpy(decoded).to(device)
        self.labels = torch.from_numpy(labels).to(device)

    def batches(self, part: Slice, start_position: int) -> Iterator[Inputs]:
        """Endless (places, positions) [B] from ``start_position`` on, in the host's memory.

        Where ``stream`` would yield a sample, this yields its place in ``images`` and ``labels``.
        """
        counts, window = self.manifest.num_samples_per_shard, self.config.window_shards
        for batch in planned_batches(counts, window, self.seed, part, start_position):
            places = self._first_of_shard[batch.shards] + batch.rows
            num_replaced = self._replace_corrupt(places, batch)
            yield Inputs((torch.from_numpy(places), torch.from_numpy(batch.positions)), num_replaced)

    def gather(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, H, W, C] and labels [B] at ``places`` [B], on the device."""
        return self.images[places], self.labels[places]

    def _replace_corrupt(self, places: IntArray, batch: PlannedBatch) -> int:
        """Exchange corrupt places for those that ``stream`` would take, in place; how many."""
        if not self._corrupt:
            return 0
        corrupt = [i for i, place in enumerate(places.tolist()) if place in self._corrupt]
        for i in corrupt:
            position, shard, row = int(batch.positions[i]), int(batch.shards[i]), int(batch.rows[i])
            others = replacements(self.manifest, self.seed, position, shard, row)
            numbers = [int(self._first_of_shard[shard_]) + row_ for shard_, row_ in others]
            sound = [number for number in numbers if number not in self._corrupt]
            if not sound:
                raise not_replaced(self.manifest, shard, len(others))
            places[i] = sound[0]
        return len(corrupt)


def needed_bytes(manifest: Manifest) -> int:
    """Memory for the decoded split: a byte per image value, four per coordinate, eight per label."""
    bytes_per_value = 1 if manifest.shape.is_image else 4
    return manifest.num_samples * (manifest.shape.num_values * bytes_per_value + 8)


def _check_it_fits(manifest: Manifest, device: torch.device) -> None:
    """The set is decoded in the host's memory by every rank of the machine, then lies on the device.

    Called by all ranks, which measure before any of them allocates. Raises DataError on all or none.
    """
    local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    free = {"this machine": psutil.virtual_memory().available // local_ranks}
    if device.type == "cuda":
        free["the GPU"] = torch.cuda.mem_get_info(device)[0]
    for found in distributed.gather_objects(_what_is_missing(manifest, free)):
        if found is not None:
            raise DataError(found)


def _what_is_missing(manifest: Manifest, free: dict[str, int]) -> str | None:
    needed = needed_bytes(manifest)
    for place, available in free.items():
        if needed > _USABLE_SHARE * available:
            return (
                f'data.source is "resident", but {manifest.location} decoded takes {needed / 2**30:.1f} GiB '
                f"and {place} has {available / 2**30:.1f} GiB free for each process, of which "
                f'{_USABLE_SHARE:.0%} may be used. Set data.source to "stream".'
            )
    return None
