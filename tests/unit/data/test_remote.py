"""Shards from afar, with a real server: the same batches, fetched ahead and once; every way to fail."""

from __future__ import annotations

import hashlib
import io
import logging
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
import webdataset
from fsspec.implementations.memory import MemoryFileSystem

from dist_dsvae.building.indexing import index
from dist_dsvae.building.verify import verify
from dist_dsvae.config import DataConfig
from dist_dsvae.core.errors import DataError
from dist_dsvae.data.open_split import open_split
from dist_dsvae.data.plan import Plan
from dist_dsvae.data.remote.fetch import FetchError, Retries, fetch
from dist_dsvae.data.remote.location import HttpSource, is_remote
from dist_dsvae.data.resident import ResidentData
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.shards.table import TABLE_FILE
from dist_dsvae.data.stream import HostBatch, Slice, one_pass, stream
from tests.unit.data.http_server import Server, serving
from tests.unit.data.making import as_version_1, run_build, write_values
from tests.unit.data.test_stream import damage, pixels_of, png

COUNTS = [7, 5, 9, 6, 4, 8, 5, 6]
WINDOW = 2
TARS = [f"{number:06d}.tar" for number in range(len(COUNTS))]
fork = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the split ``train``; no test changes it."""
    folder = tmp_path_factory.mktemp("remote")
    (folder / "train").mkdir()
    for number, count in enumerate(COUNTS):
        with webdataset.TarWriter(str(folder / "train" / TARS[number])) as writer:
            for row in range(count):
                image = png(pixels_of(number, row))
                writer.write({"__key__": f"s{number}r{row}", "png": image, "cls": (number + row) % 3})
    index(folder / "train", command="test")
    return folder


@pytest.fixture(scope="module")
def local(built: Path) -> Manifest:
    return Manifest.load(built / "train")


@pytest.fixture(scope="module")
def one_server(built: Path) -> Iterator[Server]:
    with serving(built) as server:
        yield server


@pytest.fixture
def server(one_server: Server) -> Server:
    """Behaves well, and was asked for nothing yet."""
    one_server.forget()
    return one_server


@pytest.fixture
def mortal(built: Path) -> Iterator[Server]:
    """A server that a test may kill."""
    with serving(built) as server:
        yield server


@pytest.fixture
def copy(built: Path, server: Server) -> Iterator[tuple[Path, str]]:
    """A copy of the split that a test may change, and its URL."""
    folder = built / "copy"
    shutil.copytree(built / "train", folder / "train")
    yield folder / "train", f"{server.root}/copy/train"
    shutil.rmtree(folder)


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """A cache of its own; patience that suits a test."""
    return {
        "cache_dir": str(tmp_path / "cache"),
        "fetch_tries": 3,
        "fetch_pause_seconds": 0.01,
        "fetch_timeout_seconds": 10.0,
    }


def open_remote(url: str, settings: dict[str, Any], **more: Any) -> Manifest:
    return open_split(url, DataConfig(train=url, **(settings | more)))


def batches_of(manifest: Manifest, start: int = 0, **more: Any) -> Iterator[HostBatch]:
    config = DataConfig(train="", **({"shuffle_window_shards": WINDOW, "num_workers": 0} | more))
    return stream(
        manifest, config, 11, Slice(global_batch_size=6, rank=0, world_size=1), start_position=start
    )


def take(batches: Iterator[HostBatch], count: int) -> list[HostBatch]:
    return [next(batches) for _ in range(count)]


def assert_equal(got: list[HostBatch], expected: list[HostBatch]) -> None:
    for ours, theirs in zip(got, expected, strict=True):
        for a, b in zip(ours[:3], theirs[:3], strict=True):
            assert torch.equal(a, b)


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def cached(settings: dict[str, Any]) -> set[str]:
    """The hashes of the complete tars in the cache."""
    folder = Path(settings["cache_dir"]) / "shards"
    return {path.stem for path in folder.glob("*.tar")}


# the same data


def test_remote_equals_local(server: Server, local: Manifest, settings: dict[str, Any]) -> None:
    remote = open_remote(server.url, settings)
    assert remote.fingerprint == local.fingerprint
    assert remote.location == server.url
    expected = take(batches_of(local), 20)  # 120 samples: over two epochs of 50
    assert_equal(take(batches_of(remote), 20), expected)
    assert_equal(take(batches_of(remote, num_workers=2), 20), expected)
    assert_equal(take(batches_of(remote, start=42, num_workers=2), 5), expected[7:12])
    config = DataConfig(train="", shuffle_window_shards=WINDOW)
    resident = ResidentData(remote, config, 11, torch.device("cpu"))
    part = Slice(global_batch_size=6, rank=0, world_size=1)
    gathered = (
        HostBatch(*resident.gather(places), positions, num_replaced)
        for (places, positions), num_replaced in resident.batches(part, 0)
    )
    assert_equal(take(gathered, 20), expected)
    assert_equal(list(one_pass(remote, 4)), list(one_pass(local, 4)))
    assert_equal(list(one_pass(remote, 4, 1, 3, limit=20)), list(one_pass(local, 4, 1, 3, limit=20)))
    verify(remote)
    asked = server.requests()
    assert {asked[tar] for tar in TARS} == {1}  # whoever reads, each tar comes once
    assert {asked[shard.index_file] for shard in remote.shards} == {1}


def test_workers_start_with_an_empty_cache(server: Server, local: Manifest, settings: dict[str, Any]) -> None:
    """Two worker processes and their threads want the same shards at once."""
    remote = open_remote(server.url, settings)
    assert_equal(take(batches_of(remote, num_workers=2), 12), take(batches_of(local), 12))
    asked = server.requests()
    assert max(asked[tar] for tar in TARS) == 1


def test_a_store_can_be_sent_to_another_process(server: Server, settings: dict[str, Any]) -> None:
    remote = open_remote(server.url, settings)
    assert pickle.loads(pickle.dumps(remote)) == remote


@pytest.mark.parametrize("archive", ["gz", "xz"])
def test_compressed_shards(built: Path, server: Server, settings: dict[str, Any], archive: str) -> None:
    split = built / archive
    write_values(split, list(range(10)), archive=archive)
    remote = open_remote(f"{server.root}/{archive}", settings)
    assert_equal(list(one_pass(remote, 3)), list(one_pass(Manifest.load(split), 3)))
    verify(remote)


def test_verify_command_takes_a_url(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert run_build(monkeypatch, "verify", server.url) == 0
    assert (
        f"{server.url}: 50 samples of 3 classes in 8 shards: as the manifest says" in capsys.readouterr().out
    )
    assert len(list((tmp_path / "home/dist_dsvae/shards").iterdir())) == 8


# ahead of need


def test_the_next_window_comes_before_it_is_needed(
    mortal: Server, local: Manifest, settings: dict[str, Any]
) -> None:
    remote = open_remote(mortal.url, settings)
    assert not set(TARS) & set(mortal.requests())  # the start needs no tar
    batches = batches_of(remote)
    next(batches)
    plan = Plan(COUNTS, 11, WINDOW)
    coming = {local.shards[number].sha256 for number in plan.shards_ahead(0, 2)}
    assert len(coming) == 4
    until(lambda: cached(settings) == coming)
    time.sleep(0.1)
    assert cached(settings) == coming  # that far and no further
    # so the next window is read although the server is gone
    mortal.die()
    window_end = sum(COUNTS[number] for number in plan.shards_ahead(0, 2))
    assert_equal(take(batches, window_end // 6 - 1), take(batches_of(local), window_end // 6)[1:])
    batches.close()  # type: ignore[attr-defined]


def test_a_small_cache_is_bounded_and_holds_what_is_in_use(
    server: Server, local: Manifest, settings: dict[str, Any]
) -> None:
    largest = max(shard.num_bytes for shard in local.shards)
    bound = 3 * largest  # windows of one shard: two that the reader has open, one ahead
    remote = open_remote(server.url, settings, cache_gib=bound / 2**30)
    folder = Path(settings["cache_dir"]) / "shards"

    def size() -> int:
        total = 0
        for path in folder.iterdir():
            with suppress(FileNotFoundError):  # removed meanwhile
                total += path.stat().st_size
        return total

    batches = batches_of(remote, shuffle_window_shards=1)
    for want in take(batches_of(local, shuffle_window_shards=1), 30):
        assert_equal([next(batches)], [want])
        assert size() <= bound + largest  # a shard that was just given up may still be open
    batches.close()  # type: ignore[attr-defined]
    asked = server.requests()
    assert 2 <= max(asked[tar] for tar in TARS) <= 4  # 3.6 epochs


# failures


@pytest.mark.parametrize(
    "action", ["404", "500", "503", "429", "truncate", "stall", "hang up", "corrupt", "longer", "page"]
)
def test_one_failure_is_survived(
    server: Server, local: Manifest, settings: dict[str, Any], action: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.tell("manifest.json", action if action not in ("corrupt", "longer") else "500", times=1)
    server.tell("000001.index.npy", action if action not in ("corrupt", "longer") else "page", times=1)
    server.tell("000002.tar", action, times=1)
    with caplog.at_level(logging.WARNING):
        remote = open_remote(server.url, settings, fetch_timeout_seconds=0.7)
        assert_equal(list(one_pass(remote, 4)), list(one_pass(local, 4)))
    assert "000002.tar: " in caplog.text
    assert "next try in 0.0 s (2 of" in caplog.text
    asked = server.requests()
    assert asked["manifest.json"] == asked["000001.index.npy"] == asked["000002.tar"] == 2


@pytest.mark.parametrize(
    ("action", "tried", "sentence"),
    [
        ("404", 2, r"the server answered 404 Not Found\. Correct the location"),
        ("403", 2, r"the server answered 403 Forbidden\. Give this machine access"),
        ("500", 3, r"the server answered 500 Internal Server Error\. See whether it can be reached"),
        ("truncate", 3, r"it broke off after [\d,]+ of [\d,]+ bytes\. See whether"),
        ("stall", 3, r"nothing arrived for 0\.2 s\. See whether"),
        ("trickle", 3, r"only \d+ bytes arrived in 0\.\d s\. See whether"),
        ("hang up", 3, r"the connection failed \(.*\)\. See whether"),
        (
            "corrupt",
            2,
            r"its sha256 is [0-9a-f]{16}\.\.\., but the manifest says [0-9a-f]{16}\. Put the split",
        ),
        ("longer", 2, r"it is longer than the [\d,]+ bytes that it may have\. Put the split"),
        ("page", 2, r"it has 26 bytes, but the manifest says [\d,]+\. Put the split"),
    ],
)
def test_lasting_failures_get_a_sentence(
    server: Server, settings: dict[str, Any], action: str, tried: int, sentence: str
) -> None:
    remote = open_remote(server.url, settings, fetch_timeout_seconds=0.2)
    server.tell("000000.tar", action)
    where = re.escape(f"{server.url}/000000.tar could not be fetched (tried {tried} times in ")
    with pytest.raises(DataError, match=where + r"\d\.\d s\): .*" + sentence) as caught:
        read_first_shard(remote)
    assert "\n" not in str(caught.value)
    assert server.requests()["000000.tar"] == tried
    assert not list((Path(settings["cache_dir"]) / "shards").glob(f"{remote.shards[0].sha256}*"))


def until_it_stops(batches: Iterator[HostBatch]) -> tuple[list[HostBatch], str]:
    """The batches before the error, and its sentence."""
    got = []
    try:
        while True:
            got.append(next(batches))
    except DataError as error:
        return got, str(error)


def test_a_server_that_dies_in_the_middle(mortal: Server, local: Manifest, settings: dict[str, Any]) -> None:
    """What is in the cache is still read, then one sentence; later it goes on where it stopped."""
    expected = take(batches_of(local), 20)
    remote = open_remote(mortal.url, settings)
    batches = batches_of(remote)
    first = next(batches)
    until(lambda: len(cached(settings)) == 4)
    mortal.die()
    more, sentence = until_it_stops(batches)
    got = [first, *more]
    assert re.search(r"tar could not be fetched \(tried 3 .*Connection refused.* a run goes on", sentence)
    assert 3 <= len(got) < 10
    assert_equal(got, expected[: len(got)])
    nothing, sentence = until_it_stops(batches_of(remote, start=6 * len(got)))
    assert nothing == []
    assert "tar could not be fetched" in sentence
    mortal.revive()
    assert_equal(take(batches_of(remote, start=6 * len(got)), 20 - len(got)), expected[len(got) :])


def test_a_shard_that_is_gone_for_a_while(server: Server, local: Manifest, settings: dict[str, Any]) -> None:
    """The same with worker processes, which read ahead."""
    expected = take(batches_of(local), 20)
    remote = open_remote(server.url, settings)
    late = TARS[Plan(COUNTS, 11, WINDOW).shards_ahead(0, 3)[-1]]
    server.tell(late, "hang up")
    got, sentence = until_it_stops(batches_of(remote, num_workers=2))
    assert f"{late} could not be fetched" in sentence
    assert "Traceback" not in sentence
    assert 3 <= len(got) < 10
    assert_equal(got, expected[: len(got)])
    server.tell(late, "none")
    again = take(batches_of(remote, start=6 * len(got), num_workers=2), 20 - len(got))
    assert_equal(again, expected[len(got) :])


def test_a_failed_fetch_is_no_corrupt_sample(
    server: Server, local: Manifest, settings: dict[str, Any]
) -> None:
    """data.corrupt_sample replaces samples that are there and bad, never samples that did not arrive."""
    remote = open_remote(server.url, settings)
    server.tell("000000.tar", "404")
    with pytest.raises(DataError, match="404 Not Found"):
        take(batches_of(remote, corrupt_sample="replace"), 20)
    with pytest.raises(DataError, match="404 Not Found"):
        list(one_pass(remote, 4, skip_corrupt=True))
    config = DataConfig(train="", corrupt_sample="replace")
    with pytest.raises(DataError, match="404 Not Found"):
        ResidentData(remote, config, 11, torch.device("cpu"))


def test_a_corrupt_sample_names_its_url(copy: tuple[Path, str], settings: dict[str, Any]) -> None:
    split, url = copy
    before = Manifest.load(split)
    key = damage(before, 1, 3)
    found = hashlib.sha256((split / "000001.tar").read_bytes()).hexdigest()
    change_manifest(split, before.shards[1].sha256, found)
    remote = open_remote(url, settings)
    with pytest.raises(DataError, match=re.escape(f"Sample {key} of {url}/000001.tar is corrupt")):
        list(one_pass(remote, 4))
    replaced = take(batches_of(remote, corrupt_sample="replace"), 9)
    assert sum(batch.num_replaced for batch in replaced) == 1


def test_a_dead_server_at_the_start(
    mortal: Server, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    mortal.die()
    with pytest.raises(DataError, match=r"train/manifest.json could not be fetched .*Connection refused"):
        open_remote(mortal.url, settings)

    def unknown(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(
        DataError, match=r"tried 2 times .*its host was not found \(Name or service not known"
    ):
        open_remote("http://no-such-host.invalid/train", settings)


def test_a_dead_server_does_not_matter_if_all_is_here(
    mortal: Server, local: Manifest, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    list(one_pass(open_remote(mortal.url, settings), 4))
    mortal.die()
    with caplog.at_level(logging.WARNING):
        remote = open_remote(mortal.url, settings)
    assert "the manifest that was fetched before is used" in caplog.text
    assert_equal(list(one_pass(remote, 4)), list(one_pass(local, 4)))


def test_a_split_that_is_gone_is_not_read_from_memory(server: Server, settings: dict[str, Any]) -> None:
    open_remote(server.url, settings)
    server.tell("manifest.json", "404")
    with pytest.raises(DataError, match=r"manifest.json could not be fetched .*404 Not Found"):
        open_remote(server.url, settings)


def test_waiting_counts_as_patience(server: Server) -> None:
    """Who waited for another process's attempts makes one of its own, not all of them again."""
    server.tell("000000.tar", "500")
    source, patience = HttpSource(server.url), Retries(tries=3, pause_seconds=0.01, timeout_seconds=1)
    with pytest.raises(FetchError, match="tried once"):
        fetch(
            source,
            "000000.tar",
            io.BytesIO(),
            max_bytes=10**6,
            check=lambda _: None,
            patience=patience,
            waited_seconds=4,
        )


