"""shards/build.py casia: identities from folders and RecordIO files, chosen, excluded, without labels."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dist_dsvae.data.shards.manifest import UNLABELLED, Manifest
from tests.unit.building.recordio_writer import content, write_faces, write_records
from tests.unit.data.making import REPOSITORY, all_files, samples_of, write_values

Run = Callable[..., int]
LIST = "0000003 Ann_Lee\n0000001 ben O'Hara\n0000002 Zoë\n"


def write_folders(root: Path, sizes: dict[str, int]) -> None:
    """Identity number n (in the order of ``sizes``) has pictures of the colour (10 n, 20 place, 0)."""
    for number, (identity, size) in enumerate(sizes.items()):
        for place in range(size):
            path = root / identity / f"{place:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (12, 12), (10 * number, 20 * place, 0)).save(path)


def identities_of(split: Path) -> list[int]:
    """Which identity each picture shows, by its colour."""
    pixels = [np.array(Image.open(io.BytesIO(image)))[0, 0] for image, _, _ in samples_of(split)]
    return [int(colour[0]) // 10 for colour in pixels]


def left_out(out: str = "out") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(out, "report.json").read_text(encoding="utf-8"))["left_out"]
    return found


def write_layout(layout: str, root: Path, sizes: list[int]) -> None:
    if layout == "folders":
        write_folders(root, {f"{number:07d}": size for number, size in enumerate(sizes)})
    else:
        write_faces(root, sizes)


@pytest.mark.parametrize("layout", ["folders", "records"])
def test_identities_lose_their_labels(run: Run, layout: str) -> None:
    sizes = [3, 1, 4, 2, 5, 1, 2, 3]
    write_layout(layout, Path("raw"), sizes)
    options = ("--identities", 3, "--held-out-classes", 2, "--size", 12, "--format", "png")
    assert run("casia", "raw", "out", *options) == 0
    train, held_out = Manifest.load("out/train"), Manifest.load("out/held-out")
    assert train.classes == UNLABELLED
    assert len(held_out.classes) == 2
    assert train.shape == held_out.shape == (3, 12, 12)
    assert train.source == "casia"

    unlabelled = identities_of(Path("out/train"))
    assert len(set(unlabelled)) == 3
    for identity in set(unlabelled):
        assert unlabelled.count(identity) == sizes[identity]
    for _, label, about in samples_of(Path("out/train")):
        assert label == 0
        assert set(about) == {"class_name", "source"}
        assert about["class_name"] == "unlabelled"
        assert about["source"].startswith("sha256:")
    kept = identities_of(Path("out/held-out"))
    assert not set(kept) & set(unlabelled)
    for identity in set(kept):
        assert kept.count(identity) == sizes[identity] >= 2
    for identity, (_, label, about) in zip(kept, samples_of(Path("out/held-out")), strict=True):
        assert int(about["class_name"]) == identity
        assert held_out.classes[label] == about["class_name"]
    chosen = {*unlabelled, *kept}
    assert [int(name) for name in left_out()["classes not chosen"]] == sorted({*range(8)} - chosen)


def test_the_seed_decides_and_held_out_classes_do_not(run: Run) -> None:
    write_faces(Path("raw"), [2] * 20)
    found = []
    for number, more in enumerate([(), ("--held-out-classes", 9), ("--seed", 1)]):
        assert run("casia", "raw", f"out{number}", "--identities", 6, *more) == 0
        found.append(all_files(Path(f"out{number}/train"))["000000.tar"])
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("layout", ["folders", "records"])
def test_the_number_of_workers_changes_no_byte(tmp_path: Path, layout: str) -> None:
    write_layout(layout, tmp_path / "raw", [3] * 6)
    for workers in ("1", "2"):
        options = ["--identities", "4", "--held-out-classes", "1", "--samples-per-shard", "5"]
        command = [
            str(REPOSITORY / "shards/build.py"),
            "casia",
            "raw",
            workers,
            *options,
            "--workers",
            workers,
        ]
        subprocess.run([sys.executable, *command], cwd=tmp_path, check=True, timeout=120)
    one, two = (
        {name: data for name, data in all_files(tmp_path / workers).items() if not name.endswith(".json")}
        for workers in ("1", "2")
    )
    assert len(one) == 2 * (3 + 1) + 2  # tars, indexes, tables
    assert one == two


def test_excluded_names_never_occur(run: Run) -> None:
    write_folders(Path("raw"), {f"{number:07d}": 2 for number in range(6)})
    Path("list.txt").write_text(LIST + "0000000 Cid\n0000005 Cid\n", encoding="utf-8")
    Path("stars.txt").write_text("BEN_OHARA\nSomebody Else\nzoe\n", encoding="utf-8")
    options = ("--size", 12, "--format", "png", "--names", "list.txt", "--exclude", "stars.txt")
    assert run("casia", "raw", "out", "--identities", 2, *options) == 0
    assert set(identities_of(Path("out/train"))) == {0, 3}
    assert left_out() == {
        "identities without a name": ["0000004"],
        "classes excluded by name": ["0000001 (ben O'Hara)", "0000002 (Zoë)"],
        "further classes of one name": ["0000005 (Cid)"],
    }


def test_labelled_shards_are_excluded(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    write_values(Path("labelled/train"), list(range(6)))  # of the classes apple, bäume and cat
    write_folders(Path("raw"), {"Apple": 2, "BAUME": 2, "Dog": 2, "c_a_t": 2})
    for path in ("labelled", "labelled/train"):
        arguments = ("--exclude", path, "--overwrite", "--size", 12, "--format", "png")
        assert run("casia", "raw", "out", "--identities", 1, *arguments) == 0
        assert set(identities_of(Path("out/train"))) == {2}
    assert run("casia", "raw", "more", "--identities", 2, "--exclude", "labelled") == 1
    assert "2 classes were asked for, but raw has 1 that may be taken" in capsys.readouterr().err
    assert run("casia", "raw", "other", "--identities", 1, "--exclude", "out") == 1
    assert "shards in out have no labels" in capsys.readouterr().err


def test_a_broken_picture_in_a_record_is_named(run: Run) -> None:
    faces = [content([2.0, 3.0], b""), content([0.0], b"no picture")]
    write_faces(Path("raw"), [1, 1])
    assert run("casia", "raw", "whole", "--identities", 2) == 0
    good = io.BytesIO()
    Image.new("RGB", (9, 9)).save(good, format="JPEG")
    faces = [content([3.0, 4.0], b""), faces[1], content([0.0], good.getvalue())]
    write_records(Path("bad"), [*faces, content([1.0, 3.0], b"")])
    assert run("casia", "bad", "out", "--identities", 1) == 0
    assert [name.split(" ")[0] for name in left_out()["unreadable files"]] == ["train.rec[1]"]


HEADER = content([3.0, 4.0], b"")


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        ([content([1.0], b"x"), content([1.0], b"x")], "record 0 of raw/train.rec does not tell the range"),
        ([content([1.0, 2.0], b"x")], "record 0 of raw/train.rec does not tell the range"),
        ([HEADER, content([0.0], b"x")], "raw/train.idx does not list the record 2, though train.rec"),
        ([content([1.0, 2.0], b"")], "the records 1 to 2; before the first"),
        ([content([float("nan"), 2.0], b"")], "the records nan to 2; before the first"),
        ([HEADER, content([0.5], b"x"), content([0.0], b"x")], "record 1 of raw/train.rec has the label 0.5"),
        ([HEADER, content([0.0], b"x"), content([-1.0], b"x")], "record 2 of raw/train.rec has the label -1"),
    ],
)
def test_records_that_cannot_be_used(
    run: Run, capsys: pytest.CaptureFixture[str], contents: list[bytes], sentence: str
) -> None:
    write_records(Path("raw"), contents)
    assert run("casia", "raw", "out") == 1
    assert sentence in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("files", "arguments", "sentence"),
    [
        ({}, ["nowhere", "out"], "The folder nowhere does not exist. Give the folder with train.rec"),
        (
            {"flat/x.png": ""},
            ["flat", "out"],
            "holds neither train.rec nor a sub-folder with pictures; files",
        ),
        ({"half/train.idx": "0 0"}, ["half", "out"], "The file half/train.rec is missing"),
        ({"half/train.rec": ""}, ["half", "out"], "The file half/train.idx is missing"),
        ({}, ["raw", "out", "--identities", 5], "5 classes were asked for, but raw has 4"),
        ({}, ["raw", "out", "--identities", 2, "--held-out-classes", 3], "3 classes were to be held out"),
        (
            {"x": "Jo"},
            ["raw", "out", "--exclude", "x"],
            "are numbers (such as 0000000), but those to exclude",
        ),
        ({}, ["raw", "out", "--exclude", "nofile"], "class names cannot be read from nofile"),
        ({"n": LIST}, ["raw", "out", "--names", "n"], "--names serves --exclude"),
        ({"n": "7 A"}, ["raw", "out", "--exclude", "n", "--names", "n"], "such as '0000000' (it begins with"),
        (
            {"n": "7\n"},
            ["raw", "out", "--exclude", "n", "--names", "n"],
            "Line 1 of n is '7'; it must be an id",
        ),
        ({"n": "7 A\n7 B"}, ["raw", "out", "--exclude", "n", "--names", "n"], "Line 2 of n is '7 B'"),
        ({"n": "\n", "x": "Jo"}, ["raw", "out", "--exclude", "x", "--names", "n"], "n holds no name"),
        ({"x": "Jo"}, ["raw", "out", "--exclude", "x", "--names", "raw"], "names cannot be read from raw"),
    ],
)
def test_what_casia_refuses(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, str],
    arguments: list[Any],
    sentence: str,
) -> None:
    write_folders(Path("raw"), {f"{number:07d}": 2 for number in range(4)})
    for name, text in files.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    assert run("casia", *arguments) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert sentence in printed
    assert not Path("out").exists()
