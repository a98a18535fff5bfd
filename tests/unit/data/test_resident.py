"""Resident data: the stream's batches bit for bit, from memory."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from dist_dsvae.config import DataConfig
from dist_dsvae.core.errors import DataError
from dist_dsvae.data.resident import ResidentData, needed_bytes
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.stream import HostBatch, Slice
from tests.unit.data.test_stream import COUNTS, damage, take, write_shards

CPU = torch.device("cpu")


def take_resident(
    manifest: Manifest, count: int, *, start: int = 0, policy: str = "raise"
) -> list[HostBatch]:
    config = DataConfig(train="", shuffle_window_shards=2, corrupt_sample=policy)
    part = Slice(global_batch_size=6, rank=0, world_size=1)
    resident = ResidentData(manifest, config, 11, CPU)
    batches = resident.batches(part, start)
    taken = []
    for (places, positions), num_replaced in itertools.islice(batches, count):
        taken.append(HostBatch(*resident.gather(places), positions, num_replaced))
    return taken


def assert_equal(got: list[HostBatch], expected: list[HostBatch]) -> None:
    for ours, theirs in zip(got, expected, strict=True):
        for a, b in zip(ours[:3], theirs[:3], strict=True):
            assert torch.equal(a, b)
        assert ours.num_replaced == theirs.num_replaced


def test_batches_equal_the_streams(tmp_path: Path) -> None:
    manifest = write_shards(tmp_path / "train")
    assert_equal(take_resident(manifest, 12), take(manifest, 12))
    assert_equal(take_resident(manifest, 5, start=42), take(manifest, 5, start_position=42))


def test_corrupt_samples_are_replaced_as_in_the_stream(tmp_path: Path) -> None:
    manifest = write_shards(tmp_path / "train")
    damage(manifest, 1, 3)
    damage(manifest, 2, 0)
    expected = take(manifest, 12, corrupt_sample="replace")
    assert sum(batch.num_replaced for batch in expected) > 2
    assert_equal(take_resident(manifest, 12, policy="replace"), expected)


def test_a_corrupt_sample_alone_in_its_shard_is_replaced_as_in_the_stream(tmp_path: Path) -> None:
    manifest = write_shards(tmp_path / "train", counts=(3, 1, 2))
    damage(manifest, 1, 0)
    assert_equal(take_resident(manifest, 6, policy="replace"), take(manifest, 6, corrupt_sample="replace"))


def test_corrupt_samples_raise_by_default(tmp_path: Path) -> None:
    manifest = write_shards(tmp_path / "train")
    key = damage(manifest, 1, 3)
    with pytest.raises(DataError, match=f"Sample {key} of .*000001.tar is corrupt"):
        take_resident(manifest, 1)


def test_a_wholly_corrupt_shard(tmp_path: Path) -> None:
    manifest = write_shards(tmp_path / "train")
    for row in range(COUNTS[1]):
        damage(manifest, 1, row)
    with pytest.raises(DataError, match="this is not a stray file"):
        take_resident(manifest, 4, policy="replace")


def test_what_does_not_fit_gets_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write_shards(tmp_path / "train")
    assert needed_bytes(manifest) == 21 * (8 * 8 * 3 + 8)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=5000))
    with pytest.raises(DataError, match=r'0\.0 GiB free for each .* Set data\.source to "stream"'):
        take_resident(manifest, 1)
