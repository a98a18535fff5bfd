"""Shards of other tools get a manifest; what cannot be used gets a sentence."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from dist_dsvae.building.indexing import index, read_class_names
from dist_dsvae.building.verify import verify
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.faces.align import Alignment
from dist_dsvae.core.faces.crop_record import FaceCrops
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.shards.table import TABLE_FILE, check_table
from tests.unit.building.drawn_faces import Marks
from tests.unit.data.making import all_files, images_of, png, run_build, write_values

Files = Mapping[str, bytes]


def write_tar(path: Path, files: Files | list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items() if isinstance(files, Mapping) else files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def labelled(*labels: object) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for number, label in enumerate(labels):
        files[f"{number:03d}.png"] = png(number)
        files[f"{number:03d}.cls"] = str(label).encode()
    return files


def described(*labels: tuple[int, str]) -> dict[str, bytes]:
    """Samples whose json members hold a number and a name."""
    files: dict[str, bytes] = {}
    for number, (label, name) in enumerate(labels):
        files[f"{number:03d}.png"] = png(number)
        files[f"{number:03d}.json"] = json.dumps({"label": label, "class": name}).encode()
    return files


def index_one(directory: Path, **options: object) -> Manifest:
    (manifest,) = index(directory, command="python shards/build.py index x", **options)  # type: ignore[arg-type]
    verify(Manifest.load(manifest.directory))
    return manifest


def test_webdatasets_own_writer(tmp_path: Path) -> None:
    with webdataset.ShardWriter(str(tmp_path / "shard-%04d.tar"), maxcount=4, verbose=0) as writer:
        for number in range(10):
            image = np.full((6, 5, 3), number * 20, dtype=np.uint8)
            writer.write(
                {"__key__": f"sample{number:04d}", "png": image, "cls": number % 3, "json": {"a": 1}}
            )
    manifest = index_one(tmp_path)
    assert manifest.classes == ("0", "1", "2")
    assert manifest.shape == (3, 6, 5)
    assert manifest.num_samples_per_shard.tolist() == [4, 4, 2]
    assert manifest.source == "index"
    for number in range(3):
        for place, (content, label) in enumerate(images_of(manifest, number)):
            value = 4 * number + place
            assert label == value % 3
            assert Image.open(io.BytesIO(content)).getpixel((0, 0)) == (value * 20,) * 3


@pytest.mark.parametrize("tar_format", ["gnu", "pax", "ustar"])
@pytest.mark.skipif(shutil.which("tar") is None, reason="calls the tar command")
def test_the_tar_command(tmp_path: Path, tar_format: str) -> None:
    long_name = "n" * (80 if tar_format == "ustar" else 200)
    folder = tmp_path / "raw" / "a.folder"
    folder.mkdir(parents=True)
    names = [f"{long_name}{number}" for number in range(3)] + ["später"]
    for number, name in enumerate(names):
        (folder / f"{name}.PNG").write_bytes(png(number))
        (folder / f"{name}.cls").write_text("yes\n" if number % 2 else "no\n")
    (folder / ".hidden").touch()
    (folder / "README").touch()
    out = tmp_path / "shards"
    out.mkdir()
    subprocess.run(
        ["tar", f"--format={tar_format}", "--sort=name", "-cf", out / "all.tar", "-C", tmp_path / "raw", "."],
        check=True,
    )
    manifest = index_one(out)
    assert manifest.classes == ("no", "yes")
    assert sorted(images_of(manifest, 0)) == sorted((png(number), number % 2) for number in range(4))


@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz", ".tar.xz"])
def test_compressed_tars(tmp_path: Path, suffix: str) -> None:
    pack: Callable[[bytes], bytes] = lzma.compress if suffix == ".tar.xz" else gzip.compress
    content = write_tar(tmp_path / "plain" / "a.tar", labelled(0, 1)).read_bytes()
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / f"a{suffix}").write_bytes(pack(content))
    packed, plain = index_one(tmp_path / "packed"), index_one(tmp_path / "plain")
    assert packed.index(0).tolist() == plain.index(0).tolist()
    assert packed.shards[0].index_file == "a.index.npy"


def test_our_own_shards_keep_their_index(tmp_path: Path) -> None:
    ours = write_values(tmp_path / "train", list(range(10))).manifest
    before = [ours.index(number).tolist() for number in range(3)]
    again = index_one(tmp_path / "train", num_workers=2)
    assert [again.index(number).tolist() for number in range(3)] == before
    assert again.fingerprint == ours.fingerprint


@pytest.mark.parametrize("when", ["before", "between"])
def test_an_interrupted_index_never_gives_wrong_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Before the first file takes its name nothing has changed; between two of them nothing is read."""
    for number in range(2):
        write_tar(tmp_path / f"{number}.tar", labelled("cat", "dog"))
    index_one(tmp_path)
    before = all_files(tmp_path)

    def interrupted(self: Manifest) -> list[tuple[Path, bytes]]:
        raise KeyboardInterrupt

    def full(path: Path, target: Path, replace: Callable[..., Path] = Path.replace) -> Path:
        if target.name == "1.index.npy":
            raise OSError(28, "No space left on device")
        return replace(path, target)

    with monkeypatch.context() as patch:
        if when == "before":
            patch.setattr(Manifest, "files", interrupted)
        else:
            patch.setattr(Path, "replace", full)
        with pytest.raises((KeyboardInterrupt, OSError)):
            index(tmp_path, command="again", names=["dog", "cat"])
    if when == "before":
        assert all_files(tmp_path) == before
        return
    assert all_files(tmp_path).keys() == before.keys()
    with pytest.raises(DataError, match=r"0\.index\.npy is not as it was written.*dsvae build index"):
        Manifest.load(tmp_path)
    assert index_one(tmp_path, names=["dog", "cat"]).classes == ("dog", "cat")


