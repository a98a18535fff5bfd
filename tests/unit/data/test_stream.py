"""The stream: decoded batches equal to the files, in the plan's order, for any workers; corrupt input."""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest
import simplejpeg
import torch
import webdataset
from PIL import Image

from dist_dsvae.building.indexing import index
from dist_dsvae.config import DataConfig
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.noise import Noise
from dist_dsvae.data import stream as stream_module
from dist_dsvae.data.decode import Array, BatchBuffers
from dist_dsvae.data.plan import Plan
from dist_dsvae.data.reader import ShardReader
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.stream import HostBatch, Slice, one_pass, replacements, stream
from dist_dsvae.data.transforms import normalise, to_batch
from tests.unit.data.making import as_version_1, change_unnoticed

COUNTS = [7, 5, 9]
SIZE = 8


def pixels_of(shard: int, row: int) -> np.ndarray:
    return np.random.default_rng([shard, row]).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def write_shards(
    directory: Path, corrupt: tuple[int, int] | None = None, counts: Sequence[int] = COUNTS
) -> Manifest:
    directory.mkdir()
    for shard, count in enumerate(counts):
        with webdataset.TarWriter(str(directory / f"{shard:06d}.tar")) as writer:
            for row in range(count):
                data = b"<html>not found</html>" if (shard, row) == corrupt else png(pixels_of(shard, row))
                writer.write({"__key__": f"s{shard}r{row}", "png": data, "cls": (shard + row) % 3})
    if corrupt is None:
        index(directory, command="test")
    return Manifest.load(directory)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return write_shards(tmp_path_factory.mktemp("stream") / "train")


def take(manifest: Manifest, count: int, **settings: object) -> list[HostBatch]:
    start = settings.pop("start_position", 0)
    rank, world_size = settings.pop("rank", 0), settings.pop("world_size", 1)
    config = DataConfig(train="", shuffle_window_shards=2, **({"num_workers": 0} | settings))
    part = Slice(global_batch_size=6, rank=rank, world_size=world_size)
    batches = stream(manifest, config, 11, part, start_position=start)
    return [next(batches) for _ in range(count)]


def test_batches_are_the_planned_files(shards: Manifest) -> None:
    plan = Plan(COUNTS, 11, 2)
    for k, batch in enumerate(take(shards, 9)):  # 54 samples: over two and a half epochs
        where = list(zip(*plan.samples(6 * k, 6 * k + 6), strict=True))
        assert batch.positions.tolist() == list(range(6 * k, 6 * k + 6))
        for image, label, (shard, row) in zip(batch.images, batch.labels, where, strict=True):
            assert np.array_equal(image.numpy(), pixels_of(shard, row))
            assert int(label) == (shard + row) % 3


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_and_start_never_change_the_order(shards: Manifest, num_workers: int) -> None:
    expected = take(shards, 12)
    for got, want in zip(take(shards, 12, num_workers=num_workers), expected, strict=True):
        assert torch.equal(got.images, want.images)
    resumed = take(shards, 5, num_workers=num_workers, start_position=42)
    for got, want in zip(resumed, expected[7:], strict=True):
        assert torch.equal(got.images, want.images)
        assert torch.equal(got.positions, want.positions)


def test_ranks_and_workers_cover_an_epoch_exactly_once(shards: Manifest) -> None:
    """3 ranks x 2 workers over 2 epochs of 21 samples (14 batches of 3 x 1 sample, 42 positions)."""
    seen = []
    for rank in range(3):
        for batch in take(shards, 7, rank=rank, world_size=3, num_workers=2):
            seen += [image.numpy().tobytes() for image in batch.images]
    every = [pixels_of(s, r).tobytes() for s, count in enumerate(COUNTS) for r in range(count)]
    assert sorted(seen) == sorted(every * 2)


def test_one_pass_covers_the_split(shards: Manifest) -> None:
    whole = list(one_pass(shards, 4))
    assert sum(len(batch.labels) for batch in whole) == 21
    parts = [len(b.labels) for rank in range(4) for b in one_pass(shards, 4, rank, 4)]
    assert sum(parts) == 21
    assert [len(b.labels) for b in one_pass(shards, 4, limit=10)] == [4, 4, 2]


def damage(manifest: Manifest, shard: int, row: int) -> str:
    """Overwrite one image inside its tar; the sizes stay, so only decoding can notice. Its key."""
    offset, size, _ = manifest.index(shard)[row].tolist()
    path = manifest.directory / manifest.shards[shard].file
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = b"<html>".ljust(size, b"x")
    change_unnoticed(path, bytes(content))
    return f"s{shard}r{row}.png"


