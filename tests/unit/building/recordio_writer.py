"""MXNet RecordIO files as insightface hands them out, made by the tests."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

MAGIC = struct.pack("<I", 0xCED7230A)


def content(labels: Sequence[float], image: bytes, *, array: bool = False) -> bytes:
    """IRHeader and picture; one label goes into the header itself unless ``array``."""
    if len(labels) == 1 and not array:
        return struct.pack("<IfQQ", 0, labels[0], 7, 0) + image
    header = struct.pack("<IfQQ", len(labels), 0.0, 7, 0)
    return header + struct.pack(f"<{len(labels)}f", *labels) + image


def record(data: bytes) -> bytes:
    """A record, cut into parts where ``data`` has the magic number at a multiple of 4."""
    cuts = [at for at in range(0, len(data) // 4 * 4, 4) if data[at : at + 4] == MAGIC]
    starts, ends = [0, *(at + 4 for at in cuts)], [*cuts, len(data)]
    written = b""
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        kind = 0 if not cuts else 1 if number == 0 else 3 if number == len(cuts) else 2
        part = data[start:end]
        written += MAGIC + struct.pack("<I", kind << 29 | len(part)) + part + bytes(-len(part) % 4)
    return written


def write_records(folder: Path, contents: Sequence[bytes], name: str = "train") -> None:
    """name.rec and name.idx; the keys are 0, 1, 2, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    offsets, written = [], b""
    for data in contents:
        offsets.append(len(written))
        written += record(data)
    (folder / f"{name}.rec").write_bytes(written)
    lines = "".join(f"{key}\t{offset}\n" for key, offset in enumerate(offsets))
    (folder / f"{name}.idx").write_text(lines)


def write_faces(folder: Path, sizes: Sequence[int]) -> None:
    """Identity i has sizes[i] pictures, each of one colour: (10 * identity, 20 * place, 0)."""
    images = []
    for identity, size in enumerate(sizes):
        for place in range(size):
            stream = io.BytesIO()
            Image.new("RGB", (12, 12), (10 * identity, 20 * place, 0)).save(stream, format="PNG")
            images.append(content([float(identity)], stream.getvalue()))
    first = 1 + len(images)
    ranges, start = [], 1
    for size in sizes:
        ranges.append(content([float(start), float(start + size)], b""))
        start += size
    header = content([float(first), float(first + len(sizes))], b"")
    write_records(folder, [header, *images, *ranges])
    (folder / "property").write_text(f"{len(sizes)},112,112\n")