def test_what_a_manifest_knew_is_kept(tmp_path: Path) -> None:
    """Class names that the shards cannot tell, and how faces were cut out; not of other shards."""
    crops = FaceCrops(alignment=Alignment(32), detector=Marks().record)
    write_tar(tmp_path / "a.tar", labelled(2, 0))
    first = index_one(tmp_path, names=["anna", "ben", "carla"])
    replace(first, face_crops=crops).save()
    (tmp_path / TABLE_FILE).unlink()  # a reason to index
    again = index_one(tmp_path)
    assert (again.classes, again.face_crops) == (("anna", "ben", "carla"), crops)
    write_tar(tmp_path / "a.tar", labelled(0, 2))
    others = index_one(tmp_path)
    assert (others.classes, others.face_crops) == (("anna", "ben", "carla"), None)
    write_tar(tmp_path / "a.tar", described((0, "otto"), (1, "paul")))
    assert index_one(tmp_path).classes == ("otto", "paul")
    write_tar(tmp_path / "b.tar", labelled(2))
    more = index_one(tmp_path)
    assert (more.classes, more.face_crops) == (("otto", "paul", "2"), None)
    (tmp_path / "manifest.json").write_text('{"format_version": 1, "classes": 3')
    assert index_one(tmp_path).classes == ("otto", "paul", "2")


def test_numbers_are_no_names_to_keep(tmp_path: Path) -> None:
    """Shards of fewer classes than before are as if they were the first."""
    write_tar(tmp_path / "a.tar", labelled(*range(12)))
    assert len(index_one(tmp_path).classes) == 12
    write_tar(tmp_path / "a.tar", labelled(0, 1, 2))
    assert index_one(tmp_path).classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("document", "classes"),
    [
        ({"label": 1}, ("0", "1")),
        ({"cls": "1"}, ("0", "1")),
        ({"class": "dog"}, ("dog",)),
        ({"class_name": "dog"}, ("dog",)),
        ({"label": 1, "class_name": "dog"}, ("0", "dog")),
    ],
)
def test_labels_from_json(tmp_path: Path, document: object, classes: tuple[str, ...]) -> None:
    write_tar(tmp_path / "a.tar", {"a.webp.png": png(1), "a.json": json.dumps(document).encode()})
    manifest = index_one(tmp_path)
    assert manifest.classes == classes
    assert manifest.index(0)[0, 2] == len(classes) - 1