def test_one_pass_can_leave_corrupt_samples_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = write_shards(tmp_path / "train")
    key = damage(manifest, 1, 3)
    with pytest.raises(DataError, match=key):
        list(one_pass(manifest, 4))
    with caplog.at_level(logging.WARNING):
        batches = list(one_pass(manifest, 4, skip_corrupt=True))
    assert key in caplog.text
    assert sum(len(batch.labels) for batch in batches) == 20
    for batch in batches:
        assert len(batch.images) == len(batch.labels) == len(batch.positions)
    pixels = {image.numpy().tobytes() for batch in batches for image in batch.images}
    assert len(pixels) == 20
    assert pixels_of(1, 3).tobytes() not in pixels


@pytest.mark.parametrize("num_workers", [0, 1])
def test_corrupt_sample_raises_by_default(tmp_path: Path, num_workers: int) -> None:
    manifest = write_shards(tmp_path / "train")
    key = damage(manifest, 1, 3)
    with pytest.raises(DataError) as caught:
        take(manifest, 4, num_workers=num_workers)
    message = str(caught.value)
    assert key in message
    assert "000001.tar" in message
    assert 'data.corrupt_sample to "replace"' in message
    assert "Traceback" not in message


def test_corrupt_sample_is_replaced_deterministically(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = write_shards(tmp_path / "train")
    clean = take(manifest, 4)
    key = damage(manifest, 1, 3)
    with caplog.at_level(logging.WARNING):
        first = take(manifest, 4, corrupt_sample="replace")
    assert sum(batch.num_replaced for batch in first) == 1
    assert key in caplog.text
    again = take(manifest, 4, corrupt_sample="replace", num_workers=2)
    changed = 0
    for got, other, before in zip(first, again, clean, strict=True):
        assert torch.equal(got.images, other.images)
        assert torch.equal(got.labels, other.labels)
        changed += int((got.images != before.images).flatten(1).any(1).sum())
    assert changed == 1


def test_a_wholly_corrupt_shard_is_not_papered_over(tmp_path: Path) -> None:
    manifest = write_shards(tmp_path / "train")
    for row in range(COUNTS[1]):
        damage(manifest, 1, row)
    with pytest.raises(DataError, match="this is not a stray file"):
        take(manifest, 4, corrupt_sample="replace")


def test_a_corrupt_sample_that_is_alone_in_its_shard(tmp_path: Path) -> None:
    """Another shard's stands in for it, the same for any workers; where there is no other, that is said."""
    manifest = write_shards(tmp_path / "train", counts=(3, 1, 2))
    damage(manifest, 1, 0)
    one, two = (take(manifest, 3, corrupt_sample="replace", num_workers=workers) for workers in (0, 2))
    assert sum(batch.num_replaced for batch in one) == 3
    for batch, same in zip(one, two, strict=True):
        assert torch.equal(batch.images, same.images)
        assert torch.equal(batch.labels, same.labels)
    sound = {pixels_of(s, r).tobytes() for s, r in ((0, 0), (0, 1), (0, 2), (2, 0), (2, 1))}
    assert {image.numpy().tobytes() for batch in one for image in batch.images} == sound

    alone = write_shards(tmp_path / "alone", counts=(1,))
    damage(alone, 0, 0)
    with pytest.raises(DataError, match=r"000000\.tar in .* cannot be replaced: there is no other\."):
        take(alone, 1, corrupt_sample="replace")


@pytest.mark.parametrize(("counts", "shard"), [((7, 5, 9), 1), ((40, 3), 0), ((2, 2), 1), ((1, 1, 30), 0)])
def test_what_stands_in_for_a_corrupt_sample(tmp_path: Path, counts: tuple[int, ...], shard: int) -> None:
    """Others, each once; of a few all, so that one that is sound is found."""
    manifest = write_shards(tmp_path / "train", counts=counts)
    alone = counts[shard] == 1
    others = {(s, r) for s in (range(len(counts)) if alone else [shard]) for r in range(counts[s])} - {
        (shard, 0)
    }
    for position in range(50):
        found = replacements(manifest, 11, position, shard, 0)
        assert len(set(found)) == len(found)
        assert others.issuperset(found)
        assert len(found) >= min(len(others), 8)
        assert len(others) >= 16 or others.issubset(found)


def test_manifest_that_disagrees_with_its_tar(tmp_path: Path) -> None:
    """Same size, other content: found at the first read from that shard."""
    manifest = write_shards(tmp_path / "train")
    path = manifest.directory / "000001.tar"
    content = path.read_bytes()
    change_unnoticed(path, content[512:] + content[:512])
    with pytest.raises(DataError, match=r"does not hold sample .* where its index says"):
        take(manifest, 4)


def test_image_of_another_size(tmp_path: Path) -> None:
    manifest = write_shards(tmp_path / "train")
    small = png(pixels_of(0, 0)[:4])
    offset, size, _ = manifest.index(0)[0].tolist()
    path = manifest.directory / "000000.tar"
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = small.ljust(size, b"\0")
    change_unnoticed(path, bytes(content))
    with pytest.raises(DataError, match="decodes to 8x4 pixels, while the manifest says 8x8 pixels"):
        take(manifest, 4)


def test_shell_urls_are_never_opened(tmp_path: Path) -> None:
    """Law 10: a shard is a file name inside its directory; `pipe:` is just a strange name."""
    manifest = write_shards(tmp_path / "train")
    as_version_1(manifest.directory)
    text = (manifest.directory / "manifest.json").read_text()
    (manifest.directory / "manifest.json").write_text(
        text.replace('"000000.tar"', f'"pipe:touch {tmp_path}/hacked"')
    )
    with pytest.raises(DataError):
        Manifest.load(manifest.directory)
    assert not (tmp_path / "hacked").exists()


def test_jpeg_goes_through_libjpeg_turbo_exactly(tmp_path: Path) -> None:
    directory = tmp_path / "train"
    directory.mkdir()
    jpegs = [simplejpeg.encode_jpeg(pixels_of(0, row), quality=90) for row in range(12)]
    with webdataset.TarWriter(str(directory / "0.tar")) as writer:
        for row, data in enumerate(jpegs):
            writer.write({"__key__": str(row), "jpg": data, "cls": row % 2})
    index(directory, command="test")
    images = next(one_pass(Manifest.load(directory), 12)).images
    for image, data in zip(images, jpegs, strict=True):
        assert np.array_equal(image.numpy(), simplejpeg.decode_jpeg(data))


def test_batches_that_are_held_keep_their_memory(shards: Manifest) -> None:
    """Buffers are used again, but never under a batch (or a view of it) that somebody still holds."""
    held = take(shards, 6)
    copies = [batch.images.clone() for batch in held]
    views = [batch.images[1:3] for batch in held]
    del held
    take(shards, 20)
    for view, copy in zip(views, copies, strict=True):
        assert torch.equal(view, copy[1:3])
    buffers = BatchBuffers(shards.shape, 6)
    first = buffers.take()
    address = first.ctypes.data
    assert buffers.take().ctypes.data != address
    tensor = torch.from_numpy(first)
    del first
    assert buffers.take().ctypes.data != address
    del tensor
    assert address in {buffers.take().ctypes.data for _ in range(3)}


def test_flip_is_a_function_of_position(shards: Manifest) -> None:
    batches = take(shards, 14)
    flipped = 0
    for host in batches:
        batch = to_batch(*host[:3], flips=Noise(5, host[2]))
        plain = to_batch(*host[:3], flips=None)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        mirrored = [bool(torch.equal(a, b.flip(2))) for a, b in zip(batch.images, plain.images, strict=True)]
        same = [bool(torch.equal(a, b)) for a, b in zip(batch.images, plain.images, strict=True)]
        assert [not m for m in mirrored] == same
        flipped += sum(mirrored)
    assert 20 < flipped < 64
    halves = HostBatch(*(t[3:] for t in batches[0][:3]), 0)
    whole = to_batch(*batches[0][:3], flips=Noise(5, batches[0][2])).images
    assert torch.equal(to_batch(*halves[:3], flips=Noise(5, halves[2])).images, whole[3:])


def test_bytes_are_normalised_to_their_range() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    torch.testing.assert_close(normalise(every), every.double().div(127.5).sub(1).float(), rtol=0, atol=1e-6)
    assert normalise(every).aminmax() == (-1.0, 1.0)


def failing_reader(monkeypatch: pytest.MonkeyPatch, fail: Callable[[], None]) -> None:
    """Workers (forked after this) fail at shard 2."""
    read = stream_module.read_one

    def read_or_fail(reader: ShardReader, shard: int, row: int, out: Array) -> int:
        if shard == 2:
            fail()
        return read(reader, shard, row, out)

    monkeypatch.setattr(stream_module, "read_one", read_or_fail)


def test_a_hung_worker_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write_shards(tmp_path / "train")
    failing_reader(monkeypatch, lambda: time.sleep(30))
    with pytest.raises(DataError, match=r"Data worker [01] of 2 of rank 0 brought no batch for 2 s"):
        take(manifest, 12, num_workers=2, worker_timeout_seconds=2.0)


def test_a_dead_worker_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write_shards(tmp_path / "train")
    failing_reader(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(DataError, match=r"Data worker 0 of 1 of rank 0 died .*lower data.num_workers"):
        take(manifest, 12, num_workers=1)


def test_workers_leave_requests_to_stop_to_the_trainer(tmp_path: Path) -> None:
    """A scheduler signals every process of a job; the trainer still wants batches then."""
    manifest = write_shards(tmp_path / "train")
    part = Slice(global_batch_size=6, rank=0, world_size=1)
    others = set(psutil.Process().children())
    batches = stream(manifest, DataConfig(train="", num_workers=1), 11, part)
    next(batches)
    (worker,) = set(psutil.Process().children()) - others
    for request in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # not from the trainer itself
        send = f"import os; os.kill({worker.pid}, {int(request)})"
        subprocess.run([sys.executable, "-c", send], check=True)
    for _ in range(10):
        next(batches)
