"""RecordIO files: records in one or several parts, labels, and damage of every kind."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from dist_dsvae.building.sources.recordio import MAGIC, Record, read_records
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.images import open_encoded
from tests.unit.building.recordio_writer import content, write_records

WORD = struct.pack("<I", MAGIC)


def read(folder: Path) -> dict[int, Record]:
    return read_records(folder / "train.rec", folder / "train.idx")


def image(found: Record) -> bytes:
    with open_encoded(found.content) as stream:
        return stream.read()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"abc",
        b"four",
        WORD,
        b"1234" + WORD,
        WORD + b"12345",
        b"1234" + WORD + b"5678" + WORD + WORD + b"9",
        b"12" + WORD + b"34",  # not at a multiple of 4, so not cut
    ],
)
def test_pictures_come_back(tmp_path: Path, data: bytes) -> None:
    write_records(
        tmp_path, [content([3.0], data), content([4.0, 5.0], data), content([6.0], data, array=True)]
    )
    found = read(tmp_path)
    assert [found[key].labels for key in range(3)] == [(3.0,), (4.0, 5.0), (6.0,)]
    assert [image(found[key]) for key in range(3)] == [data] * 3
    assert [found[key].is_empty for key in range(3)] == [not data] * 3


def test_a_label_may_be_the_magic_number(tmp_path: Path) -> None:
    (value,) = struct.unpack("<f", WORD)
    write_records(tmp_path, [content([1.0, value, 2.0], b"picture")])
    found = read(tmp_path)[0]
    assert found.labels == (1.0, value, 2.0)
    assert image(found) == b"picture"


@pytest.mark.parametrize("keep", range(0, 76))
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, keep: int) -> None:
    write_records(tmp_path, [content([1.0], b"1234" + WORD + b"567"), content([2.0], b"x" * 3)])
    whole = (tmp_path / "train.rec").read_bytes()
    assert len(whole) == 48 + 36
    (tmp_path / "train.rec").write_bytes(whole[:keep])
    with pytest.raises(DataError, match=r"train\.rec (cannot be read|is empty).*etch"):
        read(tmp_path)


def test_a_picture_cut_off_after_the_listing(tmp_path: Path) -> None:
    write_records(tmp_path, [content([1.0], b"1234" + WORD + b"567")])
    found = read(tmp_path)[0]
    path = tmp_path / "train.rec"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(OSError, match=r"train\.rec ends before byte"):
        image(found)


def overwrite(path: Path, at: int, content: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[at : at + len(content)] = content
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("at", "damage", "sentence"),
    [
        (0, b"\0", "record 0 of .* no part of it begins at byte 0"),
        (4, struct.pack("<I", 3 << 29 | 27), "no part of it begins at byte 0"),
        (4, struct.pack("<I", 5), "it has 5 bytes, but its header alone has 24"),
        (4, struct.pack("<I", 2**29 - 1), "it needs bytes up to 536,870,919 of 36"),
        (4, struct.pack("<I", 1 << 29 | 28), "the file ends at byte 36, before it"),
        (8, struct.pack("<I", 2**32 - 1), "promises 4,294,967,295 labels"),
    ],
)
def test_damaged_records(tmp_path: Path, at: int, damage: bytes, sentence: str) -> None:
    write_records(tmp_path, [content([1.0], b"123")])
    overwrite(tmp_path / "train.rec", at, damage)
    with pytest.raises(DataError, match=sentence):
        read(tmp_path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "lists no record"),
        ("0\t0\n0\t36\n", "Line 2 of .*a key that no other line has"),
        ("0\n", "Line 1 of"),
        ("0 -4\n", "Line 1 of"),
        ("0 1e3\n", "Line 1 of"),
        ("ä 0\n", "is no index"),
        ("0 4000\n", "the file ends at byte 36"),
    ],
)
def test_damaged_indexes(tmp_path: Path, text: str, sentence: str) -> None:
    write_records(tmp_path, [content([1.0], b"123")])
    (tmp_path / "train.idx").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=sentence):
        read(tmp_path)


@pytest.mark.parametrize("name", ["train.rec", "train.idx"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write_records(tmp_path, [content([1.0], b"123")])
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=rf"{name} is missing"):
        read(tmp_path)
