"""A manifest is read back as written, and every disagreement with the files gets a sentence."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dist_dsvae.building.indexing import index
from dist_dsvae.building.verify import verify
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.types import ImageShape
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.shards.table import TABLE_FILE
from tests.unit.data.making import CLASSES, as_version_1, images_of, png, write_values


@pytest.fixture
def split(tmp_path: Path) -> Path:
    write_values(tmp_path / "train", list(range(10)))
    return tmp_path / "train"


@pytest.mark.parametrize("version", [1, 2])
def test_what_was_written_is_read(split: Path, version: int) -> None:
    if version == 1:
        as_version_1(split)
    manifest = Manifest.load(split)
    assert manifest.classes == CLASSES
    assert manifest.num_samples == 10
    assert manifest.num_classes == 3
    assert manifest.num_samples_per_shard.tolist() == [4, 4, 2]
    assert manifest.num_samples_per_shard.dtype == np.int64
    assert manifest.shape == (1, 4, 4)
    assert manifest.encoding == "png"
    found = sorted(image for number in range(3) for image in images_of(manifest, number))
    assert found == sorted((png(value), value % 3) for value in range(10))
    assert manifest.samples_per_class == (4, 3, 3)
    verify(manifest)


def test_versions_have_one_fingerprint(split: Path) -> None:
    """A run that was begun with shards of version 1 goes on with the same shards indexed anew."""
    now = Manifest.load(split)
    as_version_1(split)
    before = Manifest.load(split)
    text = {
        "classes": before.classes,
        "shape": before.shape,
        "shards": [
            [shard.file, shard.num_samples, shard.sha256, sorted((shard.samples_per_class or {}).items())]
            for shard in before.shards
        ],
    }
    assert hashlib.sha256(json.dumps(text).encode()).hexdigest() == before.fingerprint == now.fingerprint


def test_saving_again_changes_nothing(split: Path) -> None:
    before = (split / "manifest.json").read_bytes()
    Manifest.load(str(split)).save()
    assert (split / "manifest.json").read_bytes() == before
    assert not list(split.glob(".*"))


def test_fingerprint_follows_content_not_place(tmp_path: Path, split: Path) -> None:
    same = write_values(tmp_path / "copy", list(range(10))).manifest
    other = write_values(tmp_path / "other", list(range(1, 11))).manifest
    assert Manifest.load(split).fingerprint == same.fingerprint != other.fingerprint


def change(key: str, value: object) -> Callable[[Path], None]:
    """Set an entry of the manifest; of version 1, where it is one of its shards."""

    def apply(split: Path) -> None:
        if key == "shards" or key.startswith("shard."):
            as_version_1(split)
        path = split / "manifest.json"
        document: dict[str, Any] = json.loads(path.read_text())
        table = document["shards"][0] if key.startswith("shard.") else document
        table[key.removeprefix("shard.")] = value
        path.write_text(json.dumps(document))

    return apply


def change_table(column: str, value: object, *, signed: bool = False) -> Callable[[Path], None]:
    """Set an entry of the table's first row. signed: the manifest has the new table's hash."""

    def apply(split: Path) -> None:
        rows = np.load(split / TABLE_FILE)
        if column == "file":
            rows = rows.astype([("file", "S20"), *rows.dtype.descr[1:]])
        rows[0][column] = value
        np.save(split / TABLE_FILE, rows)
        if signed:
            change("shards_sha256", hashlib.sha256((split / TABLE_FILE).read_bytes()).hexdigest())(split)

    return apply


def shorten_tar(split: Path) -> None:
    tar = split / "000001.tar"
    tar.write_bytes(tar.read_bytes()[:-1024])


def change_index(rows: object) -> Callable[[Path], None]:
    return lambda split: np.save(split / "000000.index.npy", np.array(rows))


IMPOSSIBLE = [(-1, 4, 4), (0, 0, 0), (2, 4, 4), (1, 4, 0), (3, -4, -4), (3, 10**6, 10**6), (10**12, 0, 0)]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda s: (s / "manifest.json").unlink(), r"has no manifest.json.*dsvae build index .*train"),
        (lambda s: (s / "manifest.json").write_text("{"), r"manifest.json cannot be used: .*not valid JSON"),
        (lambda s: (s / "manifest.json").write_bytes(b"\xff"), "not valid JSON"),
        (lambda s: (s / "manifest.json").write_text("[]"), "does not hold a JSON object"),
        (change("format_version", 99), "format version 99; this program reads version 1 and 2"),
        (change("classes", "abc"), "classes must be of type list"),
        (change("classes", ["a", "a", "b"]), "list of different names"),
        (change("shape", {"channels": 1, "height": 4}), "shape.width must be of type int, but is None"),
        (change("classes", ["a", "b", "\ud800"]), r"not valid JSON \(it holds half a character"),
        *(
            (
                change("shape", dict(zip(ImageShape._fields, shape, strict=True))),
                "no samples here are of the shape",
            )
            for shape in IMPOSSIBLE
        ),
        (change("shards", []), "lists no shard"),
        (change("shards", [1]), r"shards\[0\] is not an object"),
        (change("samples_per_class", [4, 3]), "must have a count for each class"),
        (change("samples_per_class", [4, 3, 4]), "does not add up to the samples of its shards"),
        (change("fingerprint", "../../x"), "'../../x', which is not 64 hexadecimal digits"),
        (lambda s: (s / TABLE_FILE).unlink(), r"manifest\.shards\.npy, the table beside .* cannot be read"),
        (change_table("num_samples", -1), "is not the table that .* was written with"),
        (change_table("num_samples", -1, signed=True), "has a negative number of samples"),
        (change_table("file", b"../000000.tar", signed=True), "is no plain name of a tar"),
        (change_table("num_bytes", 7, signed=True), "but its manifest says 7: the tar is incomplete"),
        (change("shard.file", "../000000.tar"), "not a plain file name"),
        (change("shard.num_samples", 5), "does not add up to 5 samples"),
        (change("shard.num_samples", True), "num_samples must be of type int"),
        (change("shard.samples_per_class", {"x": 4}), "must map class ids to counts"),
        (change("shard.samples_per_class", {"0": 4}), "not those that the manifest counts"),
        (lambda s: (s / "000002.tar").unlink(), "000002.tar is named by its manifest but does not exist"),
        (shorten_tar, r"000001.tar has [0-9,]+ bytes, but its manifest says .* incomplete or was replaced"),
        (lambda s: (s / "000001.index.npy").unlink(), "000001.index.npy is missing"),
        (lambda s: (s / "000001.index.npy").write_bytes(b"no"), "000001.index.npy cannot be read"),
        (change_index([[0, 0, 0]]), "has 1 rows, but the manifest says that 000000.tar holds 4"),
        (change_index([[0, 0]] * 4), "not an int64 table of three columns"),
        (change_index([[0, 0, 0.0]] * 4), "not an int64 table of three columns"),
        (change_index([[0, 0, 7]] * 4), r"label 7; allowed are 0 to 2 \(3 classes"),
        (change_index([[0, 0, -1]] * 4), "label -1; allowed are 0 to 2"),
    ],
)
def test_every_disagreement_gets_a_sentence(
    split: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    damage(split)
    with pytest.raises(DataError, match=sentence):
        Manifest.load(split)


def test_an_index_beyond_the_tar_is_found(split: Path) -> None:
    rows = np.array(Manifest.load(split).index(0))
    rows[0, 0] = 10**9
    np.save(split / "000000.index.npy", rows)
    with pytest.raises(DataError, match="points outside the shard"):
        Manifest.load(split)


def test_a_missing_directory_and_a_parent_of_splits(tmp_path: Path, split: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist\. Build it"):
        Manifest.load(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds the splits train: give one of them, for example .*train"):
        Manifest.load(tmp_path)


def test_verify_finds_a_changed_byte(split: Path) -> None:
    tar = split / "000000.tar"
    content = bytearray(tar.read_bytes())
    content[600] ^= 1
    tar.write_bytes(content)
    manifest = Manifest.load(split)  # the size is right, so the cheap checks pass
    with pytest.raises(DataError, match=r"000000.tar has the sha256 .*content was changed"):
        verify(manifest)


def test_verify_finds_an_edited_fingerprint(split: Path) -> None:
    change("fingerprint", "0" * 64)(split)
    with pytest.raises(DataError, match=r"fingerprint in .* is not that of its shards"):
        verify(Manifest.load(split))


def test_an_index_is_looked_at_when_it_is_opened(split: Path) -> None:
    manifest = Manifest.load(split)
    change_index([[0, 0, 7]] * 4)(split)
    with pytest.raises(DataError, match="label 7; allowed are 0 to 2"):
        manifest.index(0)


def test_labels_that_only_the_hash_tells(split: Path) -> None:
    """Of another index, as plausible: the same rows and classes, and other labels."""
    manifest = Manifest.load(split)
    rows = np.array(manifest.index(0))
    rows[:, 2] = (rows[:, 2] + 1) % 3
    np.save(split / "000000.index.npy", rows)
    for look in (lambda: manifest.index(0), lambda: Manifest.load(split)):
        with pytest.raises(DataError, match=r"000000\.index\.npy is not as it was written: its sha256 is"):
            look()


def test_a_version_1_that_is_saved_knows_no_hashes_of_indexes(split: Path) -> None:
    as_version_1(split)
    Manifest.load(split).save()
    assert [shard.index_sha256 for shard in Manifest.load(split).shards] == [None] * 3
    verify(Manifest.load(split))


def test_verify_finds_a_wrong_index(split: Path) -> None:
    rows = np.array(Manifest.load(split).index(0))
    rows[2, 0] += 512
    sound = (split / "000000.index.npy").read_bytes()
    np.save(split / "000000.index.npy", rows)
    with pytest.raises(DataError, match=r"000000\.index\.npy is not as it was written.*dsvae build index"):
        Manifest.load(split)
    (split / "000000.index.npy").write_bytes(sound)
    as_version_1(split)
    np.save(split / "000000.index.npy", rows)
    with pytest.raises(DataError, match=r"The sample '0000000\d' of the shard .*000000.index.npy says"):
        verify(Manifest.load(split))


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("shape", {"channels": 1, "height": 8, "width": 8}, r"has the shape \(1, 4, 4\), but the manifest"),
        ("encoding", "jpg", "are png, but the manifest says jpg"),
    ],
)
def test_verify_finds_a_wrong_shape_or_encoding(split: Path, key: str, value: object, sentence: str) -> None:
    change(key, value)(split)
    with pytest.raises(DataError, match=sentence):
        verify(Manifest.load(split))


def test_the_remedy_in_the_sentences_works(split: Path) -> None:
    shorter = split / "000001.tar"
    shorter.write_bytes((split / "000000.tar").read_bytes())
    (split / "000002.index.npy").write_bytes(b"damaged")
    with pytest.raises(DataError, match="dsvae build index"):
        Manifest.load(split)
    index(split, command="index")
    verify(Manifest.load(split))
