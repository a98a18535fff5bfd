"""What a build writes: the same bytes for any number of workers, readable by others, all or nothing."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import webdataset

from dist_dsvae.building.verify import verify
from dist_dsvae.building.writer import Layout, Sample, write_split
from dist_dsvae.core import inventory
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.staging import building
from dist_dsvae.core.types import ImageShape
from dist_dsvae.data.shards.manifest import Manifest
from tests.unit.data.making import REPOSITORY, all_files, encode_value, png, run_build, write_values

ARCHIVES = ("none", "gz", "xz")


def test_the_number_of_workers_changes_no_byte(tmp_path: Path) -> None:
    values = [*range(30), -1]
    one = write_values(tmp_path / "one", values, num_workers=1)
    two = write_values(tmp_path / "two", values, num_workers=2)
    assert all_files(tmp_path / "one") == all_files(tmp_path / "two")
    assert one.unreadable == two.unreadable == (("value -1", "it is negative"),)


@pytest.mark.parametrize("archive", ARCHIVES)
def test_nothing_of_the_surroundings_enters_the_bytes(
    tmp_path: Path, archive: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_values(tmp_path / "one", list(range(8)), archive=archive)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    monkeypatch.chdir(tmp_path)
    write_values(Path("two"), list(range(8)), archive=archive)
    assert all_files(tmp_path / "one") == all_files(tmp_path / "two")


def test_members_are_plain_and_in_order(tmp_path: Path) -> None:
    manifest = write_values(tmp_path / "train", list(range(8))).manifest
    with tarfile.open(tmp_path / "train" / manifest.shards[1].file, format=tarfile.USTAR_FORMAT) as tar:
        members = tar.getmembers()
        described = json.loads(tar.extractfile(members[2]).read())  # type: ignore[union-attr]
    assert [m.name for m in members[:4]] == ["00000004.png", "00000004.cls", "00000004.json", "00000005.png"]
    assert {(m.mtime, m.uid, m.gid, m.mode, m.uname) for m in members} == {(0, 0, 0, 0o644, "")}
    assert set(described) == {"class_name", "source", "value"}


def test_shards_are_what_tarfile_writes(tmp_path: Path) -> None:
    shard = tmp_path / "train" / write_values(tmp_path / "train", list(range(8))).manifest.shards[1].file
    again = io.BytesIO()
    with (
        tarfile.open(shard) as tar,
        tarfile.TarFile(fileobj=again, mode="w", format=tarfile.USTAR_FORMAT) as new,
    ):
        for member in tar.getmembers():
            plain = tarfile.TarInfo(member.name)
            plain.size, plain.mode = member.size, 0o644
            new.addfile(plain, tar.extractfile(member))
    assert shard.read_bytes() == again.getvalue()


def test_every_shard_mixes_the_classes(tmp_path: Path) -> None:
    samples = [Sample(label * 80, label, f"{label} {n}") for label in range(3) for n in range(100)]
    layout = Layout(shape=ImageShape(1, 4, 4), extension="png", samples_per_shard=60)
    written = write_split(
        tmp_path / "train", samples, encode_value, layout, classes="abc", command="", source=""
    )
    for shard in written.manifest.shards:
        assert min(shard.samples_per_class[label] for label in range(3)) >= 8


@pytest.mark.parametrize("archive", ARCHIVES)
def test_plain_webdataset_reads_ours(tmp_path: Path, archive: str) -> None:
    manifest = write_values(tmp_path / "train", list(range(10)), archive=archive).manifest
    urls = [str(tmp_path / "train" / shard.file) for shard in manifest.shards]
    dataset = webdataset.WebDataset(urls, shardshuffle=False).decode("pil").to_tuple("png", "cls", "json")
    found = [(image.getpixel((0, 0))[0], label, about["value"]) for image, label, about in dataset]
    assert sorted(found) == [(value, value % 3, value) for value in range(10)]


@pytest.mark.parametrize("archive", ARCHIVES)
@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_reads_ours(
    tmp_path: Path, archive: str, streaming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    manifest = write_values(tmp_path / "train", list(range(10)), archive=archive).manifest
    files = {"train": [str(tmp_path / "train" / shard.file) for shard in manifest.shards]}
    rows = datasets.load_dataset(
        "webdataset", data_files=files, split="train", streaming=streaming, cache_dir=str(tmp_path / "cache")
    )
    found = [(row["png"].getpixel((0, 0)), row["cls"], row["json"]["class_name"]) for row in rows]
    assert sorted(found) == [(v, v % 3, ("apple", "bäume", "cat")[v % 3]) for v in range(10)]


@pytest.mark.parametrize("archive", ARCHIVES)
def test_offsets_count_uncompressed_bytes(tmp_path: Path, archive: str) -> None:
    manifest = write_values(tmp_path / "train", list(range(10)), archive=archive).manifest
    verify(Manifest.load(tmp_path / "train"))
    with tarfile.open(tmp_path / "train" / manifest.shards[0].file) as tar:
        offsets = [member.offset_data for member in tar if member.name.endswith(".png")]
    assert manifest.index(0)[:, 0].tolist() == offsets


def test_shards_without_a_readable_sample_leave_no_gap(tmp_path: Path) -> None:
    values = [*range(6), *(-v for v in range(1, 13))]
    written = write_values(tmp_path / "train", values, samples_per_shard=1)
    assert [shard.file for shard in written.manifest.shards] == [f"{n:06d}.tar" for n in range(6)]
    assert len(written.unreadable) == 12
    assert set(all_files(tmp_path / "train")) == {
        "manifest.json",
        "manifest.shards.npy",
        *chain(*((shard.file, shard.index_file) for shard in written.manifest.shards)),
    }
    verify(Manifest.load(tmp_path / "train"))


def test_no_readable_sample_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"None of the 2 samples of the split 'train' .*value -1: it is neg"):
        write_values(tmp_path / "train", [-1, -2])


def test_a_layout_or_workers_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 samples per shard"):
        write_values(tmp_path / "a", [1], samples_per_shard=0)
    with pytest.raises(DataError, match="number of workers is 0"):
        write_values(tmp_path / "b", [1], num_workers=0)


def build_into(out: Path, *, overwrite: bool = False) -> None:
    with building(out, overwrite=overwrite) as staging:
        write_values(staging / "train", [1, 2, 3])


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail(staging: Path) -> None:
        (staging / "file").touch()
        raise RuntimeError

    with pytest.raises(RuntimeError), building(tmp_path / "out") as staging:
        fail(staging)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is full; nothing was left"), building(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(PermissionError), building(tmp_path / "out"):
        raise PermissionError
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_at_once_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(inventory, "mark", full)
    with pytest.raises(DataError, match="is full; nothing was left at"), building(tmp_path / "out"):
        pytest.fail("it began")
    assert list(tmp_path.iterdir()) == []


def test_a_taken_place_gets_a_sentence(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    build_into(out)  # an empty directory is free
    with pytest.raises(DataError, match=r"exists already and is not empty\. Add --overwrite"):
        build_into(out)
    build_into(out, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is not a directory"):
        build_into(tmp_path / "file")


def test_leftovers_go_but_not_those_of_a_living_build(tmp_path: Path) -> None:
    leftover = tmp_path / "out.incomplete-1"
    leftover.mkdir()
    inventory.mark(leftover)
    (leftover / "000000.tar").touch()
    (tmp_path / "out.other").mkdir()
    (tmp_path / "out.incomplete-2").mkdir()  # not marked: somebody's
    lock = os.open(leftover, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(DataError, match="Another process is building"):
        build_into(tmp_path / "out")
    assert leftover.exists()
    os.close(lock)
    build_into(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.incomplete-2", "out.other"]


def children_of(process_id: int) -> list[int]:
    path = Path(f"/proc/{process_id}/task/{process_id}/children")
    return [int(child) for child in path.read_text().split()]


def wait_for(happened: Iterator[bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    for done in happened:
        if done:
            return
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks up child processes in /proc")
def test_a_killed_build_leaves_nothing_that_looks_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "toy"
    arguments = ["toy", str(out), "--num-points", "6000", "--num-test-points", "300"]
    command = [sys.executable, "shards/build.py", *arguments, "--samples-per-shard", "50", "--workers", "2"]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stderr=subprocess.DEVNULL
    )
    wait_for(len(list(tmp_path.glob("toy.incomplete-*/train/*.index.npy"))) >= 3 for _ in iter(int, 1))
    workers = children_of(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    assert not list(tmp_path.glob("*/train/manifest.json"))
    assert len(workers) >= 2
    wait_for(not any(Path(f"/proc/{worker}").exists() for worker in workers) for _ in iter(int, 1))

    assert run_build(monkeypatch, "toy", out, "--num-points", 60, "--num-test-points", 30) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]
    verify(Manifest.load(out / "train"))


def test_labels_are_counted_per_class(tmp_path: Path) -> None:
    manifest = write_values(tmp_path / "train", list(range(11))).manifest
    counted: Counter[int] = Counter()
    for number, shard in enumerate(manifest.shards):
        labels, counts = np.unique(manifest.index(number)[:, 2], return_counts=True)
        assert dict(shard.samples_per_class) == dict(zip(labels.tolist(), counts.tolist(), strict=True))
        counted.update(shard.samples_per_class)
    assert counted == {0: 4, 1: 4, 2: 3}
    assert len({png(value) for value in range(11)}) == 11
