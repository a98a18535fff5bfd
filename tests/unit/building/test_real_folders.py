"""Folders as people have them: systems' leftovers, splits under any name, all depths and encodings."""

from __future__ import annotations

import codecs
import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dist_dsvae.building.sources.casia import read_persons
from dist_dsvae.building.sources.own_images.split_folders import role_of
from dist_dsvae.core.images import flatten
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.shards.system_names import HEADING, is_system_name, is_system_path
from tests.unit.data.making import png_claiming, samples_of

Run = Callable[..., int]
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def save(*names: str) -> None:
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (200, 30, 40)).save(path, format="PNG")


def write(name: str, content: bytes = b"x") -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(content)


def report() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(Path("out/report.json").read_text(encoding="utf-8"))
    return document


def test_a_tree_with_everything_in_it(run: Run) -> None:
    """ImageNet's layout after a Mac, Windows, a NAS and Jupyter have been at it; exact classes and counts."""
    for split, count in (("Training", 3), ("valid", 2)):
        for name in ("ant", "bee"):
            save(*(f"raw/{split}/{name}/{place}.png" for place in range(count)))
    save("raw/Training/cow/images/0.png", "raw/Training/cow/images/1.png")
    write("raw/Training/cow/cow_boxes.txt")
    save("raw/Training/ant/no-ending")
    hidden = [
        ".DS_Store",
        ".git/objects/ab/cd",
        "Training/.ipynb_checkpoints/0-checkpoint.png",
        "Training/Thumbs.db",
        "Training/ant/._0.png",
        "Training/ant/.ipynb_checkpoints/0-checkpoint.png",
        "Training/bee/@eaDir/0.png/SYNOFILE_THUMB_M.png",
        "Training/cow/images/desktop.ini",
        "__MACOSX/Training/ant/._0.png",
        "valid/.hidden/0.png",
    ]
    for name in hidden:
        save(f"raw/{name}")
    write("raw/words.txt")
    write("raw/devkit/readme.txt")
    save("raw/Training/stray.png", "raw/Training/bee/deeper/9.png")
    write("raw/Training/bee/logo.svg", SVG)
    write("raw/Training/bee/phone.heic", HEIC)
    write("raw/Training/bee/huge.png", png_claiming(20_000, 20_000))
    write("raw/Training/bee/broken.jpg", b"\xff\xd8\xff")
    Path("raw/Training/empty").mkdir()

    assert run("folder", "raw", "out", "--size", 8) == 0
    assert Manifest.load("out/train").classes == Manifest.load("out/test").classes == ("ant", "bee", "cow")
    found = report()
    assert found["samples_per_class"] == {
        "train": {"ant": 4, "bee": 3, "cow": 2},
        "test": {"ant": 2, "bee": 2, "cow": 0},
    }
    assert found["notes"] == ["valid/ serves as the split 'test'"]
    left_out = found["left_out"]
    assert sorted(left_out.pop(HEADING)) == hidden
    unreadable = dict(line.split(" (", 1) for line in left_out.pop("unreadable files"))
    assert set(unreadable) == {"Training/bee/broken.jpg", "Training/bee/huge.png"}
    assert "too many pixels; at most 178 million" in unreadable["Training/bee/huge.png"]
    assert left_out == {
        "beside the splits": ["words.txt", "devkit/readme.txt"],
        "files outside the class folders": ["Training/stray.png"],
        "folders inside a class": ["Training/bee/deeper/9.png"],
        "classes without a picture": ["Training/empty"],
        "classes without a sample": ["cow (in test)"],
        "files that are no pictures": [
            "Training/bee/logo.svg (it is an SVG drawing, which is not read. Convert it to PNG)",
            "Training/bee/phone.heic (it is a HEIC picture, which is not read. Convert it to JPEG or PNG)",
            "Training/cow/cow_boxes.txt",
        ],
    }


