"""shards/build.py folder: pictures of every kind become splits, and what cannot is named."""

from __future__ import annotations

import io
import json
import os
import shlex
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dist_dsvae.building.sources.file_encoder import FileEncoder
from dist_dsvae.commands import build
from dist_dsvae.data.shards.manifest import Manifest
from tests.unit.data.making import REPOSITORY, samples_of

Run = Callable[..., int]
RED = (200, 30, 40)


def images_of(split: Path) -> dict[str, Image.Image]:
    """Source name -> picture."""
    return {about["source"]: Image.open(io.BytesIO(content)) for content, _, about in samples_of(split)}


def save(path: Path, image: Image.Image | None = None, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or Image.new("RGB", (40, 30), RED)).save(path, **options)


def report_of(out: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((Path(out) / "report.json").read_text(encoding="utf-8"))
    return document


def test_every_kind_of_picture(run: Run) -> None:
    red = Image.new("RGB", (40, 30), RED)
    here = Path("raw/class")
    palette = red.quantize(4)
    clear = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
    ramp = np.linspace(0, 65535, 40).astype(np.uint16)[None].repeat(30, axis=0)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    half = Image.new("RGB", (40, 40), RED)
    half.paste((0, 0, 255), (0, 0, 40, 20))

    save(here / "rgb.png", red)
    save(here / "cmyk.jpg", red.convert("CMYK"), quality=95)
    save(here / "palette.gif", palette)
    save(here / "palette-clear.png", clear.convert("P"), transparency=0)
    save(here / "one-bit.png", Image.new("1", (40, 30), 1))
    save(here / "grey-alpha.png", Image.new("LA", (40, 30), (0, 0)))
    save(here / "alpha.png", clear)
    save(here / "half-alpha.webp", Image.new("RGBA", (40, 30), (0, 0, 0, 128)), lossless=True)
    save(here / "sixteen.png", Image.fromarray(ramp))
    save(here / "sixteen.tiff", Image.fromarray(ramp))
    save(here / "float.tiff", Image.fromarray((ramp / 65535).astype(np.float32)))
    save(here / "turned.jpg", half, exif=exif, quality=95)
    save(here / "animated.gif", red, save_all=True, append_images=[Image.new("RGB", (40, 30), (0, 255, 0))])
    save(here / "größe 图.bmp", red)
    save(here / "upper.JPEG", red, format="JPEG", quality=95)
    save(here / "no-ending", red, format="PNG")
    assert run("folder", "raw", "out", "--size", 20, "--format", "png") == 0
    assert report_of("out")["left_out"] == {}

    found = images_of(Path("out/train"))
    assert {(image.mode, image.size) for image in found.values()} == {("RGB", (20, 20))}
    centre = {name.removeprefix("class/"): np.array(image)[10, 10] for name, image in found.items()}
    for name in (
        "rgb.png",
        "cmyk.jpg",
        "palette.gif",
        "animated.gif",
        "größe 图.bmp",
        "upper.JPEG",
        "no-ending",
    ):
        np.testing.assert_allclose(centre[name], RED, atol=4, err_msg=name)
    for name in ("palette-clear.png", "one-bit.png", "grey-alpha.png", "alpha.png"):
        assert centre[name].tolist() == [255, 255, 255], name
    assert centre["half-alpha.webp"].tolist() == [127, 127, 127]
    for name in ("sixteen.png", "sixteen.tiff", "float.tiff"):
        row = np.array(found[f"class/{name}"])[10, :, 0].astype(int)
        np.testing.assert_allclose(row, np.linspace(35, 220, 20), atol=4, err_msg=name)  # the middle 30 of 40
    turned = np.array(found["class/turned.jpg"])
    np.testing.assert_allclose(turned[10, 4], RED, atol=6)
    np.testing.assert_allclose(turned[10, 16], (0, 0, 255), atol=6)


@pytest.mark.parametrize(
    ("resize", "left", "top"),
    [("crop", RED, RED), ("pad", (0, 0, 255), (255, 255, 255)), ("stretch", (0, 0, 255), RED)],
)
def test_resizing(run: Run, resize: str, left: tuple[int, ...], top: tuple[int, ...]) -> None:
    wide = Image.new("RGB", (80, 40), RED)
    wide.paste((0, 0, 255), (0, 0, 18, 40))
    save(Path("raw/a/wide.png"), wide)
    assert run("folder", "raw", "out", "--size", 20, "--resize", resize, "--format", "png") == 0
    pixels = np.array(images_of(Path("out/train"))["a/wide.png"])
    np.testing.assert_allclose(pixels[10, 1], left, atol=3)
    np.testing.assert_allclose(pixels[1, 10], top, atol=3)


def test_grey_jpeg_at_full_colour_resolution(run: Run) -> None:
    save(Path("raw/a/x.png"))
    assert run("folder", "raw", "grey", "--channels", 1) == 0
    assert Manifest.load("grey/train").shape == (1, 64, 64)
    assert images_of(Path("grey/train"))["a/x.png"].mode == "L"
    assert run("folder", "raw", "colour", "--archive", "gz", "--samples-per-shard", 1) == 0
    colour = images_of(Path("colour/train"))["a/x.png"]
    assert [layer[1:3] for layer in colour.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]
    assert Manifest.load("colour/train").encoding == "jpg"


def test_everything_left_out_is_named(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    save(Path("raw/b/good.png"))
    save(Path("raw/b/inner/deep.png"))
    save(Path("raw/stray.png"))
    save(Path("raw/only-nested/inner/deep.png"))
    Path("raw/empty").mkdir()
    for number in range(12):
        Path(f"raw/b/notes{number:02d}.txt").write_text("no picture")
    Path("raw/b/zero.jpg").touch()
    save(Path("raw/b/cut.png"), Image.effect_noise((50, 50), 90))
    Path("raw/b/cut.png").write_bytes(Path("raw/b/cut.png").read_bytes()[:900])
    os.mkfifo("raw/b/pipe.fifo")

    assert run("folder", "raw", "out") == 0
    left_out = report_of("out")["left_out"]
    assert left_out["files outside the class folders"] == ["stray.png"]
    assert left_out["folders inside a class"] == ["b/inner/deep.png", "only-nested/inner/deep.png"]
    assert left_out["classes without a picture"] == ["empty", "only-nested"]
    assert left_out["files that are no pictures"] == [
        *(f"b/notes{number:02d}.txt" for number in range(12)),
        "b/pipe.fifo",
    ]
    unreadable = left_out["unreadable files"]
    assert [name.split(" ")[0] for name in unreadable] == ["b/cut.png", "b/zero.jpg"]
    assert "truncated" in unreadable[0]
    assert Manifest.load("out/train").classes == ("b",)
    printed = capsys.readouterr().out
    assert "files that are no pictures: 13" in printed
    assert "b/notes09.txt" in printed
    assert "b/notes11.txt" not in printed
    assert "... and 3 more, see report.json" in printed
    assert report_of("out")["samples_per_class"] == {"train": {"b": 1}}

    assert run("folder", "raw", "deep", "--recursive") == 0
    assert Manifest.load("deep/train").classes == ("b", "only-nested")
    assert Manifest.load("deep/train").num_samples == 3
    assert Manifest.load("deep/train").command == (
        "python shards/build.py folder raw deep --recursive --workers 1"
    )


def test_class_names_are_sorted_and_composed(run: Run) -> None:
    for name in ("Zebra", unicodedata.normalize("NFD", "Äpfel"), "ant"):
        save(Path("raw") / name / "x.png")
    assert run("folder", "raw", "out") == 0
    assert Manifest.load("out/train").classes == ("Zebra", "ant", unicodedata.normalize("NFC", "Äpfel"))


def test_given_splits_share_their_classes(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    save(Path("raw/train/b/1.png"))
    save(Path("raw/train/c/2.png"))
    save(Path("raw/test/a/3.png"))
    assert run("folder", "raw", "out") == 0
    train, test = Manifest.load("out/train"), Manifest.load("out/test")
    assert train.classes == test.classes == ("a", "b", "c")
    assert train.index(0)[:, 2].max() == 2
    assert test.index(0)[:, 2].tolist() == [0]
    assert report_of("out")["left_out"]["classes without a sample"] == [
        "a (in train)",
        "b (in test)",
        "c (in test)",
    ]
    assert run("folder", "raw", "other", "--test-fraction", 0.5) == 1
    assert "raw has the split 'test' already" in capsys.readouterr().err


def test_a_share_for_testing(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for name, count in (("a", 20), ("b", 10), ("c", 1)):
        for number in range(count):
            save(Path(f"raw/{name}/{number}.png"), Image.new("L", (2, 2), number))
    assert run("folder", "raw", "out", "--test-fraction", 0.2, "--size", 2) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("Looking through raw\n")
    assert printed.err.splitlines() == ["0 of 31 samples", "31 of 31 samples"]
    assert report_of("out")["samples_per_class"] == {
        "train": {"a": 16, "b": 8, "c": 1},
        "test": {"a": 4, "b": 2, "c": 0},
    }
    names = [
        about["source"] for split in ("train", "test") for _, _, about in samples_of(Path("out") / split)
    ]
    assert len(set(names)) == 31


@pytest.mark.parametrize(
    ("images", "arguments", "sentence"),
    [
        ([], ["nowhere", "out"], "The folder nowhere does not exist"),
        (["raw/a/inner/x.png"], ["raw", "out"], "raw holds no picture in any class folder"),
        (["raw/x.png"], ["raw", "out"], "files outside the class folders: x.png"),
        (["raw/a/x.png"], ["raw", "out", "--test-fraction", 0.5], "leaves no test sample"),
        (["raw/a/x.png"], ["raw", "raw"], "raw and raw are one folder"),
        (["raw/é/x.png", "raw/e\u0301/x.png"], ["raw", "out"], "both written 'é'"),
    ],
)
def test_a_folder_that_cannot_be_built(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    images: list[str],
    arguments: list[Any],
    sentence: str,
) -> None:
    for image in images:
        save(Path(image))
    assert run("folder", *arguments) == 1
    printed = capsys.readouterr().err.removeprefix("0 of 1 samples\n")
    assert printed.startswith("error: ")
    assert sentence in printed
    assert not Path("out").exists()
    assert not list(Path().glob("*.incomplete-*"))


def test_no_readable_picture_is_an_error(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Path("raw/a").mkdir(parents=True)
    Path("raw/a/x.jpg").write_bytes(b"no jpeg")
    assert run("folder", "raw", "out") == 1
    assert (
        "None of the 1 samples of the split 'train' can be read; a/x.jpg: Unidentified"
        in capsys.readouterr().err
    )
    assert [path.name for path in Path().iterdir()] == ["raw"]


def test_configs_name_commands_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = {
        command
        for path in (REPOSITORY / "configs").rglob("*.json")
        for command in json.loads(path.read_text(encoding="utf-8"))["data"]
        .get("build_command", "")
        .splitlines()
    }
    subcommands = set()
    for command in commands:
        program, name, *arguments = shlex.split(command)
        assert (program, name) == ("dsvae", "build")
        monkeypatch.setattr(sys, "argv", ["dsvae build", *arguments])
        subcommands.add(build.make_parser().parse_args().subcommand)
    assert {"cifar10", "cifar100", "cub200", "facescrub", "casia", "toy"} <= subcommands


def test_ctrl_c_ends_in_a_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    save(Path("raw/a/1.png"))
    monkeypatch.setattr(FileEncoder, "__call__", interrupted)
    assert run("folder", "raw", "out", "--workers", 1) == 130
    assert "Interrupted. What was not ready is gone" in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["raw"]
