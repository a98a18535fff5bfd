"""shards/build.py csv: pictures that a list names, with their labels and splits."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dist_dsvae.data.shards.manifest import Manifest
from tests.unit.data.making import samples_of

Run = Callable[..., int]


def save(*names: str) -> None:
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (200, 30, 40)).save(path, format="PNG")


def write_list(text: str, name: str = "list.csv") -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")


def report() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(Path("out/report.json").read_text(encoding="utf-8"))
    return document


def labels_by_source(split: str) -> dict[str, str]:
    return {about["source"]: about["class_name"] for _, _, about in samples_of(Path("out") / split)}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_paths_are_relative_to_the_list(run: Run, separator: str, mark: bytes) -> None:
    save("raw/p/1.png", "raw/p/2, b.png", "raw/3.png")
    rows = [
        ("name", "path", "label"),
        ("x", "p/1.png", "zoë"),
        ("y", '"p/2, b.png"', "ant"),
        ("z", "3.png", "ant"),
    ]
    text = "\r\n".join(separator.join(row) for row in rows)
    Path("raw/list.csv").write_bytes(mark + text.encode())
    assert run("csv", "raw/list.csv", "out", "--size", 20) == 0
    assert Manifest.load("out/train").classes == ("ant", "zoë")
    assert labels_by_source("train") == {"p/1.png": "zoë", "p/2, b.png": "ant", "3.png": "ant"}
    assert report()["left_out"] == {}


def test_blanks_before_quotes_are_no_part_of_a_name(run: Run) -> None:
    save("1.png", "2.png", "3.png")
    write_list('path, label\n1.png,"a"\n2.png, "a"\n3.png, ""\n')
    assert run("csv", "list.csv", "out", "--size", 20) == 0
    assert Manifest.load("out/train").samples_per_class == (2,)
    assert sum(len(names) for names in report()["left_out"].values()) == 1


def test_numbers_with_a_decimal_point(run: Run) -> None:
    """As pandas writes a column of numbers that has gaps; in one split perhaps, and not in the other."""
    save(*(f"{number}.png" for number in range(6)))
    lines = ["0.png,0.0,train", "1.png,1.0,train", "2.png,-1.0,train", "3.png,1.,train"]
    write_list("\n".join(["path,label,split", *lines, "4.png,1,test", "5.png,-1,test"]))
    assert run("csv", "list.csv", "out", "--size", 20) == 0
    assert report()["samples_per_class"] == {"train": {"0": 1, "1": 2}, "test": {"0": 0, "1": 1}}
    assert [len(names) for names in report()["left_out"].values()] == [2, 1]
    assert "4 labels have a decimal point: 1.0 is the class 1" in report()["notes"]


def test_captions_may_have_lines_and_links_are_pictures_of_their_own(run: Run) -> None:
    save("1.png")
    Path("2.png").symlink_to("1.png")  # as tools keep files of equal content
    write_list('path,label,caption\n1.png,a,"one\ntwo"\n2.png,b,""\n')
    assert run("csv", "list.csv", "out", "--size", 20) == 0
    assert labels_by_source("train") == {"1.png": "a", "2.png": "b"}


def test_splits_by_their_names_and_columns_by_option(run: Run) -> None:
    save(*(f"{number}.png" for number in range(5)))
    write_list(
        "file,who,part\n0.png,a,Training\n1.png,b,Training\n"
        "2.png,a,validation\n3.png,b,validation\n4.png,b,extra\n"
    )
    columns = ("--path-column", "file", "--label-column", "who", "--split-column", "part")
    assert run("csv", "list.csv", "out", *columns) == 0
    assert report()["samples_per_class"] == {"train": {"a": 1, "b": 1}, "test": {"a": 1, "b": 1}}
    assert report()["notes"] == [
        "'Training' serves as the split 'train'",
        "'validation' serves as the split 'test'",
    ]
    assert report()["left_out"] == {"splits that are not used": ["extra (1 rows)"]}
    assert run("csv", "list.csv", "out", *columns, "--test-split", "extra", "--overwrite") == 0
    assert report()["samples_per_class"]["test"] == {"a": 0, "b": 1}
    assert report()["left_out"]["splits that are not used"] == ["validation (2 rows)"]


def test_a_column_split_is_found_and_a_share_taken_without_one(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    save(*(f"{number}.png" for number in range(10)))
    lines = [f"{number}.png,a" for number in range(10)]
    splits = ["test"] * 3 + ["train"] * 7
    told = [f"{line},{split}" for line, split in zip(lines, splits, strict=True)]
    write_list("\n".join(["path,label,split", *told]))
    assert run("csv", "list.csv", "out") == 0
    assert report()["samples_per_class"] == {"train": {"a": 7}, "test": {"a": 3}}
    assert run("csv", "list.csv", "out", "--test-fraction", 0.2, "--overwrite") == 1
    assert "list.csv has the split 'test' already" in capsys.readouterr().err
    write_list("\n".join(["path,label", *lines]))
    assert run("csv", "list.csv", "out", "--test-fraction", 0.2, "--overwrite") == 0
    assert report()["samples_per_class"] == {"train": {"a": 8}, "test": {"a": 2}}


def test_what_is_not_used_is_named(run: Run) -> None:
    save("1.png", "2.png", "3.png")
    Path("notes.txt").write_text("none")
    Path("broken.jpg").write_bytes(b"no jpeg")
    names = "1.png,a\n2.png,\n3.png,-1\n1.png,a\nnotes.txt,a\ngone.png,a\n\nbroken.jpg,a\n"
    write_list("path,label\n" + names)
    assert run("csv", "list.csv", "out") == 0
    left_out = report()["left_out"]
    assert left_out.pop("unreadable files")[0].startswith("broken.jpg (UnidentifiedImageError")
    assert left_out == {
        "rows without a label": ["2.png", "3.png"],
        "listed more than once": ["list.csv, line 5: 1.png"],
        "files that are no pictures": ["list.csv, line 6: notes.txt"],
        "listed, but there is no such file": ["list.csv, line 7: gone.png"],
    }
    assert run("csv", "list.csv", "out", "--unlabelled", "--overwrite") == 0
    assert Manifest.load("out/train").classes == ("unlabelled",)
    assert Manifest.load("out/train").num_samples == 3


def test_without_labels_no_column_of_labels_is_needed(run: Run) -> None:
    save("1.png", "2.png")
    write_list("path\n1.png\n2.png\n")
    assert run("csv", "list.csv", "out", "--unlabelled") == 0
    assert Manifest.load("out/train").num_samples == 2


@pytest.mark.parametrize(
    ("text", "arguments", "sentence"),
    [
        (
            "1.png,a\n",
            [],
            "list.csv has no column 'path'; its first line names: '1.png', 'a'. Name",
        ),
        (
            "path,who\n1.png,a\n",
            [],
            "has no column 'label'; its first line names: 'path', 'who'. Name",
        ),
        ("path,label\n1.png,a\n", ["--split-column", "s"], "has no column 's'"),
        ("path,label,label\n1.png,a,b\n", [], "list.csv has two columns 'label'"),
        (
            "path,label\n1.png,\n2.png,-1\n",
            [],
            "None of the 2 rows of list.csv in the split 'train' has",
        ),
        ("path,label\n,a\n", [], "Line 2 of list.csv has nothing in the column 'path'"),
        ("path,label,split\n1.png,a\n", [], "Line 2 of list.csv has nothing in the column 'split'"),
        (
            "path,label\n1.png,a\n1.png,b\n",
            [],
            "1.png on line 2 with the label 'a', and on line 3 with 'b'",
        ),
        (
            "path,label,split\n1.png,a,train\n1.png,a,test\n",
            [],
            "names 1.png on line 2 with the split 'train', and on line 3 with 'test'",
        ),
        (
            "path,label,split\n1.png,a,train\n./1.png,a,test\n",
            [],
            "names 1.png on line 2 with the split 'train', and on line 3 with 'test'",
        ),
        (
            'path,label\n1.png,"a\n2.png,b"\n',
            [],
            "The column 'label' of list.csv goes on over several lines, up to line 3: 'a\\n2.png,b'",
        ),
        (
            "path,label\ngone.png,a\n",
            [],
            "names no picture that there is; listed, but there is no such file: l",
        ),
        ("path,label\n", [], "names no picture that there is. Paths are relative to the folder of the list"),
        ("", [], "has no column 'path'; its first line names: none"),
        ('path,label\n"1.png,a\n', [], "The list list.csv cannot be read (unexpected end of data)"),
        (
            "path,label,split\n1.png,a,one\n2.png,a,two\n",
            [],
            "has the splits 'one', 'two'. Name the one to train on with --train-split",
        ),
        (
            "path,label,split\n1.png,a,train\n",
            ["--test-split", "x"],
            "list.csv has no split 'x' (--test-split)",
        ),
    ],
)
def test_a_list_that_cannot_be_used(
    run: Run, capsys: pytest.CaptureFixture[str], text: str, arguments: list[Any], sentence: str
) -> None:
    save("1.png", "2.png")
    write_list(text)
    assert run("csv", "list.csv", "out", *arguments) == 1
    assert sentence in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_list_that_is_none(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("csv", "gone.csv", "out") == 1
    assert "The list gone.csv cannot be read ([Errno 2] No such file" in capsys.readouterr().err
    Path("list.csv").write_bytes(b"\xff\xfe\x00")
    assert run("csv", "list.csv", "out") == 1
    assert "The list list.csv cannot be read (byte" in capsys.readouterr().err


def test_a_label_with_a_separator_wants_quotes(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    save("1.png", "2.png")
    write_list("path,label\n1.png,Smith, John\n2.png,Smith, Anna\n")
    assert run("csv", "list.csv", "out", "--size", 20) == 1
    assert (
        "Line 2 of list.csv has 3 cells, and its first line names 2 columns. Put" in capsys.readouterr().err
    )
    write_list('path,label\n1.png,"Smith, John",\n2.png,"Smith, Anna"\n')
    assert run("csv", "list.csv", "out", "--size", 20) == 0
    assert Manifest.load("out/train").classes == ("Smith, Anna", "Smith, John")
