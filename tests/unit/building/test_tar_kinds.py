"""Tars of every kind are read to their end or refused by name, and labels never change without a word."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dist_dsvae.building.indexing import index
from dist_dsvae.building.tar_scan import find_splits
from dist_dsvae.building.verify import verify
from dist_dsvae.config import DataConfig
from dist_dsvae.core.errors import DataError
from dist_dsvae.data.open_split import open_split
from dist_dsvae.data.open_splits import open_splits
from dist_dsvae.data.reader import ShardReader
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.shards.system_names import HEADING
from dist_dsvae.data.shards.tar_members import promises
from tests.unit.building.test_indexing import index_one, labelled, write_tar
from tests.unit.data.making import as_version_1, png


def tar_of(folder: Path, keys: list[str]) -> bytes:
    files = {}
    for number, key in enumerate(keys):
        files |= {f"{key}.png": png(number), f"{key}.cls": str(number % 2).encode()}
    return write_tar(folder / "made.tar_", files).read_bytes()


def put(directory: Path, file: str, content: bytes) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / file).write_bytes(content)
    return directory


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.xz"])
@pytest.mark.parametrize("packed_apart", [False, True])
def test_archives_joined_end_to_end(tmp_path: Path, suffix: str, packed_apart: bool) -> None:
    pack: Callable[[bytes], bytes] = {".tar": bytes, ".tar.gz": gzip.compress, ".tar.xz": lzma.compress}[
        suffix
    ]
    parts = [tar_of(tmp_path, ["a", "b"]), tar_of(tmp_path, ["c"]), tar_of(tmp_path, ["d", "e"])]
    content = b"".join(map(pack, parts)) if packed_apart else pack(b"".join(parts))
    manifest = index_one(put(tmp_path / "shards", f"x{suffix}", content))
    assert manifest.num_samples == 5
    reader = ShardReader(manifest, 1)
    values = [Image.open(io.BytesIO(reader.read(0, row)[0])).getpixel((0, 0)) for row in range(5)]
    assert values == [0, 1, 0, 0, 1]


def test_an_index_of_the_first_archive_alone_is_found_out(tmp_path: Path) -> None:
    """As an earlier version made it: the manifest is right about the bytes, but names too few samples."""
    first, second = tar_of(tmp_path, ["a", "b"]), tar_of(tmp_path, ["c"])
    shards = put(tmp_path / "shards", "x.tar", first)
    index_one(shards)
    as_version_1(shards)
    rows = (shards / "x.index.npy").read_bytes()
    old = json.loads((shards / "manifest.json").read_text())
    put(shards, "x.tar", first + second)
    index_one(shards)
    as_version_1(shards)
    new = json.loads((shards / "manifest.json").read_text())
    for key in ("num_samples", "samples_per_class"):
        new["shards"][0][key] = old["shards"][0][key]
    new["num_samples"] = old["num_samples"]
    (shards / "manifest.json").write_text(json.dumps(new))
    (shards / "x.index.npy").write_bytes(rows)
    with pytest.raises(DataError, match="holds 3 samples, but its index"):
        verify(Manifest.load(shards))


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.xz"])
@pytest.mark.parametrize("junk", [b"junk", b"j" * 512, b"j" * 5000])
def test_junk_behind_the_end_is_noticed(tmp_path: Path, suffix: str, junk: bytes) -> None:
    pack: Callable[[bytes], bytes] = {".tar": bytes, ".tar.gz": gzip.compress, ".tar.xz": lzma.compress}[
        suffix
    ]
    put(tmp_path / "s", f"x{suffix}", pack(tar_of(tmp_path, ["a", "b"])) + junk)
    with pytest.raises(DataError, match="is truncated or damaged "):
        index(tmp_path / "s", command="")
    put(tmp_path / "s", f"x{suffix}", pack(tar_of(tmp_path, ["a"]) + b"\0" * 700))
    assert index_one(tmp_path / "s").num_samples == 1


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (tarfile.LNKTYPE, r"'b\.png' .* is a hard link to 'a\.png', .*tar --hard-dereference"),
        (tarfile.SYMTYPE, r"'b\.png' .* is a symbolic link to 'a\.png', .*tar --dereference"),
        (tarfile.FIFOTYPE, r"'b\.png' .* no plain file"),
    ],
)
def test_members_without_content_are_refused(tmp_path: Path, kind: bytes, sentence: str) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, content in (("a.png", png(0)), ("a.cls", b"0"), ("b.png", b""), ("b.cls", b"0")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            if not content:
                member.type, member.linkname = kind, "a.png"
            tar.addfile(member, io.BytesIO(content))
    with pytest.raises(DataError, match=sentence):
        index(tmp_path, command="")


@pytest.mark.skipif(shutil.which("tar") is None, reason="calls the tar command")
@pytest.mark.parametrize("tar_format", ["gnu", "pax", "pax 0.0", "pax 0.1"])
def test_sparse_members_are_refused(tmp_path: Path, tar_format: str) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "a.cls").write_bytes(b"0")
    with (raw / "a.bmp").open("wb") as stream:
        stream.truncate(2**20)
    out = tmp_path / "shards"
    out.mkdir()
    kind, *version = tar_format.split()
    options = [f"--format={kind}", *(f"--sparse-version={number}" for number in version)]
    command = ["tar", "--sparse", *options, "-cf", out / "x.tar", "-C", raw, "a.bmp", "a.cls"]
    subprocess.run(command, check=True)
    with pytest.raises(DataError, match=r"'a\.bmp' of the shard .* is a sparse file"):
        index(out, command="")


@pytest.mark.skipif(shutil.which("tar") is None, reason="calls the tar command")
def test_the_oldest_format_is_refused_as_training_would(tmp_path: Path) -> None:
    for name, content in (("a.png", png(0)), ("a.cls", b"0")):
        put(tmp_path / "raw", name, content)
    command = ["tar", "--format=v7", "-cf", tmp_path / "x.tar", "-C", tmp_path / "raw", "a.png", "a.cls"]
    subprocess.run(command, check=True)
    with pytest.raises(DataError, match=r"another format than USTAR, GNU or PAX"):
        index(tmp_path, command="")


def test_what_a_header_promises() -> None:
    header = tarfile.TarInfo("x")
    header.size = 70
    block = header.tobuf(tarfile.USTAR_FORMAT)
    assert promises(block, 70)
    assert not promises(block, 71)
    assert not promises(block[:124] + b"\x80" + block[125:], 70)  # a size in base 256
    assert not promises(block[:124] + b"9999999\0" + block[132:], 70)
    assert not promises(b"", 70)


@pytest.mark.parametrize(
    ("pack", "kind", "remedy"),
    [
        (gzip.compress, "gzip", r"end in \.tar\.gz"),
        (lzma.compress, "xz", r"end in \.tar\.xz"),
        (bz2.compress, "bzip2", "Unpack it"),
        (lambda content: b"\x28\xb5\x2f\xfd" + content, "zstd", "Unpack it"),
    ],
)
def test_a_compressed_file_named_tar(
    tmp_path: Path, pack: Callable[[bytes], bytes], kind: str, remedy: str
) -> None:
    put(tmp_path / "s", "x.tar", pack(tar_of(tmp_path, ["a"])))
    with pytest.raises(DataError, match=rf"x\.tar is packed with {kind}, .*{remedy}"):
        index(tmp_path / "s", command="")


def test_a_plain_tar_named_gz(tmp_path: Path) -> None:
    put(tmp_path / "s", "x.tar.gz", tar_of(tmp_path, ["a"]))
    with pytest.raises(DataError, match=r"with no compression, .* Rename it to end in \.tar;"):
        index(tmp_path / "s", command="")


@pytest.mark.parametrize("other", ["b.tar.bz2", "b.tar.zst", "b.TAR", "b.txz", "b.tbz2", "b.tar.lz4"])
def test_archives_beside_plain_ones_are_refused(tmp_path: Path, other: str) -> None:
    put(put(tmp_path / "s", "a.tar", tar_of(tmp_path, ["a"])), other, b"?")
    with pytest.raises(DataError, match=rf"{other} is an archive that is not read"):
        index(tmp_path / "s", command="")


def test_shards_on_another_level_and_of_no_manifest(tmp_path: Path) -> None:
    shards = put(tmp_path / "s", "a.tar", tar_of(tmp_path, ["a"]))
    manifest = index_one(shards)
    put(shards, "b.tar", tar_of(tmp_path, ["b"]))
    with pytest.raises(DataError, match=r"does not name the shard b\.tar"):
        verify(manifest)
    put(shards / "more", "c.tar", tar_of(tmp_path, ["c"]))
    with pytest.raises(DataError, match="more on another level does, too"):
        find_splits(shards)
    deep = put(tmp_path / "x" / "y" / "z", "a.tar", b"")
    with pytest.raises(DataError, match=rf"Neither .* hold a shard; {deep} holds some: give {deep.parent}\."):
        find_splits(tmp_path / "x")


def test_what_systems_leave_is_no_sample_and_no_shard(tmp_path: Path) -> None:
    files = {**labelled(0, 1), "__MACOSX/9.png": b"?", "x/@eaDir/9.png": b"?", "./.git/9.png": b"?"}
    write_tar(tmp_path / "a.tar", {**files, "._8.png": b"?"})
    (tmp_path / "._a.tar").write_bytes(b"?")
    write_tar(tmp_path / ".ipynb_checkpoints" / "b.tar", labelled(0))
    told: list[str] = []
    (manifest,) = index(tmp_path, command="", tell=told.append)
    assert manifest.num_samples == 2
    left_out = ["__MACOSX/9.png", "x/@eaDir/9.png", "./.git/9.png", "._8.png"]
    assert told == [f"{HEADING}, left out: 4 ({', '.join(f'a.tar: {name}' for name in left_out)})"]


# images and labels


def packed(image: Image.Image, image_format: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=image_format)
    return stream.getvalue()


def test_images_that_training_would_refuse_are_refused_at_once(tmp_path: Path) -> None:
    deep = packed(Image.fromarray(np.zeros((4, 4), np.uint16)))
    cut = packed(Image.effect_noise((64, 64), 90))[:900]
    for content, reason in ((deep, "more than 8 bits per value"), (cut, "truncated")):
        write_tar(tmp_path / "a.tar", {**labelled(0), "b.png": content, "b.cls": b"0"})
        with pytest.raises(DataError, match=rf"png of sample 'b' .* cannot be read .*{reason}"):
            index(tmp_path, command="")


def labels(tmp_path: Path, files: dict[str, bytes], **options: object) -> tuple[list[int], list[str]]:
    """Class ids, and what was told."""
    write_tar(tmp_path / "a.tar", files)
    told: list[str] = []
    (manifest,) = index(tmp_path, command="", tell=told.append, **options)  # type: ignore[arg-type]
    verify(Manifest.load(tmp_path))
    return manifest.index(0)[:, 2].tolist(), told


def with_json(*documents: str) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for number, document in enumerate(documents):
        files |= {f"{number}.png": png(number), f"{number}.json": document.encode()}
    return files


def test_dots_in_keys_are_one_rule_for_images_and_labels(tmp_path: Path) -> None:
    files = {"a.v2.png": png(0), "a.v2.cls": b"1", "b.v2.png": png(1), "b.v2.json": b'{"label": 0}'}
    assert labels(tmp_path, files) == ([1, 0], [])
    collision = {"a.1.png": png(0), "a.2.png": png(1), "a.1.cls": b"0", "a.2.cls": b"0"}
    with pytest.raises(DataError, match=r"2 images .* same up to their first dot are one sample"):
        labels(tmp_path, collision)
    with pytest.raises(DataError, match=r"2 labels \(its files: \.1\.cls, \.2\.cls\)"):
        labels(tmp_path, {"a.png": png(0), "a.1.cls": b"0", "a.2.cls": b"0"})


def test_whole_numbers_with_a_point(tmp_path: Path) -> None:
    ids, told = labels(
        tmp_path, {**with_json('{"label": 1.0}', '{"label": "0"}'), "9.png": png(0), "9.cls": b"0."}
    )
    assert ids == [1, 0, 0]
    assert told == ["2 labels are written with a decimal point (1.0); they are taken as whole numbers"]


def test_names_in_any_unicode(tmp_path: Path) -> None:
    files = {
        "a.png": png(0),
        "a.cls": "Käfer".encode("utf-16"),
        "b.png": png(1),
        "b.cls": b"\xef\xbb\xbfAnt\r\n",
    }
    assert labels(tmp_path, files) == (
        [1, 0],
        ["labels are names; they get the class ids 0 ('Ant'), 1 ('Käfer')"],
    )


@pytest.mark.parametrize(
    ("document", "shown"),
    [("1.5", "1.5"), ("true", "true"), ("[0, 1]", r"\[0, 1\]"), ("NaN", "NaN"), ("Infinity", "Infinity")],
)
def test_labels_that_are_none(tmp_path: Path, document: str, shown: str) -> None:
    with pytest.raises(DataError, match=rf"The sample '0' .* has no label that can be used \({shown}\)"):
        labels(tmp_path, with_json(f'{{"label": {document}}}'))


@pytest.mark.parametrize("label", ["9" * 30, "9" * 5000])
def test_a_huge_id(tmp_path: Path, label: str) -> None:
    with pytest.raises(DataError, match=r"has the label 99999999999999999999\.\.\., which is no class id"):
        labels(tmp_path, labelled(label))
    with pytest.raises(DataError, match="not valid JSON" if len(label) > 4300 else "class ids count from 0"):
        labels(tmp_path, with_json(f'{{"label": {label}}}'))


def test_a_cls_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.cls of the sample 'a' .* is no text"):
        labels(tmp_path, {"a.png": png(0), "a.cls": b"\x93NUMPY\0"})


def test_ids_from_one_and_with_gaps(tmp_path: Path) -> None:
    ids, told = labels(tmp_path, labelled(1, 2, 3))
    assert ids == [1, 2, 3]
    assert told == ["classes without a sample, which stay empty: 0 ('0'). The ids seem to count from 1."]
    gapped = labelled(0, 3, 7)
    with pytest.raises(
        DataError, match=r"5 of the 8 classes have no sample .*: 1 \('1'\), 2 .*--empty-classes 5"
    ):
        labels(tmp_path, gapped)
    ids, told = labels(tmp_path, gapped, max_empty_classes=5)
    assert (ids, len(told)) == ([0, 3, 7], 1)
    with pytest.raises(DataError, match="999,998 of the 1,000,000 classes have no sample"):
        labels(tmp_path, labelled(0, 999_999))


def test_a_class_of_one_split_alone_is_told(tmp_path: Path) -> None:
    write_tar(tmp_path / "train" / "a.tar", labelled(0, 1))
    write_tar(tmp_path / "test" / "a.tar", labelled(1))
    told: list[str] = []
    index(tmp_path, command="", tell=told.append)
    assert told == [f"{tmp_path / 'test'} has no sample of 1 classes: 0 ('0')"]


# shards named one by one


def test_names_of_all_shards_stand_for_their_directory(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path, f"x-{number:03d}.tar", tar_of(tmp_path / "made", [f"{number}a", f"{number}b"]))
    pattern = str(tmp_path / "x-{000..002}.tar")
    with pytest.raises(DataError, match=rf"no manifest\.json of them.*\n.*dsvae build index {tmp_path}"):
        open_split(pattern)
    (whole,) = index(tmp_path, command="")
    for location in (pattern, str(tmp_path / "*.tar"), str(tmp_path / "x-{000,001,002}.tar")):
        assert open_split(location).fingerprint == whole.fingerprint
        config = DataConfig(train=location, build_command="never shown")
        assert open_splits(config).train.directory == tmp_path
    for location, other in (
        (str(tmp_path / "x-000.tar"), r"does not name x-001\.tar"),
        (str(tmp_path / "x-{000..003}.tar"), r"names x-003\.tar, which is none of"),
    ):
        with pytest.raises(DataError, match=rf"{other}.* Give {tmp_path}, or move"):
            open_split(location)
    for location in ("http://host/x-{000..002}.tar", str(tmp_path.parent / "{a,b}" / "x.tar")):
        with pytest.raises(DataError, match="names shards one by one; a split is given as a directory"):
            open_split(location)
    with pytest.raises(DataError, match=rf"is a shard, not a directory\. Give the directory: {tmp_path}"):
        find_splits(tmp_path / "x-000.tar")
