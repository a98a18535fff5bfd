"""How many classes a batch sees: whether the shuffle window mixes the shards' classes, by their indexes.

Shards that another tool wrote often hold their samples in order of classes. A window of such shards, however
well permuted, has the classes of its own shards alone.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from dist_dsvae.config.fields import WINDOW_SHARDS
from dist_dsvae.core.noise import Draw, permutation
from dist_dsvae.data.shards.manifest import UNLABELLED, Manifest

_LOOKED_AT = 256  # shards, at most; also the largest window that is chosen
MOST_WINDOW_BYTES = 2**30  # of the uncompressed shards of a window, which every reader may hold
_MIXED_SHARE = 0.9  # of the classes that a batch of a mixed set would see: as good as mixed
_ORDERED_SHARE = 0.5  # below that the order of the classes is felt


class Mixing(NamedTuple):
    """window_shards: the one measured. classes, classes_if_mixed: that a batch sees, expected.

    enough_shards: the smallest window, of 8, 16, ... 256, that mixes as good as all; None if none does.
    """

    window_shards: int
    classes: float
    classes_if_mixed: float
    enough_shards: int | None

    @property
    def is_ordered(self) -> bool:
        return self.classes < _ORDERED_SHARE * self.classes_if_mixed


def measure_mixing(split: Manifest, batch_size: int, window_shards: int | None) -> Mixing:
    """Of a split under a window; None chooses one. A function of its arguments, cheap for any split."""
    count = len(split.shards)
    order = permutation(count, 0, Draw.SHARD_ORDER).numpy()[:_LOOKED_AT].tolist()
    indexes = [np.asarray(split.index(shard)) for shard in order]
    labels = [index[:, 2] for index in indexes]
    unpacked = np.mean([int((index[:, 0] + index[:, 1]).max(initial=0)) for index in indexes])
    fewest = math.ceil(batch_size / max(1.0, float(np.mean([len(own) for own in labels]))))
    if_mixed = _classes_in_batch(np.asarray(split.samples_per_class, dtype=np.float64), batch_size)

    def seen(window: int) -> float:
        """Averaged over as many windows (or batches, where these are larger) as were looked at."""
        window = max(window, fewest)
        if window >= count:
            return if_mixed
        groups = [labels[i : i + window] for i in range(0, len(labels) - window + 1, window)] or [labels]
        counts = [np.unique(np.concatenate(group), return_counts=True)[1] for group in groups]
        return float(np.mean([_classes_in_batch(own.astype(np.float64), batch_size) for own in counts]))

    sizes = [WINDOW_SHARDS]
    while sizes[-1] < min(count, _LOOKED_AT):
        sizes.append(2 * sizes[-1])
    enough = next((size for size in sizes if seen(size) >= _MIXED_SHARE * if_mixed), None)
    if window_shards is None:
        useful = [size for size in sizes if size <= (enough or size)]
        window_shards = max([s for s in useful if s * unpacked <= MOST_WINDOW_BYTES], default=WINDOW_SHARDS)
    return Mixing(window_shards, seen(window_shards), if_mixed, enough)


def warning_about(split: Manifest, batch_size: int, mixing: Mixing) -> str | None:
    """A sentence with the remedy if batches see few classes because the shards hold them in order."""
    if split.classes == UNLABELLED or not mixing.is_ordered:
        return None
    larger = mixing.enough_shards is not None and mixing.enough_shards > mixing.window_shards
    enough = f", or set data.shuffle_window_shards to {mixing.enough_shards}" if larger else ""
    return (
        f"The shards of {split.location} hold their samples in order of classes: a batch of {batch_size} "
        f"from {mixing.window_shards} shards sees about {mixing.classes:.0f} of {split.num_classes} classes, "
        f"one of mixed samples {mixing.classes_if_mixed:.0f}. The losses and batch norm suffer from that. "
        f"Write the shards again from a shuffled list of the samples, as `dsvae build` does{enough}."
    )


def _classes_in_batch(counts: npt.NDArray[np.float64], batch_size: int) -> float:
    """How many different classes so many samples have on average, drawn from ``counts`` of each class.

    A class of n_c of all n samples is missing from a batch of B with probability C(n - n_c, B) / C(n, B).
    """
    total = counts.sum()
    batch = min(float(batch_size), total)
    others = total - counts
    possible = others >= batch
    missing = np.exp(_log_choose(others[possible], batch) - _log_choose(np.array([total]), batch))
    return float((counts > 0).sum() - missing[counts[possible] > 0].sum())


def _log_choose(of: npt.NDArray[np.float64], number: float) -> npt.NDArray[np.float64]:
    of_ = torch.from_numpy(of)
    log = torch.lgamma(of_ + 1) - torch.lgamma(of_ - number + 1) - math.lgamma(number + 1)
    return log.numpy()
