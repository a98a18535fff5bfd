"""The manifest of a split: what its tar shards hold, without opening one.

    <split>/manifest.json          for people: classes and their counts, image shape, fingerprint
    <split>/manifest.shards.npy    per shard: samples, bytes, hashes (``table``)
    <split>/000000.tar             the samples (shards/README.md has the schema)
    <split>/000000.index.npy       int64 [n, 3]: offset, size and label of every image member

A manifest is loaded with checks that cost two ``stat`` per shard, and for up to 1,000 shards a glance at
their indexes, so a truncated, replaced or missing file is found before the first step; when a shard is
opened, its index and the tar's time are looked at, too, and ``verify.verify`` reads all. Version 1 had
everything in one JSON file and is still read. Splits that may be URLs are opened by ``open_split``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dist_dsvae.core.errors import DataError
from dist_dsvae.core.faces.crop_record import RECORD_KEY, FaceCrops
from dist_dsvae.core.files import write_together
from dist_dsvae.core.text import clause, parse_json
from dist_dsvae.core.types import ImageShape
from dist_dsvae.data.shards.index_file import read_index
from dist_dsvae.data.shards.presence import check_files
from dist_dsvae.data.shards.store import LocalStore, Shard, ShardStore
from dist_dsvae.data.shards.table import (
    TABLE_FILE,
    ShardTable,
    check_table,
    fingerprint_of,
    samples_per_class_of,
)

FORMAT_VERSION = 2
_READABLE_VERSIONS = (1, 2)
GLANCED_AT = 1000  # so many indexes are looked into when a manifest is loaded
MANIFEST_FILE = "manifest.json"
UNLABELLED = ("unlabelled",)  # the classes of a split whose labels, all 0, mean nothing


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A split: its classes, the shape of its samples, its shards in order.

    directory: holds the index files and, but for a split from afar, everything else.
    classes: names; a class id is a place in this tuple. ``UNLABELLED`` for a split without labels.
    encoding: extension of the image members ("jpg", "png", "npy", ...), or "mixed".
    samples_per_class: in the order of ``classes``.
    fingerprint: sha256 (hex) over everything that decides the content and the order of the samples.
    command: the command line that made the split, with paths as typed.
    source: what the samples were made from ("folder", "cifar10", ..., "index" for foreign tars).
    face_crops: how the samples were cut out of photographs, if they are faces and it is known.
    remote: where the tars of a split from afar are; None for a local one.
    modified_ns: when each tar had been changed last as the split was loaded (``presence``), int64 [number of
        shards]; None where that is not known, or of a split from afar.
    """

    directory: Path
    classes: tuple[str, ...]
    shape: ImageShape
    encoding: str
    shards: ShardTable
    samples_per_class: tuple[int, ...]
    fingerprint: str
    command: str
    source: str
    face_crops: FaceCrops | None = None
    remote: ShardStore | None = None
    modified_ns: npt.NDArray[np.int64] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        *,
        directory: Path,
        classes: tuple[str, ...],
        shape: ImageShape,
        encoding: str,
        shards: Sequence[Shard],
        command: str,
        source: str,
        face_crops: FaceCrops | None = None,
    ) -> Manifest:
        """The manifest of shards that know their samples per class."""
        return cls(
            directory=directory,
            classes=classes,
            shape=shape,
            encoding=encoding,
            shards=ShardTable.of(shards),
            samples_per_class=samples_per_class_of(shards, len(classes)),
            fingerprint=fingerprint_of(classes, shape, shards),
            command=command,
            source=source,
            face_crops=face_crops,
        )

    @property
    def store(self) -> ShardStore:
        """Where the tars are."""
        return self.remote or LocalStore(self.directory)

    @property
    def location(self) -> str:
        """The split's directory or URL, for messages."""
        return self.store.name("")

    @property
    def num_samples(self) -> int:
        return int(self.num_samples_per_shard.sum())

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def num_samples_per_shard(self) -> npt.NDArray[np.int64]:
        """int64 [number of shards]."""
        return np.ascontiguousarray(self.shards.rows["num_samples"], dtype=np.int64)

    def index(self, shard_number: int) -> npt.NDArray[np.int64]:
        """Where the images of a shard lie: int64 [n, 3] (see ``index_file``).

        Raises DataError if it is missing or disagrees with the manifest.
        """
        shard = self.shards[shard_number]
        return read_index(self.directory / shard.index_file, shard, self.num_classes, self.store.remedy)

    @classmethod
    def load(cls, directory: str | Path) -> Manifest:
        """Read and check ``directory``/manifest.json.

        Raises DataError if it is missing, not understood, or disagrees with the files beside it.
        """
        directory = Path(directory)
        manifest = cls.parse(_read_local(directory), directory)
        suspicious, modified_ns = check_files(directory, manifest.shards, manifest.store.remedy)
        for number in range(len(manifest.shards)) if len(manifest.shards) <= GLANCED_AT else suspicious:
            manifest.index(number)
        return replace(manifest, modified_ns=modified_ns)

    @classmethod
    def parse(cls, content: bytes, directory: Path, remote: ShardStore | None = None) -> Manifest:
        """The manifest from the bytes of its file, and from the table in ``directory``.

        Raises DataError if they are not understood.
        """
        return _Parser(remote or LocalStore(directory)).manifest(content, directory, remote)

    def save(self) -> None:
        """Write the table, then ``directory``/manifest.json, each in one step."""
        write_together(self.files())

    def files(self) -> list[tuple[Path, bytes]]:
        """Paths and contents of the table and of manifest.json, in the order in which they are written."""
        table = self.shards.to_bytes()
        document: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "source": self.source,
            "command": self.command,
            "shape": self.shape._asdict(),
            "encoding": self.encoding,
            "num_samples": self.num_samples,
            "num_shards": len(self.shards),
            "fingerprint": self.fingerprint,
            "shards_sha256": hashlib.sha256(table).hexdigest(),
            "classes": list(self.classes),
            "samples_per_class": list(self.samples_per_class),
        }
        if self.face_crops is not None:
            document[RECORD_KEY] = self.face_crops.to_tree()
        text = json.dumps(document, ensure_ascii=False, indent=1) + "\n"
        return [(self.directory / TABLE_FILE, table), (self.directory / MANIFEST_FILE, text.encode())]


