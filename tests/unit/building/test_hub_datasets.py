"""shards/build.py hf: data sets of the library datasets, as Arrow and as Parquet, without any network."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dist_dsvae.building.sources.own_images import hub_dataset
from dist_dsvae.data.shards.manifest import Manifest
from tests.unit.data.making import png, samples_of

datasets = pytest.importorskip("datasets")
Run = Callable[..., int]
NAMES = ["owl", "ant"]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, no cache of a person, no bars."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def rows(labels: list[Any], *, first: int = 0, label: Any = None, **columns: Any) -> Any:
    """Row i has a PNG filled with the grey value first + i, 8 x 8."""
    features = {"image": datasets.Image(), "label": label or datasets.ClassLabel(names=NAMES)}
    content = {"image": [{"bytes": png(first + i, (8, 8)), "path": None} for i in range(len(labels))]}
    content["label"] = labels
    for name, (feature, value) in columns.items():
        features[name], content[name] = feature, [value] * len(labels)
    return datasets.Dataset.from_dict(content, features=datasets.Features(features))


def report() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(Path("out/report.json").read_text(encoding="utf-8"))
    return document


def found(split: str) -> dict[str, tuple[str, int]]:
    """Source -> class, grey value."""
    return {
        about["source"]: (about["class_name"], int(np.array(Image.open(io.BytesIO(content)))[0, 0]))
        for content, _, about in samples_of(Path("out") / split)
    }


PLAIN = ("--size", 8, "--channels", 1, "--format", "png")
EXPECTED = {"train[0]": ("owl", 0), "train[1]": ("ant", 1), "train[2]": ("owl", 2)}


def save(kind: str) -> str:
    train, test = rows([0, 1, 0, -1, None]), rows([1, 0], first=50)
    if kind == "arrow":
        datasets.DatasetDict({"train": train, "validation": test}).save_to_disk("set")
    elif kind == "parquet folder":
        Path("set/data").mkdir(parents=True)
        train.to_parquet("set/data/train-00000-of-00001.parquet")
        test.to_parquet("set/data/validation-00000-of-00001.parquet")
    elif kind == "arrow file":
        train.save_to_disk("saved")
        (file,) = Path("saved").glob("*.arrow")
        return str(file.rename("one.arrow"))
    else:
        train.to_parquet("one.parquet")
        return "one.parquet"
    return "set"


@pytest.mark.parametrize("kind", ["arrow", "arrow file", "parquet folder", "parquet file"])
def test_it_is_read_by_types_and_names_of_splits(run: Run, kind: str) -> None:
    assert run("hf", save(kind), "out", *PLAIN) == 0
    assert Manifest.load("out/train").classes == ("ant", "owl")
    assert found("train") == EXPECTED
    notes = ["Pictures are those of the column 'image'", "Labels are those of the column 'label'"]
    if kind.endswith("file"):
        assert not Path("out/test").exists()
    else:
        assert found("test") == {"validation[0]": ("ant", 50), "validation[1]": ("owl", 51)}
        notes.append("'validation' serves as the split 'test'")
    assert report()["notes"] == notes
    assert report()["left_out"] == {"rows without a label": ["train[3]", "train[4]"]}


def test_several_processes_read_it(run: Run) -> None:
    rows([i % 2 for i in range(20)]).save_to_disk("set")
    assert run("hf", "set", "out", *PLAIN, "--samples-per-shard", 10) == 0
    assert run("hf", "set", "two", *PLAIN, "--samples-per-shard", 10, "--workers", 2) == 0
    for number in range(2):
        shard = f"train/{number:06d}.tar"
        assert (Path("out") / shard).read_bytes() == (Path("two") / shard).read_bytes()


@pytest.mark.parametrize("edge", [32, 64, 128, 256])
def test_sizes_of_the_networks(run: Run, edge: int) -> None:
    rows([0, 1]).save_to_disk("set")
    assert run("hf", "set", "out", "--size", edge) == 0
    assert Manifest.load("out/train").shape == (3, edge, edge)


def test_columns_and_splits_by_option(run: Run) -> None:
    extra = {
        "other": (datasets.Image(), {"bytes": png(99, (8, 8)), "path": None}),
        "who": (datasets.Value("int64"), 7),
    }
    datasets.DatasetDict(
        {"a": rows([0, 1], **extra), "b": rows([0, 1], **extra), "c": rows([0, 1])}
    ).save_to_disk("set")
    columns = ("--image-column", "other", "--label-column", "who")
    assert run("hf", "set", "out", *PLAIN, *columns, "--train-split", "b", "--test-split", "a") == 0
    assert found("train") == {"b[0]": ("7", 99), "b[1]": ("7", 99)}
    assert found("test") == {"a[0]": ("7", 99), "a[1]": ("7", 99)}
    assert report()["notes"][2:] == ["'b' serves as the split 'train'", "'a' serves as the split 'test'"]


def test_texts_are_labels_and_one_called_label_before_others(run: Run) -> None:
    text = datasets.Value("string")
    rows(["x", " ", "y"], label=text).save_to_disk("one")
    assert run("hf", "one", "out", *PLAIN) == 0
    assert Manifest.load("out/train").classes == ("x", "y")
    rows(["x", "z", "y"], label=text, caption=(text, "a picture")).save_to_disk("two")
    assert run("hf", "two", "out", *PLAIN, "--overwrite") == 0
    assert Manifest.load("out/train").classes == ("x", "y", "z")


def test_bytes_of_other_tools_and_rows_without_a_picture(run: Run) -> None:
    Path("p.png").write_bytes(png(5, (8, 8)))
    struct = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    content = {
        "picture": [
            {"bytes": png(4, (8, 8)), "path": None},
            {"bytes": None, "path": str(Path("p.png").resolve())},
            {"bytes": None, "path": None},
            {"bytes": b"no picture", "path": None},
            {"bytes": None, "path": "gone.png"},
        ],
        "label": ["x"] * 5,
    }
    features = datasets.Features({"picture": struct, "label": datasets.Value("string")})
    datasets.Dataset.from_dict(content, features=features).to_parquet("set.parquet")
    assert run("hf", "set.parquet", "out", *PLAIN) == 0
    assert found("train") == {"train[0]": ("x", 4), "train[1]": ("x", 5)}
    unreadable = report()["left_out"]["unreadable files"]
    assert unreadable[:2] == [
        "train[2] (OSError: the row holds no picture)",
        "train[3] (UnidentifiedImageError: not a picture of a known format)",
    ]
    assert unreadable[2].startswith("train[4] (FileNotFoundError")


def test_options_of_folder_work(run: Run) -> None:
    rows([0] * 10 + [1] * 10 + [None] * 2).save_to_disk("set")
    assert run("hf", "set", "out", *PLAIN, "--test-fraction", 0.2) == 0
    assert report()["samples_per_class"] == {"train": {"ant": 8, "owl": 8}, "test": {"ant": 2, "owl": 2}}
    assert run("hf", "set", "out", *PLAIN, "--unlabelled", "--held-out-classes", 1, "--overwrite") == 0
    assert (Manifest.load("out/train").num_samples, Manifest.load("out/held-out").num_samples) == (12, 10)


def test_a_test_split_without_labels_is_not_used(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    datasets.DatasetDict({"train": rows([0, 1]), "test": rows([-1, -1])}).save_to_disk("set")
    assert run("hf", "set", "out", *PLAIN) == 0
    assert "'test' is not used: none of its rows has a label" in report()["notes"]
    assert report()["left_out"] == {"splits that are not used": ["test (2 rows)"]}
    assert run("hf", "set", "out", *PLAIN, "--test-split", "test", "--overwrite") == 1
    assert "None of the 2 rows of set in the split 'test' has a label" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "arguments", "sentence"),
    [
        (lambda: None, [], "There is no file or folder ./set. Give the folder of a saved data set"),
        (lambda: Path("set").mkdir(), [], "The data set ./set cannot be loaded (EmptyDatasetError"),
        (lambda: Path("set").write_bytes(b"PAR1"), [], "The data set ./set cannot be loaded (ArrowInvalid"),
        (
            lambda: rows([0]),
            ["--image-column", "x"],
            "'x' (--image-column). Its columns: 'image', 'label'",
        ),
        (lambda: rows([0]), ["--image-column", "label"], "The column 'label' of ./set holds ClassLabel"),
        (lambda: rows([0]), ["--label-column", "x"], "no column 'x' (--label-column)"),
        (lambda: rows([0]), ["--label-column", "image"], "The column 'image' of ./set holds Image"),
        (
            lambda: rows([-1, None]),
            [],
            "None of the 2 rows of ./set in the split 'train' has a label",
        ),
        (
            lambda: rows([0], more=(datasets.Image(), {"bytes": png(1), "path": None})),
            [],
            "several columns of pictures. Name one with --image-column: 'image', 'more'",
        ),
        (
            lambda: rows([0]).remove_columns("image"),
            [],
            "no column of pictures. Name one with --image-column: '",
        ),
        (
            lambda: (
                rows([0])
                .rename_column("label", "a")
                .add_column("b", [0], feature=datasets.ClassLabel(names=["x"]))
            ),
            [],
            "several columns that could be labels. Name one with --label-column: 'a', 'b'; or add",
        ),
        (lambda: rows([0]).remove_columns("label"), [], "no column of labels (ClassLabel or texts)"),
        (
            lambda: rows([0]),
            ["--train-split", "x"],
            "has no split 'x' (--train-split). It has: 'train'",
        ),
        (lambda: rows([0]), ["--train-split", "train", "--test-split", "train"], "both name 'train'"),
        (
            lambda: datasets.DatasetDict({"a": rows([0]), "b": rows([0])}),
            [],
            "./set has the splits 'a', 'b'. Name the one to train on with --train-split",
        ),
    ],
)
def test_a_data_set_that_cannot_be_used(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[], Any],
    arguments: list[Any],
    sentence: str,
) -> None:
    if (made := make()) is not None and not isinstance(made, int):
        made.save_to_disk("set")
    assert run("hf", "./set", "out", *arguments) == 1
    assert sentence in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_name_at_the_hub_that_cannot_be_reached(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("hf", "nobody/nothing", "out") == 1
    assert (
        "The data set nobody/nothing cannot be loaded (ConnectionError: Couldn't" in capsys.readouterr().err
    )


def test_the_library_is_missing(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    assert run("hf", "nobody/nothing", "out") == 1
    assert 'Install it with: pip install "dist_dsvae[hf]"' in capsys.readouterr().err


def test_a_picture_says_which_row_it_is() -> None:
    dataset = rows([0, 1])
    one, other = (hub_dataset.RowImage(dataset, "image", row, "x.arrow") for row in (0, 1))
    assert str(one) != str(other)
    assert str(one) == str(hub_dataset.RowImage(dataset, "image", 0, "x.arrow"))
