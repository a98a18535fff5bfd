"""The tars of a split from afar: fetched into the cache, by a thread before they are needed.

    expect(shards) --which are here: hold them--> --the others: download, one at a time, and hold-->

Every process of a machine may run one: what another is downloading is left to it and looked at again,
so that several processes fetch several shards at a time, each of them once.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from dist_dsvae.core.errors import DataError
from dist_dsvae.data.remote.cache import Download, ShardCache
from dist_dsvae.data.remote.fetch import Retries, fetch
from dist_dsvae.data.remote.location import Location
from dist_dsvae.data.shards.store import Prefetcher, Shard
from dist_dsvae.data.shards.unpacked import TAR_SUFFIXES

logger = logging.getLogger(__name__)

_LOOK_AGAIN_SECONDS = 0.2  # at shards that other processes are downloading


@dataclass(frozen=True, slots=True)
class RemoteStore:
    """The tars of a split from afar, fetched into a cache when they are first needed or before."""

    source: Location
    cache: ShardCache
    patience: Retries

    @property
    def remedy(self) -> str:
        return (
            "Build the split again, or index it anew (`dsvae build index DIR`), and put it there again, "
            f"whole; if it is right there, remove {self.cache.directory} and the folder splits beside it on "
            "this machine."
        )

    def name(self, file: str) -> str:
        return self.source.name(file)

    def open(self, shard: Shard) -> BinaryIO:
        """See ``store.ShardStore``. Raises FetchError."""
        return self.cache.open(_cached_name(shard), shard.num_bytes, self._download(shard))

    def open_at_once(self, shard: Shard) -> BinaryIO | None:
        """The same, but None while another process downloads it."""
        return self.cache.open_at_once(_cached_name(shard), shard.num_bytes, self._download(shard))

    def open_present(self, shard: Shard) -> BinaryIO | None:
        """The tar if it is in the cache."""
        return self.cache.open_present(_cached_name(shard), shard.num_bytes)

    def prefetcher(self) -> Prefetcher:
        return BackgroundPrefetcher(self)

    def _download(self, shard: Shard) -> Download:
        def download(out: BinaryIO, waited_seconds: float) -> None:
            fetch(
                self.source,
                shard.file,
                out,
                max_bytes=shard.num_bytes,
                check=functools.partial(_check_tar, shard),
                patience=self.patience,
                waited_seconds=waited_seconds,
            )

        return download


def _cached_name(shard: Shard) -> str:
    suffix = next((suffix for suffix in TAR_SUFFIXES if shard.file.endswith(suffix)), ".tar")
    return shard.sha256 + suffix


def _check_tar(shard: Shard, tar: BinaryIO) -> None:
    num_bytes = tar.seek(0, os.SEEK_END)
    if num_bytes != shard.num_bytes:
        raise DataError(f"it has {num_bytes:,} bytes, but the manifest says {shard.num_bytes:,}")
    tar.seek(0)
    digest = hashlib.sha256()
    while chunk := tar.read(2**20):
        digest.update(chunk)
    found = digest.hexdigest()
    if found != shard.sha256:
        raise DataError(f"its sha256 is {found[:16]}..., but the manifest says {shard.sha256[:16]}...")


class BackgroundPrefetcher:
    """Belongs to the process that made it: a store makes a new one in each."""

    def __init__(self, store: RemoteStore) -> None:
        self._store = store
        self._changed = threading.Condition()
        self._wanted: list[Shard] = []
        self._held: dict[str, BinaryIO] = {}  # sha256 -> the open tar, which the cache does not remove
        self._failed: set[str] = set()
        self._closed = False
        self._thread: threading.Thread | None = None

    def expect(self, shards: Sequence[Shard]) -> None:
        """These are needed next; as many are fetched as the cache may hold. Returns at once."""
        room = self._store.cache.max_bytes
        wanted = []
        for shard in {shard.sha256: shard for shard in shards}.values():  # one file may be several shards
            room -= shard.num_bytes
            if room >= 0:
                wanted.append(shard)
        with self._changed:
            self._wanted = wanted
            self._failed.clear()
            self._let_go_except({shard.sha256 for shard in wanted})
            self._changed.notify()
        if self._thread is None:
            # a daemon: a download that is under way does not delay the end of the process
            self._thread = threading.Thread(target=self._run, name="shard prefetch", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Let go of everything; the thread ends after the download that is under way."""
        with self._changed:
            self._closed = True
            self._let_go_except(set())
            self._changed.notify()

    def _let_go_except(self, kept: set[str]) -> None:
        for sha256 in self._held.keys() - kept:
            self._held.pop(sha256).close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._missing())
                if self._closed:
                    return
                missing = self._missing()
            # First hold what is here already, so that no download makes room by removing it
            absent = [shard for shard in missing if not self._hold(shard, self._store.open_present)]
            if absent and not any(self._hold(shard, self._store.open_at_once) for shard in absent):
                with self._changed:
                    self._changed.wait(_LOOK_AGAIN_SECONDS)

    def _missing(self) -> list[Shard]:
        done = self._held.keys() | self._failed
        return [shard for shard in self._wanted if shard.sha256 not in done]

    def _hold(self, shard: Shard, open_shard: Callable[[Shard], BinaryIO | None]) -> bool:
        """Whether the shard is here now; then it stays until it is no longer expected."""
        try:
            file = open_shard(shard)
        except DataError as error:
            # whoever needs it will try again, and say so
            logger.info("not fetched ahead: %s", error)
            with self._changed:
                self._failed.add(shard.sha256)
            return False
        if file is None:
            return False
        with self._changed:
            expected = shard.sha256 in {wanted.sha256 for wanted in self._wanted}
            if self._closed or not expected or shard.sha256 in self._held:
                file.close()
            else:
                self._held[shard.sha256] = file
        return True