def test_system_names_are_no_classes_without_splits_either(run: Run) -> None:
    save("raw/ant/0.png", "raw/.ipynb_checkpoints/0.png", "raw/__MACOSX/._ant", "raw/@eaDir/x/0.png")
    save("raw/ant/THUMBS.DB")
    assert run("folder", "raw", "out", "--recursive") == 0
    assert report()["samples_per_class"] == {"train": {"ant": 1}}
    assert len(report()["left_out"][HEADING]) == 4
    assert run("folder", "raw", "more", "--unlabelled", "--recursive") == 0
    assert Manifest.load("more/train").num_samples == 1


def test_tiny_imagenet(run: Run) -> None:
    for wnid in ("n01", "n02"):
        save(*(f"raw/train/{wnid}/images/{wnid}_{place}.JPEG" for place in range(2)))
        write(f"raw/train/{wnid}/{wnid}_boxes.txt")
    save("raw/test/images/test_0.JPEG", *(f"raw/val/images/val_{place}.JPEG" for place in range(4)))
    lines = [
        "val_0.JPEG\tn02\t0\t0\t9\t9",
        "val_1.JPEG\tn01\t0\t0\t9\t9",
        "val_2.JPEG\tn02",
        "gone.JPEG\tn01",
    ]
    write("raw/val/val_annotations.txt", codecs.BOM_UTF8 + "\r\n".join(lines).encode())
    assert run("folder", "raw", "out") == 0
    found = report()
    assert found["samples_per_class"] == {"train": {"n01": 2, "n02": 2}, "test": {"n01": 1, "n02": 2}}
    assert {about["source"]: about["class_name"] for _, _, about in samples_of(Path("out/test"))} == {
        "val/images/val_0.JPEG": "n02",
        "val/images/val_1.JPEG": "n01",
        "val/images/val_2.JPEG": "n02",
    }
    assert found["notes"] == [
        "test/ is not used: its pictures lie in no class folder, so they have no labels",
        "val/ serves as the split 'test'",
    ]
    left_out = found["left_out"]
    assert left_out["splits that are not used"] == ["test/images/test_0.JPEG"]
    assert left_out["pictures that val_annotations.txt does not name"] == ["val/images/val_3.JPEG"]
    assert left_out["listed, but there is no such file"] == ["val/val_annotations.txt, line 4: gone.JPEG"]


def test_test_wins_over_val(run: Run) -> None:
    save("raw/TRAIN/a/0.png", "raw/test_set/a/1.png", "raw/Validation/a/2.png", "raw/Validation/a/3.png")
    assert run("folder", "raw", "out") == 0
    assert report()["samples_per_class"] == {"train": {"a": 1}, "test": {"a": 1}}
    assert report()["left_out"]["splits that are not used"] == ["Validation/a/2.png", "Validation/a/3.png"]
    assert report()["notes"] == ["Validation/ is not used: test_set/ is the split 'test'"]


def test_classes_that_capital_letters_tell_apart_are_named(run: Run) -> None:
    save("raw/cat/0.png", "raw/Cat/1.png", "raw/dog/2.png")
    assert run("folder", "raw", "out") == 0
    assert report()["samples_per_class"]["train"] == {"Cat": 1, "cat": 1, "dog": 1}
    (note,) = report()["notes"]
    assert note.startswith("'Cat' and 'cat' are classes of their own")