def _read_local(directory: Path) -> bytes:
    if not directory.is_dir():
        raise DataError(
            f"The shard directory {directory} does not exist. Build it with `dsvae build`, "
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
            f"`dsvae build index {directory}` writes one."
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
            document = parse_json(content)
        except ValueError as error:
            raise self.unusable(f"it is not valid JSON ({error})") from error
        if not isinstance(document, dict):
            raise self.unusable("it does not hold a JSON object")
        if document.get("format_version") not in _READABLE_VERSIONS:
            raise DataError(
                f"{self.name} has format version {document.get('format_version')!r}; this program reads "
                f"version {' and '.join(map(str, _READABLE_VERSIONS))}. {self.remedy}"
            )
        return document

    def entry(self, table: Mapping[str, Any], key: str, kind: type, where: str = "") -> Any:
        value = table.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.unusable(f"{where}{key} must be of type {kind.__name__}, but is {value!r}")
        return value

    def hash(self, table: Mapping[str, Any], key: str, where: str = "") -> str:
        """A sha256: it becomes a file name in the cache."""
        text: str = self.entry(table, key, str, where)
        if not re.fullmatch("[0-9a-f]{64}", text):
            raise self.unusable(f"{where}{key} is {text[:80]!r}, which is not 64 hexadecimal digits")
        return text

    def manifest(self, content: bytes, directory: Path, remote: ShardStore | None) -> Manifest:
        document = self.document(content)
        classes = self.entry(document, "classes", list)
        texts = {name for name in classes if isinstance(name, str)}
        if not classes or len(texts) < len(classes):
            raise self.unusable("classes must be a list of different names")
        described: dict[str, Any] = {
            "directory": directory,
            "classes": tuple(classes),
            "shape": self.shape(self.entry(document, "shape", dict)),
            "encoding": self.entry(document, "encoding", str),
            "command": self.entry(document, "command", str),
            "source": self.entry(document, "source", str),
            "face_crops": self.face_crops(document),
        }
        if document["format_version"] == 1:
            shards = tuple(self.shard(*item) for item in enumerate(self.entry(document, "shards", list)))
            if not shards:
                raise self.unusable("it lists no shard")
            return replace(Manifest.of(**described, shards=shards), remote=remote)
        table = self.table(directory, self.entry(document, "shards_sha256", str))
        counts = self.entry(document, "samples_per_class", list)
        if len(counts) != len(classes) or not all(type(count) is int and count >= 0 for count in counts):
            raise self.unusable("samples_per_class must have a count for each class")
        if sum(counts) != int(table.rows["num_samples"].sum()):
            raise self.unusable("samples_per_class does not add up to the samples of its shards")
        return Manifest(
            **described,
            shards=table,
            samples_per_class=tuple(counts),
            fingerprint=self.hash(document, "fingerprint"),
            remote=remote,
        )

    def shape(self, axes: Mapping[str, Any]) -> ImageShape:
        shape = ImageShape(*(self.entry(axes, axis, int, "shape.") for axis in ImageShape._fields))
        if not shape.is_possible:
            raise self.unusable(f"no samples here are of the shape {tuple(shape)}")
        return shape

    def face_crops(self, document: Mapping[str, Any]) -> FaceCrops | None:
        try:
            return FaceCrops.from_document(document)
        except DataError as error:
            raise self.unusable(clause(error)) from None

    def table(self, directory: Path, sha256: str) -> ShardTable:
        path = directory / TABLE_FILE
        try:
            with path.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            rows = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(
                f"{path}, the table beside {self.name}, cannot be read ({error}). {self.remedy}"
            ) from error
        if found != sha256:
            raise DataError(f"{path} is not the table that {self.name} was written with. {self.remedy}")
        return ShardTable(check_table(rows, str(path), self.remedy))

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
            sha256=self.hash(table, "sha256", where),
            samples_per_class=samples_per_class,
        )
