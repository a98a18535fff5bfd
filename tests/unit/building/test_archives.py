"""shards/build.py zip: what folder reads, from a zip or a tar; and archives made to do harm."""

from __future__ import annotations

import io
import json
import random
import stat
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dist_dsvae.building.sources.own_images import archive
from dist_dsvae.building.sources.own_images.place import ArchivePlace, Tree
from dist_dsvae.data.shards.manifest import Manifest
from tests.unit.data.making import png, samples_of

Run = Callable[..., int]
TREE = {
    "photos/readme.txt": b"hello",
    "photos/train/ant/1.png": png(10),
    "photos/train/ant/2.png": png(20),
    "photos/train/bee/images/3.png": png(30),
    "photos/train/bee/notes.txt": b"none",
    "photos/train/bee/broken.jpg": b"no jpeg",
    "photos/val/ant/4.png": png(40),
    "__MACOSX/photos/._train": b"x",
    ".DS_Store": b"x",
}


def write_folder(root: Path, members: dict[str, bytes]) -> None:
    for name, content in members.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def write_zip(path: str, members: dict[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", packing) as packed:
        packed.mkdir("photos")
        for name, content in members.items():
            packed.writestr(name, content)


def write_tar(path: str, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as packed:
        folder = tarfile.TarInfo("./")
        folder.type = tarfile.DIRTYPE
        packed.addfile(folder)
        for name, content in members.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))


def report_of(out: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((Path(out) / "report.json").read_text(encoding="utf-8"))
    return document


@pytest.mark.parametrize("kind", ["stored", "deflated", "tar"])
def test_an_archive_is_read_as_its_folder_is(run: Run, kind: str) -> None:
    if kind == "tar":
        write_tar("photos.tar", TREE)
    else:
        write_zip("photos.zip", TREE, zipfile.ZIP_STORED if kind == "stored" else zipfile.ZIP_DEFLATED)
    write_folder(Path("raw"), TREE)
    source = "photos.tar" if kind == "tar" else "photos.zip"
    assert run("folder", "raw/photos", "expected", "--size", 4, "--format", "png") == 0
    assert run("zip", source, "out", "--size", 4, "--format", "png") == 0
    for split in ("train", "test"):
        assert samples_of(Path("out") / split) == samples_of(Path("expected") / split)
        assert (Path("out") / split / "000000.tar").read_bytes() == (
            Path("expected") / split / "000000.tar"
        ).read_bytes()
    assert Manifest.load("out/train").classes == ("ant", "bee")
    found, expected = report_of("out"), report_of("expected")
    assert found["notes"] == [f"The folder photos/ in {source} was read", *expected["notes"]]
    assert found["left_out"].pop("hidden and system files") == [".DS_Store", "__MACOSX/photos/._train"]
    assert [name.split(" ")[0] for name in found["left_out"].pop("unreadable files")] == [
        "train/bee/broken.jpg"
    ]
    del expected["left_out"]["unreadable files"]
    assert found["left_out"] == expected["left_out"]
    assert not Path("photos").exists(), "something was unpacked"


def test_a_folder_inside_can_be_named(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    write_zip("photos.zip", TREE)
    assert run("zip", "photos.zip", "out", "--unlabelled") == 1
    assert "Give one of them, for example photos.zip/photos/train." in capsys.readouterr().err
    assert run("zip", "photos.zip/photos/train", "out", "--unlabelled") == 0
    assert Manifest.load("out/train").num_samples == 2
    assert run("zip", "photos.zip/photos/tests", "other") == 1
    assert "photos.zip holds no folder photos/tests. Give photos.zip, or another" in capsys.readouterr().err


def test_options_of_folder_work(run: Run) -> None:
    members = {f"{name}/inner/{i}.png": png(i) for name in ("a", "b") for i in range(10)} | {
        "c/0.png": png(0)
    }
    write_zip("flat.zip", members)
    options = ("--recursive", "--test-fraction", 0.2, "--min-pictures", 5, "--channels", 1)
    assert run("zip", "flat.zip", "out", *options) == 0
    assert report_of("out")["samples_per_class"] == {"train": {"a": 8, "b": 8}, "test": {"a": 2, "b": 2}}
    assert report_of("out")["left_out"]["classes of fewer than 5 pictures"] == ["c (1)"]
    assert Manifest.load("out/train").shape == (1, 64, 64)


def test_several_processes_read_one_archive(run: Run) -> None:
    write_zip("flat.zip", {f"{name}/{i}.png": png(i) for name in ("a", "b") for i in range(6)})
    sizes = ("--size", 4, "--format", "png", "--samples-per-shard", 6)
    assert run("zip", "flat.zip", "one", *sizes) == 0
    assert run("zip", "flat.zip", "two", *sizes, "--workers", 2) == 0
    for number in range(2):
        shard = f"train/{number:06d}.tar"
        assert (Path("one") / shard).read_bytes() == (Path("two") / shard).read_bytes()


def test_names_of_macs_and_of_windows(run: Run) -> None:
    with zipfile.ZipFile("old.zip", "w") as packed:
        dos = zipfile.ZipInfo("bär\\1.png")
        dos.create_system = 0
        packed.writestr(dos, png(1))
        packed.writestr("größe/2.png", png(2))
    content = Path("old.zip").read_bytes()
    # the flag of UTF-8, as the Finder leaves it out, in the local and in the central header of the second
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.rindex(signature) + place
        flags = int.from_bytes(content[at : at + 2], "little") & ~0x800
        content = content[:at] + flags.to_bytes(2, "little") + content[at + 2 :]
    Path("old.zip").write_bytes(content)
    assert run("zip", "old.zip", "out") == 0
    assert Manifest.load("out/train").classes == ("bär", "größe")
    assert Manifest.load("out/train").num_samples == 2


def encrypt(path: str, *names: str) -> None:
    """Mark entries as encrypted, as whoever lacks the password sees them."""
    content = bytearray(Path(path).read_bytes())
    with zipfile.ZipFile(path) as packed:
        for info in packed.infolist():
            if info.filename in names:
                content[info.header_offset + 6] |= 1
                name = info.filename.encode()
                central = content.index(b"PK\x01\x02")
                while bytes(content[central + 46 : central + 46 + len(name)]) != name:
                    central = content.index(b"PK\x01\x02", central + 4)
                content[central + 8] |= 1
    Path(path).write_bytes(content)


def test_what_is_not_taken_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_BYTES", 10_000)
    link = zipfile.ZipInfo("a/link.png")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile("mixed.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in ("a/ok.png", "a/secret.png", "../out.png", "a/../../b.png", "/root/c.png", "C:/d.png"):
            packed.writestr(name, png(5))
        packed.writestr(link, "/etc/passwd")
        packed.writestr("a/bomb.png", b"\0" * 10_001)
        packed.writestr("a/tree.png", png(1))
        packed.writestr("a/tree.png/x.png", png(1))
        with pytest.warns(UserWarning, match="Duplicate name"):
            packed.writestr("a/ok.png", png(6))
    encrypt("mixed.zip", "a/secret.png")
    assert run("zip", "mixed.zip", "out", "--size", 4, "--format", "png") == 0
    assert report_of("out")["left_out"] == {
        archive.UNSAFE: ["../out.png", "a/../../b.png", "/root/c.png", "C:/d.png", "a/tree.png"],
        archive.SPECIAL: ["a/link.png"],
        archive.ENCRYPTED: ["a/secret.png"],
        archive.TOO_LARGE: ["a/bomb.png"],
        archive.TWICE: ["a/ok.png"],
        "folders inside a class": ["a/tree.png/x.png"],
    }
    (content, _, about), *others = samples_of(Path("out/train"))
    assert (Image.open(io.BytesIO(content)).getpixel((0, 0)), others) == ((6, 6, 6), [])
    assert about["source"] == "a/ok.png"
    assert sorted(path.name for path in Path().iterdir()) == ["mixed.zip", "out"]


def test_an_entry_that_lies_about_its_size_is_unreadable(run: Run) -> None:
    """The header says few bytes, the content unpacks to many: no more than it says is unpacked."""
    write_zip("lies.zip", {"a/1.png": png(1), "a/bomb.png": b"\0" * 2**22})
    content = bytearray(Path("lies.zip").read_bytes())
    central = content.rindex(b"PK\x01\x02")
    content[central + 24 : central + 28] = (1000).to_bytes(4, "little")
    Path("lies.zip").write_bytes(content)
    assert run("zip", "lies.zip", "out") == 0
    (line,) = report_of("out")["left_out"]["unreadable files"]
    assert line.startswith("a/bomb.png (OSError: the entry cannot be unpacked: Bad CRC-32")


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_a_name_of_thousands_of_folders_takes_no_memory(run: Run, write: Callable[..., None]) -> None:
    """Kept as folders in one another it would be gigabytes."""
    deep = "a/" * 30_000 + "1.png"
    write("deep.zip", {"a/1.png": png(1), deep: png(2)})
    tracemalloc.start()
    assert run("zip", "deep.zip", "out") == 0
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()
    (name,) = report_of("out")["left_out"][archive.UNSAFE]
    assert name.removeprefix("./") == deep


SPECIAL_FILES = {"a/2.png": tarfile.SYMTYPE, "a/3.png": tarfile.LNKTYPE, "a/4": tarfile.FIFOTYPE}


def test_links_in_a_tar_lead_nowhere(run: Run) -> None:
    with tarfile.open("linked.tar", "w") as packed:
        member = tarfile.TarInfo("a/1.png")
        member.size = len(png(1))
        packed.addfile(member, io.BytesIO(png(1)))
        for name, kind in SPECIAL_FILES.items():
            special = tarfile.TarInfo(name)
            special.type, special.linkname = kind, "a/1.png"
            packed.addfile(special)
    assert run("zip", "linked.tar", "out") == 0
    assert report_of("out")["left_out"] == {archive.SPECIAL: [*SPECIAL_FILES]}
    assert Manifest.load("out/train").num_samples == 1


def cut(path: str, keep: int) -> None:
    Path(path).write_bytes(Path(path).read_bytes()[:keep])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: None, "The archive x.zip cannot be read (No such file or directory)"),
        (
            lambda: Path("x.zip").write_bytes(b"\x1f\x8b..."),
            "A compressed tar can be read after gunzip,",
        ),
        (
            lambda: write_zip("x.zip", {"a.png": png(1)}),
            "holds no picture in any class folder; files",
        ),
        (
            lambda: (write_zip("x.zip", {"a/1.png": png(1)}), encrypt("x.zip", "a/1.png")),
            "All files in x.zip are encrypted, such as a/1.png. Unpack it with its password",
        ),
        (
            lambda: (write_tar("x.zip", {"a/1.png": png(1)}), cut("x.zip", 1100)),
            "x.zip is truncated or damaged",
        ),
    ],
)
def test_an_archive_that_cannot_be_built(
    run: Run, capsys: pytest.CaptureFixture[str], make: Callable[[], object], sentence: str
) -> None:
    make()
    assert run("zip", "x.zip", "out") == 1
    assert sentence in capsys.readouterr().err
    assert not Path("out").exists()


def test_places_compare_by_their_names() -> None:
    tree = Tree(path=Path("x.zip"), folders={(): ("a",), ("a",): ()}, files={})
    root = ArchivePlace(tree)
    assert (root.name, str(root / "a"), root / "a" == next(root.iterdir())) == ("x.zip", "x.zip/a", True)


def test_a_tar_that_ends_with_a_zip_is_a_tar(run: Run) -> None:
    write_zip("inner.zip", {"x/1.png": png(1), "y/2.png": png(2)})
    write_tar("photos.tar", {**TREE, "photos/train/inner.zip": Path("inner.zip").read_bytes()})
    assert run("zip", "photos.tar", "out", "--size", 20) == 0
    assert Manifest.load("out/train").classes == ("ant", "bee")


PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_damaged_entry_is_left_out_by_name(run: Run, packing: int) -> None:
    """Wherever the damage lies, and however it is packed; the others are built."""
    noise = random.Random(0)
    with zipfile.ZipFile("photos.zip", "w", packing) as packed:
        for label in "ab":
            for number in range(2):
                pixels = Image.frombytes("RGB", (8, 8), noise.randbytes(192))
                stream = io.BytesIO()
                pixels.save(stream, "PNG")
                packed.writestr(f"{label}/{number}.png", stream.getvalue())
        entry = packed.infolist()[1]
    sound = Path("photos.zip").read_bytes()
    first = entry.header_offset + 30 + len(entry.filename)
    for start in range(first, first + entry.compress_size, 9):
        damaged = bytearray(sound)
        for place in range(start, min(start + 9, first + entry.compress_size)):
            damaged[place] ^= 0xFF
        Path("photos.zip").write_bytes(damaged)
        with suppress(OSError):  # the one error that it may raise; or the damage is in what nobody reads
            archive.ZipMember("photos.zip", 1).open()
    assert run("zip", "photos.zip", "out", "--size", 8) == 0
    (left_out,) = json.loads(Path("out/report.json").read_text(encoding="utf-8"))["left_out"].values()
    assert len(left_out) == 1
    assert "a/1.png" in left_out[0]
