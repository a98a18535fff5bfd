"""The cache: one download for all, nothing half-done is trusted, bounded, and what is in use stays."""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from unittest.mock import patch

import pytest

from dist_dsvae.core.errors import DataError
from dist_dsvae.data.remote.cache import ShardCache

SIZE = 1000
fork = multiprocessing.get_context("fork")


def content_of(number: int) -> bytes:
    return bytes([number]) * SIZE


def name_of(number: int) -> str:
    return hashlib.sha256(content_of(number)).hexdigest() + ".tar"


def writes(number: int) -> Callable[[BinaryIO, float], None]:
    def download(out: BinaryIO, waited_seconds: float) -> None:
        out.seek(0)
        out.truncate()
        out.write(content_of(number))

    return download


def never(out: BinaryIO, waited_seconds: float) -> None:
    raise AssertionError("it was to be found in the cache")


def read(cache: ShardCache, number: int, download: Callable[[BinaryIO, float], None] | None = None) -> bytes:
    with cache.open(name_of(number), SIZE, download or writes(number)) as file:
        return file.read()


def present(cache: ShardCache) -> set[str]:
    return {path.name for path in cache.directory.iterdir()}


@pytest.fixture
def cache(tmp_path: Path) -> ShardCache:
    return ShardCache(tmp_path / "shards", 3 * SIZE)


def test_downloaded_once_and_found_again(cache: ShardCache) -> None:
    assert cache.open_present(name_of(1), SIZE) is None
    assert read(cache, 1) == content_of(1)
    assert read(cache, 1, never) == content_of(1)
    assert present(cache) == {name_of(1)}
    with cache.open(name_of(1), SIZE, never) as file:
        assert Path(file.name).read_bytes() == content_of(1)


def test_a_failed_download_leaves_nothing(cache: ShardCache) -> None:
    def fail(out: BinaryIO, waited_seconds: float) -> None:
        out.write(b"half")
        raise DataError("the server is gone")

    with pytest.raises(DataError, match="the server is gone"):
        read(cache, 1, fail)
    assert present(cache) == set()
    assert read(cache, 1) == content_of(1)


def test_what_was_used_longest_ago_goes_first(cache: ShardCache) -> None:
    for number in (1, 2, 3):
        read(cache, number)
    read(cache, 1, never)  # now 2 is the oldest
    read(cache, 4)
    assert present(cache) == {name_of(n) for n in (1, 3, 4)}
    read(cache, 5)
    assert present(cache) == {name_of(n) for n in (1, 4, 5)}


def test_what_is_open_or_mapped_stays(cache: ShardCache) -> None:
    with cache.open(name_of(1), SIZE, writes(1)) as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # goes on holding the lock
    with cache.open(name_of(2), SIZE, writes(2)):
        for number in (3, 4, 5, 6):
            read(cache, number)
        assert {name_of(1), name_of(2), name_of(6)} == present(cache)
    mapped.close()
    read(cache, 7)
    read(cache, 8)
    assert {name_of(6), name_of(7), name_of(8)} == present(cache)


def test_a_map_outlives_the_removal_of_its_file(cache: ShardCache) -> None:
    with cache.open(name_of(1), SIZE, writes(1)) as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    (cache.directory / name_of(1)).unlink()
    assert mapped[:] == content_of(1)


def test_a_bound_smaller_than_one_shard_still_works(tmp_path: Path) -> None:
    tiny = ShardCache(tmp_path / "shards", 10)
    for number in (1, 2):
        assert read(tiny, number) == content_of(number)
    assert present(tiny) == {name_of(2)}


def test_other_files_are_never_removed(cache: ShardCache) -> None:
    cache.directory.mkdir()
    foreign = ["thesis.tar", "a" * 64, "A" * 64 + ".tar", "lock", "b" * 64 + ".tar.old"]
    for name in foreign:
        (cache.directory / name).write_bytes(bytes(10 * SIZE))
    for number in range(5):
        read(cache, number)
    assert set(foreign) < present(cache)


def test_a_file_of_another_size_is_fetched_again(cache: ShardCache) -> None:
    read(cache, 1)
    path = cache.directory / name_of(1)
    path.write_bytes(path.read_bytes()[:-1])
    assert read(cache, 1) == content_of(1)


