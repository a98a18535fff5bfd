"""Single samples of a split, found by the labels in its indexes: nothing else is decoded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing

import numpy as np
import torch
from torch import Tensor

from dist_dsvae.core.errors import CorruptSampleError
from dist_dsvae.data.decode import empty_batch
from dist_dsvae.data.plan import located
from dist_dsvae.data.reader import ShardReader
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.stream import read_one


def read_samples(split: Manifest, places: Sequence[int]) -> Tensor:
    """Samples by their number in the order of the shards: uint8 [N, C, H, W]."""
    shards, rows = located(np.cumsum(split.num_samples_per_shard), np.asarray(places, dtype=np.int64))
    images = empty_batch(split.shape, len(places))
    with closing(ShardReader(split, max_open_shards=2)) as reader:
        for i, (shard, row) in enumerate(zip(shards.tolist(), rows.tolist(), strict=True)):
            reader.expect([shard])
            read_one(reader, shard, row, images[i])
    return torch.from_numpy(images).movedim(-1, 1)


def first_of_classes(
    split: Manifest, classes: Iterable[int], per_class: int = 1, *, skip_corrupt: bool
) -> dict[int, Tensor]:
    """The split's first ``per_class`` images of each class, uint8 [N, C, H, W]: fewer where it has fewer.

    Classes without any are left out.
    skip_corrupt: take the next one where one cannot be decoded; otherwise raises CorruptSampleError.
    """
    missing = {label: min(per_class, split.samples_per_class[label]) for label in classes}
    found: dict[int, list[Tensor]] = {}
    with closing(ShardReader(split, max_open_shards=1)) as reader:
        for shard in range(len(split.shards)):
            missing = {label: count for label, count in missing.items() if count}
            if not missing:
                break
            labels = np.asarray(split.index(shard)[:, 2])
            for row in np.flatnonzero(np.isin(labels, list(missing))).tolist():
                label = int(labels[row])
                if not missing[label]:
                    continue  # found in this shard
                image = empty_batch(split.shape, 1)
                try:
                    read_one(reader, shard, row, image[0])
                except CorruptSampleError:
                    if not skip_corrupt:
                        raise
                else:
                    found.setdefault(label, []).append(torch.from_numpy(image).movedim(-1, 1))
                    missing[label] -= 1
    return {label: torch.cat(images) for label, images in found.items()}
