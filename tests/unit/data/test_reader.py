"""Compressed shards: unpacked as far as their index says, and no more of them than a window has."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import resource
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from dist_dsvae.building.indexing import index
from dist_dsvae.core.errors import DataError
from dist_dsvae.data.reader import ShardReader
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.shards.table import ShardTable
from dist_dsvae.data.shards.unpacked import open_uncompressed
from tests.unit.data.test_fuzz import tar_of

PACK = {".tar.gz": gzip.compress, ".tar.xz": lzma.compress}


def split(directory: Path, suffix: str, shards: int = 1) -> Manifest:
    for number in range(shards):
        (directory / f"{number:06d}{suffix}").write_bytes(PACK[suffix](tar_of(3)))
    index(directory, command="a test")
    return Manifest.load(directory)


@pytest.mark.parametrize("suffix", PACK)
def test_a_bomb_behind_the_samples_is_not_unpacked(suffix: str, tmp_path: Path) -> None:
    """A gigabyte of zeros, which pack to a megabyte, follows what the index knows of."""
    manifest = split(tmp_path, suffix)
    zeros = PACK[suffix](bytes(2**26))
    with (tmp_path / f"000000{suffix}").open("ab") as file:
        for _ in range(16):
            file.write(zeros)
    manifest = replace(manifest, modified_ns=None)  # as if it had been there when the manifest was loaded
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reader = ShardReader(manifest, max_open_shards=1)
    content, label = reader.read(0, 2)
    assert (bytes(content[1:4]), label) == (b"PNG", 0)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000


@pytest.mark.parametrize("suffix", PACK)
def test_a_shard_that_claims_too_much_gets_a_sentence(suffix: str, tmp_path: Path) -> None:
    manifest = split(tmp_path, suffix)
    rows = np.array(manifest.index(0))
    for end, sentence in (
        (2**40, "at most 2,147,483,648 are held in memory"),
        (10**6, "ends before its last"),
    ):
        rows[2, 0] = end
        np.save(tmp_path / "000000.index.npy", rows)
        written = (tmp_path / "000000.index.npy").read_bytes()
        shard = replace(manifest.shards[0], index_sha256=hashlib.sha256(written).hexdigest())
        crafted = replace(manifest, shards=ShardTable.of([shard]))
        with pytest.raises(DataError, match=sentence):
            ShardReader(crafted, max_open_shards=1).read(0, 0)


class Content(bytearray):
    """Bytes whose life can be followed."""


class Unpacked:
    """The stream of a tar; what is read of it is noted in ``contents``."""

    def __init__(self, stream: BinaryIO, contents: list[weakref.ref[Content]]) -> None:
        self.stream, self.contents = stream, contents

    def read(self, size: int) -> Content:
        content = Content(self.stream.read(size))
        self.contents.append(weakref.ref(content))
        return content


def test_no_more_are_held_than_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = split(tmp_path, ".tar.gz", 5)
    reader = ShardReader(manifest, max_open_shards=2)
    held: list[int] = []
    contents: list[weakref.ref[Content]] = []

    @contextmanager
    def counted(path: Path) -> Iterator[Unpacked]:
        held.append(sum(content() is not None for content in contents))
        with open_uncompressed(path) as stream:
            yield Unpacked(stream, contents)

    monkeypatch.setattr("dist_dsvae.data.reader.open_uncompressed", counted)
    for number in (0, 1, 2, 3, 4, 4, 3, 0):
        reader.read(number, 0)
    assert held == [0, 1, 1, 1, 1, 1]  # while another one is unpacked


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_a_shard_that_is_replaced_while_its_split_is_read(suffix: str, tmp_path: Path) -> None:
    """Another build at the same place, with members of the same sizes, is told by its time, then its hash."""
    path = tmp_path / f"000000{suffix}"
    path.write_bytes(PACK.get(suffix, bytes)(tar_of(3)))
    index(tmp_path, command="a test")
    manifest, content = Manifest.load(tmp_path), path.read_bytes()
    seen = bytes(ShardReader(manifest, max_open_shards=1).read(0, 2)[0])

    path.unlink()
    path.write_bytes(content)  # the same data set, copied anew
    assert bytes(ShardReader(manifest, max_open_shards=1).read(0, 2)[0]) == seen

    path.write_bytes(PACK.get(suffix, bytes)(tar_of(3).replace(b"000002.cls", b"000002.CLS")))
    with pytest.raises(
        DataError, match=r"The shard .*000000\.tar.* was replaced while its split was being read"
    ):
        ShardReader(manifest, max_open_shards=1).read(0, 2)