def test_processes_and_threads_share_one_download(cache: ShardCache, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def slow(out: BinaryIO, waited_seconds: float) -> None:
        with log.open("a") as lines:
            lines.write("download\n")
        time.sleep(0.3)
        writes(1)(out, waited_seconds)

    def check() -> None:
        assert read(cache, 1, slow) == content_of(1)

    runs = [fork.Process(target=check) for _ in range(3)] + [threading.Thread(target=check) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert [run.exitcode for run in runs[:3]] == [0, 0, 0]
    assert log.read_text() == "download\n"
    assert present(cache) == {name_of(1)}


def test_who_waited_for_a_failure_learns_how_long(cache: ShardCache) -> None:
    is_asked = threading.Event()

    def fail_slowly(out: BinaryIO, waited_seconds: float) -> None:
        is_asked.wait(20)
        time.sleep(1.0)
        raise DataError("gone")

    def first() -> None:
        with pytest.raises(DataError):
            read(cache, 1, fail_slowly)

    waited = []

    def second(out: BinaryIO, waited_seconds: float) -> None:
        waited.append(waited_seconds)
        writes(1)(out, waited_seconds)

    thread = threading.Thread(target=first)
    thread.start()
    while not (cache.directory / f"{name_of(1)}.part").exists():
        time.sleep(0.005)
    assert cache.open_at_once(name_of(1), SIZE, never) is None
    is_asked.set()
    assert read(cache, 1, second) == content_of(1)
    thread.join()
    assert 0.1 < waited[0] < 20


def test_kill_9_leaves_nothing_that_is_trusted(cache: ShardCache) -> None:
    def hang(out: BinaryIO, waited_seconds: float) -> None:
        out.write(content_of(1)[:-1] + b"?")  # as long as the right one
        out.flush()
        time.sleep(60)

    def killed_while_fetching(number: int) -> None:
        process = fork.Process(target=read, args=(cache, number, hang))
        process.start()
        part = cache.directory / f"{name_of(number)}.part"
        while not (part.exists() and part.read_bytes()[:1] == content_of(1)[:1]):
            time.sleep(0.005)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()

    killed_while_fetching(1)
    assert present(cache) == {f"{name_of(1)}.part"}
    assert cache.open_present(name_of(1), SIZE) is None
    assert read(cache, 1) == content_of(1)
    killed_while_fetching(2)
    assert present(cache) == {name_of(1), f"{name_of(2)}.part"}
    read(cache, 3)  # clears away what the killed process left, though there is room
    assert present(cache) == {name_of(1), name_of(3)}


def test_a_folder_that_cannot_be_used_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be used \(Not a directory\).*data\.cache_dir"):
        read(ShardCache(tmp_path / "file" / "shards", SIZE), 1)

    def full(out: BinaryIO, waited_seconds: float) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"No space left on device.*data\.cache_gib"):
        read(ShardCache(tmp_path / "shards", SIZE), 1, full)
    assert list((tmp_path / "shards").iterdir()) == []


def test_no_link_is_followed(cache: ShardCache, tmp_path: Path) -> None:
    """Neither to read what lies elsewhere, nor to write or remove it."""
    cache.directory.mkdir()
    other = tmp_path / "somebody's"
    for ending in ("", ".part"):
        other.write_bytes(b"x" * SIZE)
        (cache.directory / (name_of(1) + ending)).symlink_to(other)
        assert read(cache, 1) == content_of(1)
        assert not (cache.directory / name_of(1)).is_symlink()
        assert other.read_bytes() == b"x" * SIZE
        (cache.directory / name_of(1)).unlink()
    (cache.directory / name_of(1)).symlink_to(tmp_path / "nowhere")
    assert read(cache, 1) == content_of(1)
    for number in range(2, 9):  # makes room again and again
        (cache.directory / name_of(number + 10)).symlink_to(other)
        read(cache, number)
    assert other.read_bytes() == b"x" * SIZE


def test_one_that_is_removed_while_it_is_waited_for_is_not_there(cache: ShardCache) -> None:
    """Another process makes room between the opening of a shard and its lock."""
    read(cache, 1)
    path = cache.directory / name_of(1)
    lock = fcntl.flock

    def remove_first(file: BinaryIO, how: int) -> None:
        if how == fcntl.LOCK_SH:
            path.unlink(missing_ok=True)
        lock(file, how)

    with patch.object(fcntl, "flock", remove_first):
        assert cache.open_present(name_of(1), SIZE) is None