def test_splits_share_their_classes(tmp_path: Path) -> None:
    write_tar(tmp_path / "train" / "a.tar", labelled("dog", "ant"))
    write_tar(tmp_path / "test" / "a.tar", labelled("cat"))
    test, train = index(tmp_path, command="")
    assert test.classes == train.classes == ("ant", "cat", "dog")
    assert test.index(0)[:, 2].tolist() == [1]
    assert train.index(0)[:, 2].tolist() == [2, 0]


def test_many_numbered_classes_sort_as_they_count(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", labelled(11, 2))
    classes = index_one(tmp_path, max_empty_classes=10).classes
    assert classes[2] == "02"
    assert classes == tuple(sorted(classes))


def test_grey_and_colour_and_formats_may_be_mixed(tmp_path: Path) -> None:
    bmp = io.BytesIO()
    Image.new("RGB", (4, 4)).save(bmp, format="BMP")
    write_tar(tmp_path / "a.tar", {**labelled(0), "z.bmp": bmp.getvalue(), "z.cls": b"1"})
    manifest = index_one(tmp_path)
    assert manifest.shape == (3, 4, 4)
    assert manifest.encoding == "mixed"


def test_jpeg_has_one_name(tmp_path: Path) -> None:
    jpeg = io.BytesIO()
    Image.new("RGB", (4, 4)).save(jpeg, format="JPEG")
    files = {"a.jpeg": jpeg.getvalue(), "a.cls": b"0", "b.JPG": jpeg.getvalue(), "b.cls": b"0"}
    write_tar(tmp_path / "a.tar", files)
    assert index_one(tmp_path, names=["x"]).encoding == "jpg"


def test_names_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = tmp_path / "names.txt"
    names.write_text("zebra\nBär\nunused\n", encoding="utf-8")
    write_tar(tmp_path / "numbers" / "a.tar", labelled(1, 0))
    write_tar(tmp_path / "texts" / "a.tar", labelled("Bär", "zebra"))
    for kind in ("numbers", "texts"):
        assert run_build(monkeypatch, "index", tmp_path / kind, "--classes", names) == 0
        assert run_build(monkeypatch, "verify", tmp_path / kind) == 0
        manifest = Manifest.load(tmp_path / kind)
        assert manifest.classes == ("zebra", "Bär", "unused")
        assert manifest.index(0)[:, 2].tolist() == [1, 0]
        assert "--classes" in manifest.command


@pytest.mark.parametrize("content", [b"", b"a\n\nb\n", b"a\na\n", b"\xff\n"])
def test_a_bad_file_of_names(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"names\.txt"):
        read_class_names(tmp_path / "names.txt")


POINT = io.BytesIO()
np.save(POINT, np.zeros(2, dtype=np.float32))
NPY_IMAGE = io.BytesIO()
np.save(NPY_IMAGE, np.zeros((4, 4, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"a.cls": b"0"}, r"'a' of the shard .*a\.tar has no image \(its files: \.cls\)"),
        ({"a.png": png(0), "a.jpg": png(0), "a.cls": b"0"}, r"'a' .* has 2 images \(its files: \.png, \.jpg"),
        ({"a.png": png(0)}, r"'a' of the shard .* has no label"),
        ({"a.png": png(0), "a.cls": b" "}, "has no label"),
        ({"a.png": png(0), "a.json": b"{}"}, "has no label"),
        ({"a.png": png(0), "a.json": b"[1]"}, "has no label"),
        ({"a.png": png(0), "a.json": b'{"label": true}'}, "has no label"),
        ({"a.png": png(0), "a.json": b"{"}, r"json of the sample 'a' .* not valid JSON"),
        ({"a.png": b"no image", "a.cls": b"0"}, r"png of sample 'a' of the shard .* cannot be read"),
        ({"a.npy": b"no array", "a.cls": b"0"}, r"npy of sample 'a' of the shard .* cannot be read"),
        ({"a.npy": NPY_IMAGE.getvalue(), "a.cls": b"0"}, r"uint8 of shape \(4, 4, 3\); an npy"),
        (
            {**labelled(0), "b.png": png(0, (8, 6)), "b.cls": b"0"},
            r"'b' .* 8 pixels wide and 6 high, but '000' of .* is 4 pixels wide",
        ),
        (
            {**labelled(0), "b.npy": POINT.getvalue(), "b.cls": b"0"},
            r"'b' .* is a point of 2 coordinates, but '000'",
        ),
        (labelled(0, "dog"), r"Some labels are numbers \(such as 0\) and some are names \(such as 'dog'\)"),
        (labelled(0, -3), r"'001' .* has the label -3; class ids count from 0"),
        (labelled(0, 10**12), r"'001' .* has the label 1000000000000"),
        ([*labelled(0, 1).items(), ("000.txt", b"")], "key '000' occurs twice"),
        ([("a.png", png(0)), ("a.png", png(1))], r"'a' has two files '\.png'"),
        ({}, "holds no sample"),
        ({"README": b"?"}, "holds no sample"),
        (
            {"cat.png": png(0), "cat.cls": b"0", "cat.1.png": png(1), "cat.1.cls": b"1"},
            r"'cat' of the shard .* holds \.png and \.1\.png, which has a label of its own",
        ),
        (
            {"cat.png": png(0), "cat.1.cls": b"0", "cat.2.cls": b"1"},
            r"'cat' .* has 2 labels \(its files: \.1\.cls, \.2\.cls\)",
        ),
        (
            {"cat.png": png(0), "cat.1.png": png(1), "cat.1.cls": b"1"},
            r"'cat' of the shard .* holds \.png and \.1\.png, which has a label of its own",
        ),
        (
            described((0, "x"), (0, "y")),
            r"class id 0 has the name 'x' in one place and 'y' in another .*--classes FILE",
        ),
        (
            described((0, "x"), (1, "x")),
            "class ids 0, 1 have the same name 'x'",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_used_gets_a_sentence(tmp_path: Path, files: Files, sentence: str) -> None:
    write_tar(tmp_path / "a.tar", files)
    with pytest.raises(DataError, match=sentence):
        index(tmp_path, command="")
    assert not (tmp_path / "manifest.json").exists()


def test_names_that_differ_between_shards(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", described((0, "x")))
    write_tar(tmp_path / "b.tar", described((0, "y")))
    with pytest.raises(DataError, match=r"class id 0 has the name 'x' .* 'y' in another .*b\.tar"):
        index(tmp_path, command="")


def test_a_label_outside_the_given_names(tmp_path: Path) -> None:
    write_tar(tmp_path / "numbers" / "a.tar", labelled(0, 2))
    with pytest.raises(DataError, match=r"'001' of the shard .* label 2; allowed are 0 to 1"):
        index(tmp_path / "numbers", command="", names=["x", "y"])
    write_tar(tmp_path / "texts" / "a.tar", labelled("x", "z"))
    with pytest.raises(DataError, match=r"'001' of the shard .* label 'z', which is not one of the 2"):
        index(tmp_path / "texts", command="", names=["x", "y"])


def test_no_tars_at_all(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    with pytest.raises(DataError, match=r"hold a shard\. Shards are files that end in \.tar, "):
        index(tmp_path, command="")
    with pytest.raises(DataError, match="does not exist"):
        index(tmp_path / "nowhere", command="")


def test_further_images_and_folders_of_metadata_are_told_of(tmp_path: Path) -> None:
    files = {"000.seg.png": png(3)} | labelled(0, 1) | {"__meta__/x.png": png(4)}
    write_tar(tmp_path / "a.tar", files)
    lines: list[str] = []
    (manifest,) = index(tmp_path, command="", tell=lines.append)
    assert manifest.num_samples == 2
    assert "further images of samples that have one, not used: 1 (a.tar: 000.seg.png)" in lines
    assert any("left out: 1 (a.tar: __meta__/x.png)" in line for line in lines)


def test_what_else_a_sample_says_is_no_label(tmp_path: Path) -> None:
    files = {
        "0.png": png(0),
        "0.cls": b"1",
        "0.json": b"{}",
        "0.boxes.json": b"[1, 2]",
        "1.png": png(1),
        "1.cls": b"0",
    }
    write_tar(tmp_path / "a.tar", files)
    assert index_one(tmp_path).samples_per_class == (1, 1)


def test_another_tool_s_manifest_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(tmp_path / "train/a.tar", labelled(0, 1))
    for folder in (tmp_path, tmp_path / "notes"):
        folder.mkdir(exist_ok=True)
        (folder / "manifest.json").write_text('{"files": []}')
    index(tmp_path, command="")
    assert run_build(monkeypatch, "verify", tmp_path) == 0


def test_one_name_in_two_spellings_is_one_class(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", labelled("caf\u00e9", "cafe\u0301"))
    assert index_one(tmp_path).classes == ("caf\u00e9",)


def test_a_split_whose_shards_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a copy leaves it that was interrupted: neither verified nor left out of an index."""
    for split in ("train", "test"):
        write_tar(tmp_path / split / "a.tar", labelled(0, 1))
    index(tmp_path, command="")
    assert run_build(monkeypatch, "verify", tmp_path) == 0
    assert "test: 2 samples of 2 classes in 1 shards: as the manifest says" in capsys.readouterr().out
    (tmp_path / "test/a.tar").unlink()
    assert run_build(monkeypatch, "verify", tmp_path) == 1
    assert "a.tar" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"test has a manifest\.json, but none of its shards"):
        index(tmp_path, command="")


def test_one_tar_in_two_compressions(tmp_path: Path) -> None:
    content = write_tar(tmp_path / "a.tar", labelled(0)).read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match="differ only in their compression"):
        index(tmp_path, command="")


@pytest.mark.parametrize("pack", [None, gzip.compress, lzma.compress])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.77, 0.95])
def test_a_truncated_tar_is_named(tmp_path: Path, pack: object, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 40, 40), dtype=np.uint8)
    files: dict[str, bytes] = {}
    for number, pixels in enumerate(noise):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, format="PNG")
        files |= {f"k{number}.png": stream.getvalue(), f"k{number}.cls": b"0"}
    whole = write_tar(tmp_path / "a.tar", files)
    content = whole.read_bytes()[: -9 * 512]
    whole.unlink()
    suffix = {None: ".tar", gzip.compress: ".tar.gz", lzma.compress: ".tar.xz"}[pack]  # type: ignore[index]
    packed = pack(content) if pack else content  # type: ignore[operator]
    (tmp_path / f"b{suffix}").write_bytes(packed[: int(share * len(packed))])
    with pytest.raises(
        DataError, match=rf"b{suffix} is truncated or damaged (after the sample 'k|before its)"
    ):
        index(tmp_path, command="")


def test_every_cut_of_a_tar_is_noticed(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", labelled(0, 1, 2))
    content = path.read_bytes()
    end = len(content.rstrip(b"\0"))  # inside the last member's block
    end += -end % 512
    for cut in [0, 1, 511, 512, 513, 700, 1024, end // 2, end - 512, end - 1, end]:
        path.write_bytes(content[:cut])
        with pytest.raises(DataError, match="truncated or damaged"):
            index(tmp_path, command="")
    path.write_bytes(content[: end + 512])  # a single block of zeros ends a tar, as for GNU tar
    assert index_one(tmp_path).num_samples == 3


def test_a_damaged_header_is_noticed(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", labelled(0, 1, 2))
    content = bytearray(path.read_bytes())
    place = content.index(b"001.cls")
    content[place + 3] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tar is truncated or damaged after the sample '000' \("):
        index(tmp_path, command="")


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    write_tar(tmp_path / "caf\udce9.tar", labelled(0, 1))
    with pytest.raises(DataError, match="is not UTF-8, so no manifest can hold it"):
        index(tmp_path, command="index")
    assert [path.suffix for path in tmp_path.iterdir()] == [".tar"]
    (tmp_path / "caf\udce9.tar").rename(tmp_path / "shard.tar")
    index(tmp_path, command="index")
    rows = np.load(tmp_path / TABLE_FILE)
    rows["file"] = b"shar\xe9.tar"
    with pytest.raises(DataError, match="which is no plain name of a tar"):
        check_table(rows, "table", "")