def test_a_folder_that_may_not_be_looked_into_is_no_class_less(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save("raw/cat/0.png", "raw/dog/1.png")
    look = Path.iterdir

    def refuse(folder: Path) -> Iterator[Path]:  # chmod does not stop root
        if folder.name == "dog":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return look(folder)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert run("folder", "raw", "out") == 1
    assert "raw/dog may not be looked into" in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_class_may_be_called_train(run: Run) -> None:
    save("raw/train/0.png", "raw/bus/0.png", "raw/test/0.png")
    assert run("folder", "raw", "out") == 0
    assert Manifest.load("out/train").classes == ("bus", "test", "train")


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (["raw/train/0.png", "raw/test/0.png"], "the pictures of raw/train lie in no class folder"),
        (["raw/train/images/0.png", "raw/val/images/0.png"], "raw/train lie in no class folder"),
        (["raw/val/a/0.png", "raw/test/a/0.png"], "raw holds test/, val/, which name splits, but no train/"),
        (["raw/train/a/0.png", "raw/Train/a/0.png"], "which both name the split 'train'"),
        (["raw/train/a/0.png", "raw/val/a/0.png", "raw/more/0.png"], "and beside them more/ with pictures"),
        (["raw/archive/train/a/0.png", "raw/archive/val/a/0.png"], "per class: raw/archive looks like it"),
        (["raw/pets/cat/0.png", "raw/pets/dog/0.png"], "per class: raw/pets looks like it"),
    ],
)
def test_folders_that_look_like_splits_never_become_classes(
    run: Run, capsys: pytest.CaptureFixture[str], images: list[str], sentence: str
) -> None:
    save(*images)
    assert run("folder", "raw", "out") == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert "--recursive" not in error
    assert not Path("out").exists()


def test_names() -> None:
    roles = {
        name: role_of(name) for name in ("TRAIN", "Training set", "testing", "eval", "dev", "dataset", "t")
    }
    assert roles == {
        "TRAIN": "train",
        "Training set": "train",
        "testing": "test",
        "eval": "val",
        "dev": "val",
        "dataset": None,
        "t": None,
    }
    assert all(map(is_system_name, [".x", "Thumbs.db", "thumbs.db", "Desktop.ini", "@eaDir", "__MACOSX"]))
    assert not any(map(is_system_name, [".", "..", "a.b", "thumbs", "train"]))
    assert is_system_path("./a/.git/x")
    assert not is_system_path("./a/b.png")


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [("uint16", 8), ("uint16", 12), ("uint16", 14), ("uint16", 16), ("int32", 8), ("int32", 31)],
)
def test_deep_images_keep_their_content(tmp_path: Path, dtype: str, bits: int) -> None:
    """A ramp over n bits becomes a ramp over 8, whatever it is stored in."""
    top = 2**bits - 1
    ramp = np.linspace(0, top, 64).astype(dtype)[None].repeat(4, axis=0)
    Image.fromarray(ramp).save(tmp_path / "x.tiff")
    with Image.open(tmp_path / "x.tiff") as image:
        assert image.mode in ("I;16", "I")
        grey = np.asarray(flatten(image))[0, :, 0].astype(float)
    white = 255 * (2.0**31 / 2.0**32 if bits == 31 else 1)
    np.testing.assert_allclose(grey, np.linspace(0, white, 64), atol=1)


def test_a_32_bit_image_below_zero_is_named(run: Run) -> None:
    save("raw/a/0.png")
    Image.fromarray(np.full((8, 8), -5, np.int32)).save("raw/a/1.tiff")
    assert run("folder", "raw", "out") == 0
    (line,) = report()["left_out"]["unreadable files"]
    assert line.startswith("a/1.tiff (")
    assert "grey values must be finite and not negative" in line


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_lists_in_any_unicode(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "names.txt").write_bytes("0000045 Jürgen\r\n0000046 Jane\r\n".encode(encoding))
    assert read_persons(tmp_path / "names.txt") == {"0000045": "Jürgen", "0000046": "Jane"}


def test_folders_whose_names_are_no_utf8(run: Run) -> None:
    save("caf\udce9/ant/0.png", "caf\udce9/bee/0.png")
    assert run("folder", "caf\udce9", "o\udcfct") == 0
    manifest = Manifest.load("o\udcfct/train")
    assert manifest.classes == ("ant", "bee")
    assert "folder 'caf\ufffd' 'o\ufffdt'" in manifest.command
