"""Small shards and raw data for the tests of this folder."""

from __future__ import annotations

import io
import json
import os
import struct
import sys
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dist_dsvae.building.tar_scan import find_tars, scan
from dist_dsvae.building.verify import verify
from dist_dsvae.building.writer import Layout, Sample, UnreadableError, Written, write_split
from dist_dsvae.commands import build
from dist_dsvae.core.types import ImageShape
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.shards.table import TABLE_FILE

REPOSITORY = Path(__file__).parents[3]
CLASSES = ("apple", "bäume", "cat")


def png(value: int, size: tuple[int, int] = (4, 4), mode: str = "L") -> bytes:
    """A PNG of one grey value; ``size`` is (width, height)."""
    stream = io.BytesIO()
    Image.new("L", size, value).convert(mode).save(stream, format="PNG")
    return stream.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A few bytes that promise so many pixels."""

    return _png_of(struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"")


def deep_png(value: int, size: int = 8) -> bytes:
    """A colour PNG of 16 bits, all of whose values are ``value``."""
    rows = (b"\0" + struct.pack(">H", value) * 3 * size) * size
    return _png_of(struct.pack(">IIBBBBB", size, size, 16, 2, 0, 0, 0), zlib.compress(rows))


def _png_of(header: bytes, pixels: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def encode_value(sample: Sample[int]) -> tuple[bytes, dict[str, object]]:
    """A 4x4 PNG whose grey value is the reference; negative references cannot be read."""
    if sample.reference < 0:
        raise UnreadableError("it is negative")
    return png(sample.reference), {"value": sample.reference}


def write_values(
    directory: Path,
    values: list[int],
    *,
    num_workers: int = 1,
    samples_per_shard: int = 4,
    archive: str = "none",
) -> Written:
    """A split whose sample of value v has the class v modulo 3."""
    return write_split(
        directory,
        [Sample(value, value % len(CLASSES), f"value {value}") for value in values],
        encode_value,
        Layout(
            shape=ImageShape(1, 4, 4),
            extension="png",
            samples_per_shard=samples_per_shard,
            archive=archive,  # type: ignore[arg-type]
        ),
        classes=CLASSES,
        command="python shards/build.py a test",
        source="test",
        num_workers=num_workers,
    )


def images_of(manifest: Manifest, number: int) -> list[tuple[bytes, int]]:
    """(image bytes, label) of every sample of an uncompressed shard, by its index."""
    content = (manifest.directory / manifest.shards[number].file).read_bytes()
    return [(content[start : start + size], label) for start, size, label in manifest.index(number).tolist()]


def change_unnoticed(path: Path, content: bytes) -> None:
    """Other content, as a failing disk changes it: the time stays as it was."""
    status = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def as_version_1(split: Path) -> None:
    """Write the manifest of ``split`` as version 1 had it, and remove the table."""
    manifest = Manifest.load(split)
    path = split / "manifest.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    for key in ("num_shards", "fingerprint", "shards_sha256", "samples_per_class"):
        del document[key]
    document["format_version"] = 1
    document["shards"] = [
        {
            "file": shard.file,
            "index_file": shard.index_file,
            "num_samples": shard.num_samples,
            "num_bytes": shard.num_bytes,
            "sha256": shard.sha256,
            "samples_per_class": dict(Counter(str(label) for label in manifest.index(number)[:, 2].tolist())),
        }
        for number, shard in enumerate(manifest.shards)
    ]
    path.write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")
    (split / TABLE_FILE).unlink()


def all_files(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def run_build(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit status of ``python shards/build.py ARGUMENTS --workers 1`` run in this process."""
    extra = [] if arguments[0] == "verify" else ["--workers", "1"]
    monkeypatch.setattr(build, "say_start", lambda: None)
    monkeypatch.setattr(sys, "argv", ["shards/build.py", *map(str, arguments), *extra])
    status: int = build.main()
    return status


def write_idx(path: Path, array: np.ndarray) -> None:
    """An idx file of unsigned bytes."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def samples_of(split: Path) -> list[tuple[bytes, int, dict[str, Any]]]:
    """(image bytes, label, json) of every sample of a verified split."""
    manifest = Manifest.load(split)
    verify(manifest)
    return [
        (
            sample.members[manifest.encoding].content,
            int(sample.members["cls"].content),
            json.loads(sample.members["json"].content),
        )
        for tar in find_tars(split)
        for sample in scan(tar)
    ]
