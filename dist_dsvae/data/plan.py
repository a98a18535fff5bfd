"""Plan: which sample stands at which position, as a pure function of (seed, position, shard sizes).

Epochs are concatenated: position p is sample p mod N of epoch p div N, so batches may straddle two
epochs and no sample is dropped. Within an epoch

    shards  --permuted-->  shards  --cut into windows of W-->  samples of a window, permuted

so each sample comes exactly once, reading stays within W shards at a time, and any position is
found without walking to it: the cost is that of one window's permutation. Ranks and workers do not
occur here; they only choose which positions they ask for.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dist_dsvae.core.noise import Draw, permutation

IntArray = npt.NDArray[np.int64]


class Plan:
    """The endless order of a data set's samples.

    samples_per_shard: number of samples of each shard, in the manifest's order.
    window_shards: samples are permuted within this many neighbouring permuted shards.
    """

    def __init__(self, samples_per_shard: Sequence[int] | IntArray, seed: int, window_shards: int) -> None:
        self.samples_per_shard = np.asarray(samples_per_shard, dtype=np.int64)
        self.num_samples = int(self.samples_per_shard.sum())
        if self.num_samples == 0:
            raise ValueError("The shards hold no sample at all; there is nothing to train on.")
        self.seed = seed
        self.window_shards = window_shards
        # A worker reads forward, so the current epoch and window (and the next) are all it needs.
        self._epoch = functools.lru_cache(maxsize=2)(self._compute_epoch)
        self._window = functools.lru_cache(maxsize=2)(self._compute_window)

    def samples(self, start: int, stop: int) -> tuple[IntArray, IntArray]:
        """(shard number, row in the shard) of positions start..stop-1, int64 [stop - start] each."""
        shards, rows = [], []
        position = start
        while position < stop:
            epoch, window, first = self._locate(position)
            window_shards, window_rows = self._window(epoch, window)
            taken = slice(first, first + stop - position)
            shards.append(window_shards[taken])
            rows.append(window_rows[taken])
            position += len(shards[-1])
        return np.concatenate(shards), np.concatenate(rows)

    def window_at(self, position: int) -> tuple[int, int]:
        """(epoch, number of the window in it) of a position."""
        return self._locate(position)[:2]

    def shards_ahead(self, position: int, num_windows: int) -> list[int]:
        """The shards of the window at ``position`` and of those after it, each once, in that order."""
        epoch, window = self.window_at(position)
        shards: list[int] = []
        for _ in range(num_windows):
            order, ends = self._epoch(epoch)
            shards += self._shards_of(order, window).tolist()
            epoch, window = (epoch, window + 1) if window + 1 < len(ends) else (epoch + 1, 0)
        return list(dict.fromkeys(shards))

    def _locate(self, position: int) -> tuple[int, int, int]:
        """(epoch, window, place in the window) of a position."""
        epoch, offset = divmod(position, self.num_samples)
        ends = self._epoch(epoch)[1]
        window = int(np.searchsorted(ends, offset, side="right"))
        return epoch, window, offset - (int(ends[window - 1]) if window else 0)

    def _shards_of(self, order: IntArray, window: int) -> IntArray:
        return order[window * self.window_shards : (window + 1) * self.window_shards]

    def _compute_epoch(self, epoch: int) -> tuple[IntArray, IntArray]:
        """The epoch's order of shards, and the offset at which each of its windows ends."""
        order = permutation(len(self.samples_per_shard), self.seed, Draw.SHARD_ORDER, epoch).numpy()
        counts = self.samples_per_shard[order]
        starts = np.arange(0, len(counts), self.window_shards)
        return order, np.cumsum(np.add.reduceat(counts, starts))

    def _compute_window(self, epoch: int, window: int) -> tuple[IntArray, IntArray]:
        shards = self._shards_of(self._epoch(epoch)[0], window)
        counts = self.samples_per_shard[shards]
        shard_of = np.repeat(shards, counts)
        row_of = np.concatenate([np.arange(count) for count in counts])
        order = permutation(len(shard_of), self.seed, Draw.WINDOW_ORDER, epoch, window).numpy()
        return shard_of[order], row_of[order]


def located(ends: IntArray, places: IntArray) -> tuple[IntArray, IntArray]:
    """Shards, and rows in them, of places counted through all shards; ends: of their sizes, cumulated."""
    shards = np.searchsorted(ends, places, side="right")
    return shards, places - np.where(shards > 0, ends[shards - 1], 0)


class SpreadSamples:
    """Samples of shards of these sizes; all, or at most ``limit``, of at most ``max_shards``, evenly spread.

    number: of samples. shards: that hold any of them, ascending.
    """

    def __init__(self, sizes: IntArray, limit: int | None, max_shards: int | None) -> None:
        chosen = np.arange(len(sizes))
        if max_shards is not None and max_shards < len(sizes):
            chosen = np.unique(np.linspace(0, len(sizes) - 1, max_shards).astype(np.int64))
        self._chosen, self._first = chosen, np.cumsum(sizes) - sizes
        self._ends = np.cumsum(sizes[chosen])  # of the chosen shards, counted through them alone
        total = int(self._ends[-1]) if len(chosen) else 0
        self._spread: IntArray | None = None
        if limit is not None and limit < total:
            self._spread = np.linspace(0, total - 1, limit).astype(np.int64)
        self.number = total if self._spread is None else len(self._spread)
        holding = chosen[sizes[chosen] > 0]
        self.shards = holding if self._spread is None else np.unique(self.samples(0, self.number)[0])

    def samples(self, first: int, last: int) -> tuple[IntArray, IntArray, IntArray]:
        """Shards, rows in them and places in the split of the first-th sample until before the last-th."""
        through = np.arange(first, last) if self._spread is None else self._spread[first:last]
        which, rows = located(self._ends, through)
        shards = self._chosen[which]
        return shards, rows, self._first[shards] + rows
