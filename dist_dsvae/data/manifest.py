"""The manifest of a split: what its tar shards hold, without opening one.

    <split>/manifest.json          classes, image shape, and per shard: counts, bytes, sha256
    <split>/000000.tar             the samples (shards/README.md has the schema)
    <split>/000000.index.npy       int64 [n, 3]: offset, size and label of every image member

A manifest is loaded with checks that cost a ``stat`` and a glance at the index per shard, so a
truncated, replaced or missing file is found before the first step; ``verify.verify`` reads all.
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
from dist_dsvae.types import ImageShape

__all__ = ["FORMAT_VERSION", "MANIFEST_FILE", "DataError", "Manifest", "Shard", "write_atomically"]

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One tar file of a split.

    file, index_file: names inside the split's directory.
    num_bytes: size of the (possibly compressed) tar on disk.
    samples_per_class: class id -> samples, classes without a sample left out.
    """

    file: str
    index_file: str
    num_samples: int
    num_bytes: int
    sha256: str
    samples_per_class: Mapping[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A split: its classes, the shape of its samples, its shards in order.

    classes: names; a class id is a place in this tuple.
    encoding: extension of the image members ("jpg", "png", "npy", ...), or "mixed".
    command: the command line that made the split, with paths as typed.
    source: what the samples were made from ("folder", "cifar10", ..., "index" for foreign tars).
    """

    directory: Path
    format_version: int = FORMAT_VERSION
    classes: tuple[str, ...]
    shape: ImageShape
    encoding: str
    shards: tuple[Shard, ...]
    command: str
    source: str

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
        """Where the images of a shard lie: int64 [n, 3], memory-mapped, in the order of the tar.

        Columns: offset of the image's bytes in the *uncompressed* tar stream, their number, class id.
        """
        return _open_index(self.directory / self.shards[shard_number].index_file)

    @classmethod
    def load(cls, directory: str | Path) -> Manifest:
        """Read and check ``directory``/manifest.json.

        Raises DataError if it is missing, not understood, or disagrees with the files beside it.
        """
        directory = Path(directory)
        manifest = _parse(directory, _read_document(directory))
        for number in range(len(manifest.shards)):
            _check_shard(manifest, number)
        return manifest

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


def _read_document(directory: Path) -> dict[str, Any]:
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
    try:
        document = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _unusable(path, f"it is not valid JSON ({error})") from error
    if not isinstance(document, dict):
        raise _unusable(path, "it does not hold a JSON object")
    if document.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"{path} has format version {document.get('format_version')!r}; this program reads version "
            f"{FORMAT_VERSION}. Rewrite it with `python shards/build.py index {directory}`."
        )
    return document


def _unusable(path: Path, why: str) -> DataError:
    return DataError(
        f"{path} cannot be used: {why}. Rewrite it with `python shards/build.py index {path.parent}`."
    )


def _parse(directory: Path, document: dict[str, Any]) -> Manifest:
    path = directory / MANIFEST_FILE

    def entry(table: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
        value = table.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise _unusable(path, f"{where}{key} must be of type {kind.__name__}, but is {value!r}")
        return value

    def shard(number: int, table: object) -> Shard:
        where = f"shards[{number}]."
        if not isinstance(table, dict):
            raise _unusable(path, f"shards[{number}] is not an object")
        names = {key: entry(table, key, str, where) for key in ("file", "index_file")}
        for name in names.values():
            if name != Path(name).name or not name:
                raise _unusable(path, f"{where}file {name!r} is not a plain file name")
        counts = entry(table, "samples_per_class", dict, where)
        try:
            samples_per_class = {int(label): int(count) for label, count in counts.items()}
        except (TypeError, ValueError) as error:
            raise _unusable(path, f"{where}samples_per_class must map class ids to counts") from error
        num_samples = entry(table, "num_samples", int, where)
        if sum(samples_per_class.values()) != num_samples or min(samples_per_class.values(), default=0) < 0:
            raise _unusable(path, f"{where}samples_per_class does not add up to {num_samples} samples")
        return Shard(
            **names,
            num_samples=num_samples,
            num_bytes=entry(table, "num_bytes", int, where),
            sha256=entry(table, "sha256", str, where),
            samples_per_class=samples_per_class,
        )

    shape = entry(document, "shape", dict, "")
    classes = entry(document, "classes", list, "")
    if not classes or len(set(map(str, classes))) < len(classes) or not all(map(_is_text, classes)):
        raise _unusable(path, "classes must be a list of different names")
    shards = tuple(shard(number, table) for number, table in enumerate(entry(document, "shards", list, "")))
    if not shards:
        raise _unusable(path, "it lists no shard")
    return Manifest(
        directory=directory,
        classes=tuple(classes),
        shape=ImageShape(*(entry(shape, axis, int, "shape.") for axis in ImageShape._fields)),
        encoding=entry(document, "encoding", str, ""),
        shards=shards,
        command=entry(document, "command", str, ""),
        source=entry(document, "source", str, ""),
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _check_shard(manifest: Manifest, number: int) -> None:
    """What can be checked without reading the tar."""
    shard = manifest.shards[number]
    tar = manifest.directory / shard.file
    rebuild = (
        "Copy it again or build the split again; if the new file is meant, run "
        f"`python shards/build.py index {manifest.directory}`."
    )
    if not tar.is_file():
        raise DataError(f"The shard {tar} is named by its manifest but does not exist. {rebuild}")
    found_bytes = tar.stat().st_size
    if found_bytes != shard.num_bytes:
        raise DataError(
            f"The shard {tar} has {found_bytes:,} bytes, but its manifest says {shard.num_bytes:,}: "
            f"the tar is incomplete or was replaced. {rebuild}"
        )
    index_path = manifest.directory / shard.index_file
    index = _open_index(index_path)
    if len(index) != shard.num_samples:
        raise DataError(
            f"The index {index_path} has {len(index):,} rows, but the manifest says that {shard.file} "
            f"holds {shard.num_samples:,} samples. {rebuild}"
        )
    labels = np.asarray(index[:, 2])
    outside = np.flatnonzero((labels < 0) | (labels >= manifest.num_classes))
    if outside.size:
        row = int(outside[0])
        raise DataError(
            f"Sample {row} of the shard {tar} has the label {labels[row]}; allowed are 0 to "
            f"{manifest.num_classes - 1} ({manifest.num_classes} classes in the manifest). {rebuild}"
        )
    found, counts = np.unique(labels, return_counts=True)
    if dict(zip(found.tolist(), counts.tolist(), strict=True)) != {
        label: count for label, count in shard.samples_per_class.items() if count
    }:
        raise DataError(
            f"The labels in {index_path} are not those that the manifest counts per class. {rebuild}"
        )
    ends = index[:, 0] + index[:, 1]
    beyond_end = tar.suffix == ".tar" and int(ends.max(initial=0)) > found_bytes
    if beyond_end or int(index[:, :2].min(initial=0)) < 0:
        raise DataError(f"The index {index_path} points outside the shard {tar}. {rebuild}")


def _open_index(path: Path) -> npt.NDArray[np.int64]:
    remedy = f"`python shards/build.py index {path.parent}` writes it anew."
    try:
        index = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"The index file {path} is missing; {remedy}") from error
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"The index file {path} cannot be read ({error}); {remedy}") from error
    if not isinstance(index, np.ndarray) or index.dtype != np.int64 or index.shape[1:] != (3,):
        raise DataError(f"The index file {path} is not an int64 table of three columns; {remedy}")
    return index
