"""shards/build.py folder --unlabelled: any pictures without labels, and classes that are held out."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dist_dsvae.building.sources.unlabelled import plain
from dist_dsvae.data.shards.manifest import UNLABELLED, Manifest
from tests.unit.data.making import all_files, samples_of

Run = Callable[..., int]


def save(*names: str) -> None:
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (len(name), 0, 0)).save(path)


def hashed(*names: str) -> set[str]:
    return {f"sha256:{hashlib.sha256(name.encode()).hexdigest()[:32]}" for name in names}


def sources_of(split: str) -> set[str]:
    return {about["source"] for _, _, about in samples_of(Path(split))}


def left_out() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("out/report.json").read_text(encoding="utf-8"))["left_out"]
    return found


def test_pictures_in_folders_and_outside(run: Run) -> None:
    save("raw/Jane Doe/1.png", "raw/Jane Doe/2.png", "raw/Jo/1.png", "raw/loose.png")
    Path("raw/notes.txt").write_text("no picture")
    Path("raw/broken.jpg").write_text("no picture either")
    assert run("folder", "raw", "out", "--unlabelled", "--size", 8) == 0
    assert Manifest.load("out/train").classes == UNLABELLED
    assert [label for _, label, _ in samples_of(Path("out/train"))] == [0] * 4
    assert sources_of("out/train") == hashed("Jane Doe/1.png", "Jane Doe/2.png", "Jo/1.png", "loose.png")
    assert left_out()["files that are no pictures"] == ["notes.txt"]
    assert left_out()["unreadable files"][0].startswith("broken.jpg (")
    assert not Path("out/held-out").exists()


def test_no_name_of_a_person_is_in_the_shards(run: Run) -> None:
    save(*(f"raw/Jane_Doe_{n}/picture_{k}.png" for n in range(4) for k in range(2)))
    assert run("folder", "raw", "out", "--unlabelled", "--held-out-classes", 1) == 0
    files = all_files(Path("out"))
    assert all(b"Jane" not in content for name, content in files.items() if name.startswith("train/"))
    assert b"Jane" in files["held-out/000000.tar"]


def test_held_out_classes_have_pairs_and_names(run: Run) -> None:
    sizes = {"a": 1, "b": 2, "c": 1, "d": 3, "e": 1, "f": 2}
    save(*(f"raw/{name}/{place}.png" for name, size in sizes.items() for place in range(size)), "raw/x.png")
    assert run("folder", "raw", "out", "--unlabelled", "--held-out-classes", 2) == 0
    classes = Manifest.load("out/held-out").classes
    assert len(classes) == 2
    assert set(classes) < {"b", "d", "f"}
    kept = samples_of(Path("out/held-out"))
    assert sorted(about["source"] for _, _, about in kept) == [
        f"{name}/{place}.png" for name in classes for place in range(sizes[name])
    ]
    assert all(classes[label] == about["class_name"] for _, label, about in kept)
    rest = [f"{name}/{place}.png" for name in sizes if name not in classes for place in range(sizes[name])]
    assert sources_of("out/train") == hashed("x.png", *rest)
    assert json.loads(Path("out/report.json").read_text())["samples_per_class"] == {
        "train": {"unlabelled": 1 + len(rest)},
        "held-out": {name: sizes[name] for name in classes},
    }
    chosen = set()
    for seed in range(8):
        options = ("--unlabelled", "--held-out-classes", 2, "--seed", seed, "--overwrite")
        assert run("folder", "raw", "out", *options) == 0
        chosen.add(Manifest.load("out/held-out").classes)
    assert len(chosen) > 1


def test_excluded_folders_and_small_ones(run: Run) -> None:
    save("raw/Jane Doe/1.png", "raw/Jane Doe/2.png", "raw/Jo/1.png", "raw/Al/1.png", "raw/Al/2.png")
    Path("names.txt").write_text("jane_doe\n")
    options = ("--unlabelled", "--exclude", "names.txt", "--min-pictures", 2)
    assert run("folder", "raw", "out", *options) == 0
    assert sources_of("out/train") == hashed("Al/1.png", "Al/2.png")
    assert left_out() == {
        "classes excluded by name": ["Jane Doe"],
        "classes of fewer than 2 pictures": ["Jo (1)"],
    }


def test_classes_of_few_pictures_are_left_out(run: Run) -> None:
    save("raw/train/a/1.png", "raw/test/a/2.png", "raw/train/b/1.png")
    assert run("folder", "raw", "out", "--min-pictures", 2) == 0
    assert Manifest.load("out/train").classes == Manifest.load("out/test").classes == ("a",)
    assert left_out() == {"classes of fewer than 2 pictures": ["b (1)"]}


@pytest.mark.parametrize(
    ("images", "arguments", "sentence"),
    [
        ([], ["--unlabelled"], "The folder raw does not exist"),
        (["raw/a/b/x.png"], ["--unlabelled"], "raw holds no picture; folders inside a class: a/b"),
        (["raw/train/a/x.png"], ["--unlabelled"], "raw holds the splits train/, which must not be mixed"),
        (["raw/a/x.png"], ["--unlabelled", "--test-fraction", 0.5], "--test-fraction makes a labelled"),
        (
            ["raw/a/x.png"],
            ["--unlabelled", "--held-out-classes", 1],
            "1 classes were to be held out of raw; 0",
        ),
        (
            ["raw/a/x.png", "raw/a/y.png"],
            ["--unlabelled", "--held-out-classes", 1],
            "neither excluded nor held",
        ),
        (["raw/a/x.png"], ["--held-out-classes", 1], "--exclude belong to --unlabelled"),
        (["raw/a/x.png"], ["--min-face", 50], "--min-face has no effect without --faces. Add that, or leave"),
        (["raw/a/x.png"], ["--choose", "largest"], "--choose has no effect without --faces"),
        (["raw/a/x.png"], ["--quality", 5, "--format", "png"], "--quality has no effect as --format is png"),
        (["raw/a/x.png"], ["--png-level", 9, "--format", "jpg"], "--png-level has no effect as --format"),
        (["raw/a/x.png"], ["--min-pictures", 2], "No class of raw has 2 pictures; the largest has 1"),
    ],
)
def test_what_is_refused(
    run: Run, capsys: pytest.CaptureFixture[str], images: list[str], arguments: list[Any], sentence: str
) -> None:
    save(*images)
    assert run("folder", "raw", "out", *arguments) == 1
    assert sentence in capsys.readouterr().err
    assert not Path("out").exists()


def test_spellings_of_a_name() -> None:
    assert plain("Zoë  O'Hara-Lee") == plain("zoe_ohara_LEE") == "zoeoharalee"
    assert plain("Straße") == plain("STRASSE")
    assert plain("Jo") != plain("Joe")
    assert plain("مُحَمَّد") == plain("محمد")  # vowels that may be left out
    assert plain("葛\U000e0100城") == plain("葛城")  # one character, drawn in two ways
    assert plain("ﾊﾞﾙﾄ") == plain("バルト")
    assert plain("Йозеф") == plain("Иозеф")


@pytest.mark.parametrize("names", ["राम रमा रीमा", "สิน สัน สน", "はると ばると ぱると", "கண கணி"])
def test_names_that_differ_by_marks_that_are_letters(names: str) -> None:
    persons = names.split()
    assert len({plain(name) for name in persons}) == len(persons)
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert [plain(unicodedata.normalize(form, name)) for name in persons] == [*map(plain, persons)]
