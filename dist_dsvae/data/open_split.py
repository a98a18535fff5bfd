"""Opens a split by its location: a directory, or a URL with a cache on this machine before it.

    <cache>/splits/<hash of the URL>/manifest.json                    as it was last fetched
    <cache>/splits/<hash of the URL>/<fingerprint>/000000.index.npy   all of them, fetched at the start
    <cache>/shards/                                                   the tars (module ``cache``)

The plan, the fingerprint and everything else that decides a run follow from the manifest, so a split
from afar is read as its local twin is. Where the server is gone but the manifest was fetched before,
that one is taken, with a warning: a run can go on for as long as the cache has what it needs.
"""

from __future__ import annotations

import dataclasses
import fcntl
import functools
import hashlib
import io
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from dist_dsvae.config import DataConfig
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.files import write_atomically
from dist_dsvae.core.shipped import at_hand
from dist_dsvae.core.text import parse_json
from dist_dsvae.data.remote.cache import ShardCache
from dist_dsvae.data.remote.fetch import FetchError, Retries, fetch
from dist_dsvae.data.remote.location import is_remote, source_of
from dist_dsvae.data.remote.remote_store import RemoteStore
from dist_dsvae.data.remote.shard_patterns import directory_of
from dist_dsvae.data.shards.index_file import check_index, read_index
from dist_dsvae.data.shards.manifest import GLANCED_AT, MANIFEST_FILE, Manifest
from dist_dsvae.data.shards.presence import suspicious_indexes
from dist_dsvae.data.shards.store import Shard
from dist_dsvae.data.shards.table import TABLE_FILE

logger = logging.getLogger(__name__)

_MAX_MANIFEST_BYTES = 2**30
_MAX_NPY_HEADER_BYTES = 2**16
_INDEXES_AT_ONCE = 8


def open_split(location: str, config: DataConfig | None = None) -> Manifest:
    """The manifest of the split at a directory or URL, checked as ``Manifest.load`` checks it.

    Names that are all the shards of a directory stand for it (``shard_patterns``); the embedded data are
    found from any directory (``shipped.at_hand``).
    config: its cache and its patience (default: a DataConfig's own).
    Raises DataError if the split cannot be had, or is not as its manifest says.
    """
    location = directory_of(location)
    if not is_remote(location):
        return Manifest.load(at_hand(location))
    config = config or DataConfig(train=location)
    root = cache_root(config.cache_dir)
    store = RemoteStore(
        source_of(location, allow_pipe=config.allow_pipe, allow_redirects=config.allow_redirects),
        ShardCache(root / "shards", int(config.cache_gib * 2**30)),
        Retries(
            tries=config.fetch_tries,
            pause_seconds=config.fetch_pause_seconds,
            timeout_seconds=config.fetch_timeout_seconds,
        ),
    )
    folder = root / "splits" / hashlib.sha256(location.encode()).hexdigest()[:24]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _open_remote(store, folder)
    except OSError as error:
        raise DataError(
            f"The cache of fetched shards, {root}, cannot be used ({error.strerror or error}). Mend that, or "
            "choose another local folder with data.cache_dir."
        ) from error


def cache_root(cache_dir: str | None) -> Path:
    """The folder of everything that may be computed or fetched again (``config.DataConfig.cache_dir``)."""
    if cache_dir is not None:
        return Path(cache_dir).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "dist_dsvae"


# manifest and indexes


def _open_remote(store: RemoteStore, folder: Path) -> Manifest:
    content = _fetch_manifest(store, folder / MANIFEST_FILE)
    _fetch_table(store, content, folder / TABLE_FILE)
    manifest = Manifest.parse(content, folder, store)
    manifest = dataclasses.replace(manifest, directory=folder / manifest.fingerprint[:24])
    manifest.directory.mkdir(exist_ok=True)
    if missing := _missing_indexes(manifest):
        with (folder / "lock").open("w") as lock, ThreadPoolExecutor(_INDEXES_AT_ONCE) as pool:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one process of this machine fetches, the others find
            list(pool.map(functools.partial(_fetch_index, manifest, store), missing))
    return manifest


def _missing_indexes(manifest: Manifest) -> list[Shard]:
    """The shards whose index is not here yet, or damaged; looked for as ``Manifest.load`` looks."""
    if len(manifest.shards) > GLANCED_AT:
        numbers = suspicious_indexes(manifest.directory, manifest.shards)
        return [manifest.shards[number] for number in numbers]
    return [shard for shard in manifest.shards if not _is_here(manifest, shard)]


def _is_here(manifest: Manifest, shard: Shard) -> bool:
    try:
        read_index(manifest.directory / shard.index_file, shard, manifest.num_classes, "")
    except DataError:
        return False
    return True


def _fetch_manifest(store: RemoteStore, saved: Path) -> bytes:
    """The manifest's bytes; those fetched last time if nothing can be reached now."""

    def check(content: BinaryIO) -> None:
        parse_json(content.read())  # a whole one, and not some other page

    try:
        return _fetch_to(saved, store, _MAX_MANIFEST_BYTES, check)
    except FetchError as error:
        if error.lasting or not saved.is_file():
            raise
        logger.warning("%s Until then the manifest that was fetched before is used.", error)
        return saved.read_bytes()


def _fetch_table(store: RemoteStore, manifest: bytes, path: Path) -> None:
    """Have the table that ``manifest`` tells the hash of, if it is of a version that has one."""
    document = parse_json(manifest)
    expected = document.get("shards_sha256") if isinstance(document, dict) else None
    if not isinstance(expected, str):
        return
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == expected:
        return

    def check(content: BinaryIO) -> None:
        if hashlib.sha256(content.read()).hexdigest() != expected:
            raise DataError("it is not the table that the manifest was written with")

    _fetch_to(path, store, _MAX_MANIFEST_BYTES, check)


def _fetch_index(manifest: Manifest, store: RemoteStore, shard: Shard) -> None:
    """Have the shard's index in ``manifest.directory``."""
    if _is_here(manifest, shard):  # by another process, before this one had the lock
        return
    path = manifest.directory / shard.index_file

    def check(content: BinaryIO) -> None:
        check_index(content.read(), shard, manifest.num_classes, name=shard.index_file, remedy="")

    _fetch_to(path, store, _MAX_NPY_HEADER_BYTES + 24 * shard.num_samples, check)


def _fetch_to(path: Path, store: RemoteStore, max_bytes: int, check: Callable[[BinaryIO], None]) -> bytes:
    """Fetch the file that the split has under ``path``'s name, and save it there once it is checked."""
    out = io.BytesIO()
    fetch(store.source, path.name, out, max_bytes=max_bytes, check=check, patience=store.patience)
    write_atomically(path, out.getvalue())
    return out.getvalue()
