"""The manifest of a split: what its tar shards hold, without opening one.

    <split>/manifest.json          classes, image shape, and per shard: counts, bytes, sha256
    <split>/000000.tar             the samples (shards/README.md has the schema)
    <split>/000000.index.npy       int64 [n, 3]: offset, size and label of every image member

A manifest is loaded with checks that cost a ``stat`` and a glance at the index per shard, so a
truncated, replaced or missing file is found before the first step; ``verify.verify`` reads all.
Splits that may be URLs are opened by ``split.open_split``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dist_dsvae.data.errors import DataError
from dist_dsvae.data.index_file import check_index, open_index
from dist_dsvae.data.store import LocalStore, Shard, ShardStore
from dist_dsvae.types import ImageShape

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST_FILE",
    "UNLABELLED",
    "DataError",
    "Manifest",
    "Shard",
    "write_atomically",
]

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
UNLABELLED = ("unlabelled",)  # the classes of a split whose labels, all 0, mean nothing


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A split: its classes, the shape of its samples, its shards in order.

    directory: holds the index files and, but for a split from afar, everything else.
    classes: names; a class id is a place in this tuple. ``UNLABELLED`` for a split without labels.
    encoding: extension of the image members ("jpg", "png", "npy", ...), or "mixed".
    command: the command line that made the split, with paths as typed.
    source: what the samples were made from ("folder", "cifar10", ..., "index" for foreign tars).
    remote: where the tars of a split from afar are; None for a local one.
    """

    directory: Path
    format_version: int = FORMAT_VERSION
    classes: tuple[str, ...]
    shape: ImageShape
    encoding: str
    shards: tuple[Shard, ...]
    command: str
    source: str
    remote: ShardStore | None = None

    @property
    def store(self) -> ShardStore:
        """Where the tars are."""
        return self.remote or LocalStore(self.directory)

    @property
    def location(self) -> str:
        """The split's directory or URL, for messages."""
        return self.store.location

    @property
    def num_samples(self) -> int:
        return sum(shard.num_samples for shard in self.shards)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def num_samples_per_shard(self) -> npt.NDArray[np.int64]:
        """int64 [number of shards]."""
        return np.array([shard.num_samples for shard in self.shards], dtype=np.int64)

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) over everything that decides the content and the order of the samples."""
        content = {
            "classes": self.classes,
            "shape": self.shape,
            "shards": [
                [shard.file, shard.num_samples, shard.sha256, sorted(shard.samples_per_class.items())]
                for shard in self.shards
            ],
        }
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def index(self, shard_number: int) -> npt.NDArray[np.int64]:
        """Where the images of a shard lie: int64 [n, 3], memory-mapped (see ``index_file``)."""
        return open_index(self.directory / self.shards[shard_number].index_file, self.store.remedy)

    @classmethod
    def load(cls, directory: str | Path) -> Manifest:
        """Read and check ``directory``/manifest.json.

        Raises DataError if it is missing, not understood, or disagrees with the files beside it.
        """
        directory = Path(directory)
        manifest = cls.parse(_read_local(directory), directory)
        remedy = manifest.store.remedy
        for number, shard in enumerate(manifest.shards):
            _check_local_tar(directory, shard, remedy)
            name = str(directory / shard.index_file)
            check_index(manifest.index(number), shard, manifest.num_classes, name=name, remedy=remedy)
        return manifest

    @classmethod
    def parse(cls, content: bytes, directory: Path, remote: ShardStore | None = None) -> Manifest:
        """The manifest from the bytes of its file. Raises DataError if they are not understood."""
        return _Parser(remote or LocalStore(directory)).manifest(content, directory, remote)

    def save(self) -> None:
        """Write ``directory``/manifest.json in one step: a reader sees the old one or the new one."""
        document: dict[str, Any] = {
            "format_version": self.format_version,
            "source": self.source,
            "command": self.command,
            "shape": self.shape._asdict(),
            "encoding": self.encoding,
            "num_samples": self.num_samples,
            "classes": list(self.classes),
            "shards": [
                {field.name: getattr(shard, field.name) for field in fields(shard)}
                | {"samples_per_class": {str(k): n for k, n in sorted(shard.samples_per_class.items())}}
                for shard in self.shards
            ],
        }
        text = json.dumps(document, ensure_ascii=False, indent=1) + "\n"
        write_atomically(self.directory / MANIFEST_FILE, text.encode())


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file through a temporary name beside it; on return it is on the disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def _read_local(directory: Path) -> bytes:
    if not directory.is_dir():
        raise DataError(
            f"The shard directory {directory} does not exist. Build it with shards/build.py, "
            "or correct the path."
        )
    path = directory / MANIFEST_FILE
    if not path.is_file():
        splits = sorted(folder.parent.name for folder in directory.glob(f"*/{MANIFEST_FILE}"))
        if splits:
            raise DataError(
                f"{directory} is not a split but holds the splits {', '.join(splits)}: "
                f"give one of them, for example {directory / splits[-1]}."
            )
        raise DataError(
            f"{directory} has no {MANIFEST_FILE}. If its tars are complete, "
            f"`python shards/build.py index {directory}` writes one."
        )
    return path.read_bytes()


class _Parser:
    """manifest.json, entry by entry; what is wrong gets a sentence."""

    def __init__(self, store: ShardStore) -> None:
        self.name = store.name(MANIFEST_FILE)
        self.remedy = store.remedy

    def unusable(self, why: str) -> DataError:
        return DataError(f"{self.name} cannot be used: {why}. {self.remedy}")

    def document(self, content: bytes) -> dict[str, Any]:
        try:
            document = json.loads(content)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise self.unusable(f"it is not valid JSON ({error})") from error
        if not isinstance(document, dict):
            raise self.unusable("it does not hold a JSON object")
        if document.get("format_version") != FORMAT_VERSION:
            raise DataError(
                f"{self.name} has format version {document.get('format_version')!r}; this program reads "
                f"version {FORMAT_VERSION}. {self.remedy}"
            )
        return document

    def entry(self, table: Mapping[str, Any], key: str, kind: type, where: str = "") -> Any:
        value = table.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.unusable(f"{where}{key} must be of type {kind.__name__}, but is {value!r}")
        return value

    def manifest(self, content: bytes, directory: Path, remote: ShardStore | None) -> Manifest:
        document = self.document(content)
        shape = self.entry(document, "shape", dict)
        classes = self.entry(document, "classes", list)
        texts = [name for name in classes if isinstance(name, str)]
        if not classes or len(texts) < len(classes) or len(set(texts)) < len(texts):
            raise self.unusable("classes must be a list of different names")
        shards = tuple(self.shard(*item) for item in enumerate(self.entry(document, "shards", list)))
        if not shards:
            raise self.unusable("it lists no shard")
        return Manifest(
            directory=directory,
            classes=tuple(classes),
            shape=ImageShape(*(self.entry(shape, axis, int, "shape.") for axis in ImageShape._fields)),
            encoding=self.entry(document, "encoding", str),
            shards=shards,
            command=self.entry(document, "command", str),
            source=self.entry(document, "source", str),
            remote=remote,
        )

    def shard(self, number: int, table: object) -> Shard:
        where = f"shards[{number}]."
        if not isinstance(table, dict):
            raise self.unusable(f"shards[{number}] is not an object")
        names = {key: self.entry(table, key, str, where) for key in ("file", "index_file")}
        for name in names.values():
            if name != Path(name).name or name in ("", "..") or "\0" in name:
                raise self.unusable(f"{where}file {name!r} is not a plain file name")
        counts = self.entry(table, "samples_per_class", dict, where)
        try:
            samples_per_class = {int(label): int(count) for label, count in counts.items()}
        except (TypeError, ValueError) as error:
            raise self.unusable(f"{where}samples_per_class must map class ids to counts") from error
        num_samples = self.entry(table, "num_samples", int, where)
        if sum(samples_per_class.values()) != num_samples or min(samples_per_class.values(), default=0) < 0:
            raise self.unusable(f"{where}samples_per_class does not add up to {num_samples} samples")
        return Shard(
            **names,
            num_samples=num_samples,
            num_bytes=self.entry(table, "num_bytes", int, where),
            sha256=self.entry(table, "sha256", str, where),
            samples_per_class=samples_per_class,
        )


def _check_local_tar(directory: Path, shard: Shard, remedy: str) -> None:
    """What can be checked without reading the tar."""
    tar = directory / shard.file
    if not tar.is_file():
        raise DataError(f"The shard {tar} is named by its manifest but does not exist. {remedy}")
    found_bytes = tar.stat().st_size
    if found_bytes != shard.num_bytes:
        raise DataError(
            f"The shard {tar} has {found_bytes:,} bytes, but its manifest says {shard.num_bytes:,}: "
            f"the tar is incomplete or was replaced. {remedy}"
        )
