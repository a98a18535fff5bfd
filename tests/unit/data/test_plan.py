"""Laws 1 and 2: the order is a pure function of (seed, position, manifest); nothing lost or repeated."""

from __future__ import annotations

import time

import numpy as np
import pytest

from dist_dsvae.data.plan import Plan
from dist_dsvae.data.stream import Slice, planned_batches

COUNTS = [5, 7, 1, 12, 3, 9, 4]  # 41 samples, a prime, in uneven shards
N = sum(COUNTS)


def walk(plan: Plan, start: int, stop: int) -> list[tuple[int, int]]:
    shards, rows = plan.samples(start, stop)
    return list(zip(shards.tolist(), rows.tolist(), strict=True))


@pytest.mark.parametrize("window", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_every_sample_exactly_once_per_epoch(window: int, epoch: int) -> None:
    samples = walk(Plan(COUNTS, 3, window), epoch * N, (epoch + 1) * N)
    assert sorted(samples) == [(s, r) for s, count in enumerate(COUNTS) for r in range(count)]


def test_position_decides_not_the_way_there() -> None:
    whole = walk(Plan(COUNTS, 3, 2), 0, 3 * N)
    for start in range(0, 3 * N, 13):
        assert walk(Plan(COUNTS, 3, 2), start, min(start + 29, 3 * N)) == whole[start : start + 29]


def test_epochs_and_seeds_differ() -> None:
    first, second = walk(Plan(COUNTS, 3, 2), 0, N), walk(Plan(COUNTS, 3, 2), N, 2 * N)
    assert first != second
    assert first != walk(Plan(COUNTS, 4, 2), 0, N)


def test_reading_stays_within_a_window() -> None:
    shards, _ = Plan([10] * 20, 0, 4).samples(0, 200)
    for window in range(5):
        assert len(set(shards[window * 40 : (window + 1) * 40].tolist())) == 4


@pytest.mark.parametrize("window_shards", [1, 2, 3, 100])
def test_shards_ahead_are_those_that_are_read_next(window_shards: int) -> None:
    plan = Plan(COUNTS, 3, window_shards)
    windows: dict[tuple[int, int], list[int]] = {}  # over three epochs, the shards of each in their order
    for position, (shard, _) in enumerate(walk(plan, 0, 3 * N)):
        windows.setdefault(plan.window_at(position), []).append(shard)
    keys = list(windows)
    assert keys == sorted(keys)
    for position in range(2 * N):
        here = keys.index(plan.window_at(position))
        ahead = plan.shards_ahead(position, 2)
        assert len(set(ahead)) == len(ahead)
        assert set(ahead) == {shard for key in keys[here : here + 2] for shard in windows[key]}
        assert set(ahead[: len(set(windows[keys[here]]))]) == set(windows[keys[here]])


def test_windows_mix_their_shards() -> None:
    shards, _ = Plan([500] * 8, 0, 8).samples(0, 4000)
    for batch in shards.reshape(-1, 100):
        assert len(set(batch.tolist())) == 8


def test_any_position_costs_the_same() -> None:
    """Law 4: reaching a position in the millionth epoch walks through none of those before it."""
    counts = [2000] * 50

    def seconds(position: int) -> float:
        plan = Plan(counts, 0, 8)
        begin = time.process_time()  # which other programs take nothing of
        plan.samples(position, position + 96)
        return time.process_time() - begin

    seconds(0)
    near = min(seconds(0) for _ in range(5))
    far = min(seconds(10**6 * sum(counts) + 54_321) for _ in range(5))
    assert far < 20 * near + 0.01


def test_no_sample_at_all() -> None:
    with pytest.raises(ValueError, match="no sample"):
        Plan([0, 0], 0, 1)


@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
@pytest.mark.parametrize("start", [0, 12, 36])
def test_ranks_share_each_global_batch(world_size: int, start: int) -> None:
    """Concatenated over ranks, batch k holds positions start + 12 k .. start + 12 k + 11, in order."""
    plan = Plan(COUNTS, 3, 2)
    per_rank = []
    for rank in range(world_size):
        part = Slice(global_batch_size=12, rank=rank, world_size=world_size)
        batches = planned_batches(np.array(COUNTS), 2, 3, part, start)
        per_rank.append([next(batches) for _ in range(8)])
    for k in range(8):
        first = start + 12 * k
        positions = np.concatenate([batches[k].positions for batches in per_rank])
        assert positions.tolist() == list(range(first, first + 12))
        shards = np.concatenate([batches[k].shards for batches in per_rank])
        assert shards.tolist() == plan.samples(first, first + 12)[0].tolist()


def test_a_batch_that_cannot_be_shared() -> None:
    with pytest.raises(ValueError, match=r"data\.batch_size is 10, which 3 processes cannot share evenly"):
        Slice(global_batch_size=10, rank=0, world_size=3)