def test_patience_is_bounded() -> None:
    patience = Retries()
    assert [patience.pause_after(tried) for tried in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert patience.total_seconds == 61.5 + 8 * 30


# processes


def read_first_shard(remote: Manifest) -> None:
    with remote.store.open(remote.shards[0]) as file:
        assert hashlib.sha256(file.read()).hexdigest() == remote.shards[0].sha256


def test_two_processes_fetch_a_shard_once(server: Server, settings: dict[str, Any]) -> None:
    remote = open_remote(server.url, settings)
    server.tell("000000.tar", "slow", seconds=0.3)
    processes = [fork.Process(target=read_first_shard, args=(remote,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert server.requests()["000000.tar"] == 1


def test_kill_9_during_a_download(server: Server, settings: dict[str, Any]) -> None:
    remote = open_remote(server.url, settings)
    shard, folder = remote.shards[0], Path(settings["cache_dir"]) / "shards"
    server.tell("000000.tar", "stall", times=1)
    process = fork.Process(target=read_first_shard, args=(remote,))
    process.start()
    until(lambda: server.requests()["000000.tar"] == 1)
    assert (folder / f"{shard.sha256}.tar.part").exists()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert cached(settings) == set()
    read_first_shard(remote)
    assert [path.name for path in folder.iterdir()] == [f"{shard.sha256}.tar"]
    assert server.requests()["000000.tar"] == 2


# manifest and indexes


def change_manifest(split: Path, old: str, new: str) -> None:
    """Of version 1, whose JSON has every shard."""
    if (split / TABLE_FILE).exists():
        as_version_1(split)
    path = split / "manifest.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('"file": "000000.tar"', '"file": "../../000000.tar"', "is not a plain file name"),
        ('"file": "000000.tar"', '"file": ".."', "is not a plain file name"),
        ('"sha256": "', '"sha256": "../../', "which is not 64 hexadecimal digits"),
        ('"format_version": 1', '"format_version": 3', "has format version 3"),
        ('"num_samples": 7', '"num_samples": 8', "does not add up to 8 samples"),
        (
            '"index_file": "000000.index.npy"',
            '"index_file": "000002.index.npy"',
            "has 9 rows, but the manifest",
        ),
        ('"index_file": "000000.index.npy"', '"index_file": "x.npy"', "x.npy could not be fetched .*404"),
    ],
)
def test_a_manifest_is_not_trusted(
    copy: tuple[Path, str], settings: dict[str, Any], old: str, new: str, sentence: str
) -> None:
    split, url = copy
    change_manifest(split, old, new)
    with pytest.raises(DataError, match=sentence) as caught:
        open_remote(url, settings)
    assert url in str(caught.value)


def test_indexes_that_are_not_the_manifests(server: Server, settings: dict[str, Any]) -> None:
    server.tell("000003.index.npy", "page")
    sentence = r"000003.index.npy could not be fetched .*cannot be read .*Put the split there again"
    with pytest.raises(DataError, match=sentence):
        open_remote(server.url, settings)


def test_a_damaged_index_in_the_cache_is_fetched_again(server: Server, settings: dict[str, Any]) -> None:
    remote = open_remote(server.url, settings)
    path = remote.directory / "000003.index.npy"
    rows = np.load(path)
    path.write_bytes(path.read_bytes()[:-8])
    again = open_remote(server.url, settings)
    assert np.array_equal(again.index(3), rows)
    assert server.requests()["000003.index.npy"] == 2


@pytest.mark.parametrize("glanced_at", [1000, 0])
def test_processes_that_find_all_indexes_do_not_wait_for_one_another(
    server: Server, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, glanced_at: int
) -> None:
    """The lock is for those who fetch; of very many shards the sizes tell what is missing."""
    monkeypatch.setattr("dist_dsvae.data.open_split.GLANCED_AT", glanced_at)
    first = open_remote(server.url, settings)
    (first.directory / "000002.index.npy").unlink()
    cut = first.directory / "000004.index.npy"
    cut.write_bytes(cut.read_bytes()[:-24])
    open_remote(server.url, settings)
    asked = server.requests()
    assert [asked[f"00000{number}.index.npy"] for number in range(5)] == [1, 1, 2, 1, 2]

    def wait(file: object, operation: int) -> None:
        raise AssertionError("it waits for a lock")

    with monkeypatch.context() as patch:
        patch.setattr("dist_dsvae.data.open_split.fcntl.flock", wait)
        again = open_remote(server.url, settings)
    assert np.array_equal(again.index(4), first.index(4))
    assert server.requests()["000004.index.npy"] == 2


def test_a_rebuilt_split_at_the_same_url(copy: tuple[Path, str], settings: dict[str, Any]) -> None:
    split, url = copy
    before = open_remote(url, settings)
    list(one_pass(before, 4))
    with webdataset.TarWriter(str(split / "000000.tar")) as writer:
        for row in range(COUNTS[0]):
            writer.write({"__key__": f"{row:09d}", "png": png(pixels_of(99, row)), "cls": row % 3})
    index(split, command="test")
    after = open_remote(url, settings)
    assert after.fingerprint != before.fingerprint
    assert_equal(list(one_pass(after, 4)), list(one_pass(Manifest.load(split), 4)))
    verify(after)


# other places


def test_which_locations_are_remote() -> None:
    for location in (
        "http://host/train",
        "s3://bucket/x",
        "pipe:cat {file}",
        "file:///x",
        "ftp://h",
        "http:/x",
    ):
        assert is_remote(location)
    for location in ("shards/train", "/shards/train", "./a:b/train", "train", "~/x"):
        assert not is_remote(location)


@pytest.mark.parametrize(
    ("location", "sentence"),
    [
        ("ftp://host/train", r"its scheme is ftp\. Allowed are http://, https://, s3://, gs://.* plain path"),
        ("file:///shards/train", r"its scheme is file\. Allowed are"),
        ("http:/host/train", "names no host"),
        ("http://host:port/train", "is not a URL"),
        ("http://me:secret@host/train", r"on host holds a user name, which .* config\.json"),
        ("s3://bucket/train", r"needs packages that are not installed .*`pip install fsspec s3fs`"),
        ("gs://bucket/train", r"`pip install fsspec gcsfs`"),
        ("pipe:cat /etc/passwd {file}", r"refused unless data\.allow_pipe is true"),
    ],
)
def test_places_that_cannot_be_read(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, location: str, sentence: str
) -> None:
    def not_installed(scheme: str) -> None:
        raise ImportError(f"no package for {scheme}")

    monkeypatch.setattr(fsspec, "get_filesystem_class", not_installed)
    with pytest.raises(DataError, match=sentence) as caught:
        open_remote(location, settings)
    assert "secret" not in str(caught.value)


def test_a_query_goes_to_every_file_but_into_no_message(server: Server, settings: dict[str, Any]) -> None:
    remote = open_remote(f"{server.url}/?signature=abc", settings)
    server.tell("000000.tar", "404")
    with pytest.raises(DataError, match=r"train/000000\.tar could not be fetched") as caught:
        list(one_pass(remote, 4))
    assert "abc" not in str(caught.value) + remote.location
    targets = server.targets()
    assert len(targets) > 9
    assert all(target.endswith("?signature=abc") for target in targets)


class Bucket(MemoryFileSystem):
    """An object store in memory, known to fsspec as s3."""

    protocol = "s3"
    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("s3://").strip("/")


def test_object_stores_through_fsspec(built: Path, local: Manifest, settings: dict[str, Any]) -> None:
    fsspec.register_implementation("s3", Bucket, clobber=True)
    try:
        bucket = fsspec.filesystem("s3")
        for path in (built / "train").iterdir():
            bucket.pipe_file(f"bucket/train/{path.name}", path.read_bytes())
        remote = open_remote("s3://bucket/train", settings)
        assert_equal(take(batches_of(remote, num_workers=2), 12), take(batches_of(local), 12))
        with pytest.raises(DataError, match=r"s3://bucket/none/manifest.json .*no such file.*Correct"):
            open_remote("s3://bucket/none", settings)
    finally:
        fsspec.register_implementation("s3", "s3fs.S3FileSystem", clobber=True)


def test_pipe(built: Path, local: Manifest, settings: dict[str, Any]) -> None:
    allowed = settings | {"allow_pipe": True, "fetch_timeout_seconds": 0.3}
    remote = open_remote(f"pipe:cat {built}/train/{{file}}", settings, allow_pipe=True)
    assert remote.fingerprint == local.fingerprint
    assert_equal(list(one_pass(remote, 4)), list(one_pass(local, 4)))
    with pytest.raises(
        DataError, match=r"pipe:cat /none/manifest\.json .*status 1 \(.*No such file.*by hand"
    ):
        open_remote("pipe:cat /none/{file}", allowed)
    with pytest.raises(DataError, match=r"wrote nothing for 0\.3 s"):
        open_remote("pipe:sleep 60; echo {file}", allowed)
    with pytest.raises(DataError, match=r"does not say where the name of the file goes\. Write \{file\}"):
        open_remote("pipe:cat manifest.json", allowed)


def test_pipe_quotes_names_for_the_shell(copy: tuple[Path, str], settings: dict[str, Any]) -> None:
    split, _ = copy
    strange = "$(touch hacked).tar"
    as_version_1(split)
    (split / "000000.tar").rename(split / strange)
    change_manifest(split, '"file": "000000.tar"', f'"file": "{strange}"')
    remote = open_remote(f"pipe:cd {split}; cat {{file}}", settings, allow_pipe=True)
    assert len(list(one_pass(remote, 4))) == 13
    assert not (split / "hacked").exists()


def test_a_table_that_is_not_the_manifests(copy: tuple[Path, str], settings: dict[str, Any]) -> None:
    split, url = copy
    rows = np.load(split / TABLE_FILE)
    rows["num_samples"][0] += 1
    np.save(split / TABLE_FILE, rows)
    with pytest.raises(DataError, match=r"manifest\.shards\.npy could not be fetched .*is not the table"):
        open_remote(url, settings)


# redirects


def test_redirects_to_other_places_are_refused(server: Server, settings: dict[str, Any]) -> None:
    """Another host, port or scheme; and a file of this machine, whatever is allowed."""
    elsewhere = server.root.replace("127.0.0.1", "localhost")
    for target in (f"{elsewhere}/train/manifest.json", "https://127.0.0.1/train/manifest.json", "ftp://h/x"):
        server.tell("manifest.json", f"to {target}")
        with pytest.raises(DataError, match=r"sends it on to .*data.allow_redirects") as caught:
            open_remote(server.url, settings)
        assert target.partition("/train")[0].partition("/x")[0].rpartition(":")[0] in str(caught.value)
    server.tell("manifest.json", f"to {elsewhere}/train/manifest.json", times=1)
    assert open_remote(server.url, settings, allow_redirects=True).num_samples == sum(COUNTS)
    server.tell("manifest.json", "to file:///etc/passwd")
    with pytest.raises(DataError, match="could not be fetched"):
        open_remote(server.url, settings, allow_redirects=True)


def test_redirects_within_the_host_are_followed(server: Server, settings: dict[str, Any]) -> None:
    server.tell("manifest.json", "to /train/../train/manifest.json", times=1)
    assert open_remote(server.url, settings).num_samples == sum(COUNTS)


def test_a_shard_that_is_listed_twice_is_fetched_once(built: Path, settings: dict[str, Any]) -> None:
    """The same content under two names, and both names read by several workers at once."""
    folder = built / "twice"
    (folder / "train").mkdir(parents=True)
    for number in (0, 1, 2):
        shutil.copyfile(built / "train" / TARS[number % 2], folder / "train" / TARS[number])
    index(folder / "train", command="test")
    local = Manifest.load(folder / "train")
    assert local.shards[0].sha256 == local.shards[2].sha256
    with serving(folder) as server:
        remote = open_remote(server.url, settings)
        assert_equal(take(batches_of(remote, num_workers=2), 12), take(batches_of(local), 12))
        assert sum(server.requests()[TARS[number]] for number in (0, 2)) == 1
    shutil.rmtree(folder)
