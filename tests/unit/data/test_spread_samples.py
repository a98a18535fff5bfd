"""Samples spread over a split, against a list of all of them."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from dist_dsvae.data.plan import SpreadSamples


def slowly_taken(sizes: list[int], limit: int | None, max_shards: int | None) -> list[tuple[int, int, int]]:
    """(shard, row, place) of each sample that ``one_pass`` reads, from a list of all."""
    every = [(shard, row) for shard, size in enumerate(sizes) for row in range(size)]
    taken = list(range(len(every)))
    if max_shards is not None and max_shards < len(sizes):
        read = set(np.linspace(0, len(sizes) - 1, max_shards).astype(int).tolist())
        taken = [place for place in taken if every[place][0] in read]
    if limit is not None and limit < len(taken):
        taken = [taken[i] for i in np.linspace(0, len(taken) - 1, limit).astype(int)]
    return [(*every[place], place) for place in taken]


@pytest.mark.parametrize("sizes", [[5], [3, 4, 2, 6, 1], [0, 3, 0, 0, 2, 0], [0]])
@pytest.mark.parametrize("limit", [None, 1, 4, 100])
@pytest.mark.parametrize("max_shards", [None, 1, 3])
def test_what_one_pass_takes(sizes: list[int], limit: int | None, max_shards: int | None) -> None:
    taken = SpreadSamples(np.array(sizes), limit, max_shards)
    slow = slowly_taken(sizes, limit, max_shards)
    assert taken.number == len(slow)
    assert taken.shards.tolist() == sorted({shard for shard, _, _ in slow})
    for first in range(len(slow)):
        got = zip(*(part.tolist() for part in taken.samples(first, min(first + 2, len(slow)))), strict=True)
        assert list(got) == slow[first : first + 2]


def test_one_pass_over_few_of_a_large_split_has_no_number_for_every_sample() -> None:
    tracemalloc.start()
    taken = SpreadSamples(np.full(1_000, 100_000), 1_024, 16)
    assert len(taken.samples(0, 64)[0]) == 64
    assert tracemalloc.get_traced_memory()[1] < 2**20  # 8 bytes for each of the 100 million were 800 MB
    tracemalloc.stop()
