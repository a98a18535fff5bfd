"""shards/build.py from raw data to splits: folders of any pictures, idx files, CIFAR pickles, points."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dist_dsvae.data.manifest import DataError, Manifest
from dist_dsvae.data.sources import arrays, download
from dist_dsvae.data.sources.cifar import read_pickle
from dist_dsvae.data.sources.toy import half_moons
from dist_dsvae.data.tarscan import find_tars, scan
from dist_dsvae.data.verify import verify
from tests.unit.data.making import REPOSITORY, all_files, run_build, write_idx

Run = Callable[..., int]
RED = (200, 30, 40)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs shards/build.py in this process, in an empty folder; returns the exit status."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: run_build(monkeypatch, *arguments)


def samples_of(split: Path) -> list[tuple[bytes, int, dict[str, Any]]]:
    """(image bytes, label, json) of every sample of a verified split."""
    manifest = Manifest.load(split)
    verify(manifest)
    return [
        (
            sample.members[manifest.encoding].content,
            int(sample.members["cls"].content),
            json.loads(sample.members["json"].content),
        )
        for tar in find_tars(split)
        for sample in scan(tar)
    ]


def pictures_of(split: Path) -> dict[str, Image.Image]:
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

    found = pictures_of(Path("out/train"))
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
    [("crop", RED, RED), ("pad", RED, (255, 255, 255)), ("stretch", (0, 0, 255), RED)],
)
def test_resizing(run: Run, resize: str, left: tuple[int, ...], top: tuple[int, ...]) -> None:
    wide = Image.new("RGB", (80, 40), RED)
    wide.paste((0, 0, 255), (0, 0, 18, 40))
    save(Path("raw/a/wide.png"), wide)
    assert run("folder", "raw", "out", "--size", 20, "--resize", resize, "--format", "png") == 0
    pixels = np.array(pictures_of(Path("out/train"))["a/wide.png"])
    np.testing.assert_allclose(pixels[10, 6 if resize == "pad" else 1], left, atol=3)
    np.testing.assert_allclose(pixels[1, 10], top, atol=3)


def test_grey_jpeg_at_full_colour_resolution(run: Run) -> None:
    save(Path("raw/a/x.png"))
    assert run("folder", "raw", "grey", "--channels", 1) == 0
    assert Manifest.load("grey/train").shape == (1, 64, 64)
    assert pictures_of(Path("grey/train"))["a/x.png"].mode == "L"
    assert run("folder", "raw", "colour", "--archive", "gz", "--samples-per-shard", 1) == 0
    colour = pictures_of(Path("colour/train"))["a/x.png"]
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
    assert left_out["folders inside a class"] == ["b/inner", "only-nested/inner"]
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
    assert "has a folder test/ already" in capsys.readouterr().err


def test_a_share_for_testing(run: Run) -> None:
    for name, count in (("a", 20), ("b", 10), ("c", 1)):
        for number in range(count):
            save(Path(f"raw/{name}/{number}.png"), Image.new("L", (2, 2), number))
    assert run("folder", "raw", "out", "--test-fraction", 0.2, "--size", 2) == 0
    assert report_of("out")["samples_per_class"] == {
        "train": {"a": 16, "b": 8, "c": 1},
        "test": {"a": 4, "b": 2, "c": 0},
    }
    names = [
        about["source"] for split in ("train", "test") for _, _, about in samples_of(Path("out") / split)
    ]
    assert len(set(names)) == 31


@pytest.mark.parametrize(
    ("prepare", "arguments", "sentence"),
    [
        (lambda: None, ["nowhere", "out"], "The folder nowhere does not exist"),
        (lambda: Path("raw").mkdir(), ["raw", "out"], "raw holds no picture in any class folder"),
        (lambda: save(Path("raw/x.png")), ["raw", "out"], "files outside the class folders: x.png"),
        (lambda: save(Path("raw/a/x.png")), ["raw", "out", "--test-fraction", 0.5], "leaves no test sample"),
        (lambda: save(Path("raw/a/x.png")), ["raw", "out", "--test-fraction", 1], "test fraction is 1.0; it must"),
        (lambda: save(Path("raw/a/x.png")), ["raw", "out", "--size", 0], "image size is 0"),
        (lambda: save(Path("raw/a/x.png")), ["raw", "out", "--quality", 100], "quality is 100; allowed are 1 to 95"),
        (lambda: save(Path("raw/a/x.png")), ["raw", "out", "--png-level", 10], "level is 10; allowed are 0 to 9"),
        (lambda: save(Path("raw/a/x.png")), ["raw", "raw"], "raw exists already and is not empty. Choose another"),
        (lambda: save(Path("raw/train/a/x.png")) or save(Path("raw/val/a/x.png")), ["raw", "out"], "Rename val/ to test/"),
        (lambda: save(Path("raw/é/x.png")) or save(Path("raw/e\u0301/x.png")), ["raw", "out"], "both written 'é'"),
    ],
)  # fmt: skip
def test_a_folder_that_cannot_be_built(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    prepare: Callable[[], None],
    arguments: list[Any],
    sentence: str,
) -> None:
    prepare()
    assert run("folder", *arguments) == 1
    printed = capsys.readouterr().err
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


def write_fashion_mnist(folder: Path, counts: tuple[int, int] = (40, 20), packed: bool = True) -> np.ndarray:
    """The four files; image i of a split is filled with i, its label is i modulo 10."""
    folder.mkdir()
    for prefix, count in zip(("train", "t10k"), counts, strict=True):
        images = np.arange(count, dtype=np.uint8)[:, None, None].repeat(28, 1).repeat(28, 2)
        for name, array in (("images-idx3", images), ("labels-idx1", np.arange(count) % 10)):
            path = folder / f"{prefix}-{name}-ubyte"
            write_idx(path, array)
            if packed:
                path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
                path.unlink()
    return images


@pytest.mark.parametrize("packed", [True, False])
def test_fashion_mnist(run: Run, packed: bool) -> None:
    write_fashion_mnist(Path("idx"), packed=packed)
    assert run("fashion-mnist", "idx", "out", "--train-samples", 25, "--test-samples", 10) == 0
    manifest = Manifest.load("out/train")
    assert manifest.shape == (1, 32, 32)
    assert manifest.classes == tuple(sorted(arrays.FASHION_MNIST_NAMES))
    assert manifest.encoding == "png"
    found = samples_of(Path("out/train"))
    assert sorted(Counter(label for _, label, _ in found).values()) == [2] * 5 + [3] * 5
    assert len({about["source"] for _, _, about in found}) == 25
    for content, label, about in found:
        pixels = np.array(Image.open(io.BytesIO(content)))
        place = int(about["source"].removeprefix("train-images-idx3-ubyte[").removesuffix("]"))
        assert np.array_equal(pixels, np.pad(np.full((28, 28), place, dtype=np.uint8), 2))
        assert arrays.FASHION_MNIST_NAMES[place % 10] == manifest.classes[label] == about["class_name"]
    assert len(samples_of(Path("out/test"))) == 10


def cut(path: str, keep: int) -> None:
    Path(path).write_bytes(Path(path).read_bytes()[:keep])


@pytest.mark.parametrize(
    ("damage", "arguments", "sentence"),
    [
        (lambda: Path("idx/train-labels-idx1-ubyte").unlink(), [], "has neither train-labels-idx1-ubyte.gz nor"),
        (lambda: cut("idx/train-images-idx3-ubyte", 999), [], "holds 983 values; its header says 40 x 28 x 28"),
        (lambda: cut("idx/train-images-idx3-ubyte", 3), [], "begins with the bytes 00 00 08;"),
        (lambda: Path("idx/train-images-idx3-ubyte.gz").write_bytes(b"no"), [], "ubyte.gz cannot be read"),
        (lambda: write_idx(Path("idx/train-labels-idx1-ubyte"), np.arange(40)), [], "has the label 10; allowed are 0 to 9"),
        (lambda: write_idx(Path("idx/train-labels-idx1-ubyte"), np.zeros(9)), [], "has 40 images but 9 labels"),
        (lambda: None, ["--train-samples", 41], "41 samples were asked for in the split 'train', which has 40"),
        (lambda: None, ["--size", 27], "image size is 27; it must be at least 28"),
    ],
)  # fmt: skip
def test_idx_files_that_cannot_be_used(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[], None],
    arguments: list[Any],
    sentence: str,
) -> None:
    write_fashion_mnist(Path("idx"), packed=False)
    damage()
    assert run("fashion-mnist", "idx", "out", *arguments) == 1
    assert sentence in capsys.readouterr().err


def write_cifar(folder: Path, kind: str, protocol: int = 2) -> dict[str, np.ndarray]:
    """The official files with 10 images each; file -> uint8 [10, 3, 32, 32]."""
    folder.mkdir()
    names = ["whale", "ant", "bee"]
    batches = (
        [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"] if kind == "cifar10" else ["train", "test"]
    )
    prefix = "" if kind == "cifar10" else "fine_"
    meta = {f"{prefix}label_names".encode(): [name.encode() for name in names]}
    (folder / ("batches.meta" if kind == "cifar10" else "meta")).write_bytes(pickle.dumps(meta, protocol))
    images = {}
    for seed, batch in enumerate(batches):
        images[batch] = np.random.default_rng(seed).integers(0, 256, (10, 3, 32, 32), dtype=np.uint8)
        content = {
            b"batch_label": batch.encode(),
            b"data": images[batch].reshape(10, -1),
            f"{prefix}labels".encode(): [place % 3 for place in range(10)],
            b"filenames": [b"x.png"] * 10,
        }
        (folder / batch).write_bytes(pickle.dumps(content, protocol))
    return images


@pytest.mark.parametrize(
    ("kind", "protocol", "folder", "source"),
    [("cifar10", 2, "raw", "raw"), ("cifar100", 5, "cifar-100-python", ".")],
)
def test_cifar(run: Run, kind: str, protocol: int, folder: str, source: str) -> None:
    images = write_cifar(Path(folder), kind, protocol)
    assert run(kind, source, "out") == 0
    manifest = Manifest.load("out/train")
    assert manifest.classes == ("ant", "bee", "whale")
    assert manifest.shape == (3, 32, 32)
    assert manifest.num_samples == (50 if kind == "cifar10" else 10)
    for split in ("train", "test"):
        for content, label, about in samples_of(Path("out") / split):
            batch, place = about["source"].removesuffix("]").split("[")
            expected = images[batch][int(place)].transpose(1, 2, 0)
            assert np.array_equal(np.array(Image.open(io.BytesIO(content))), expected)
            assert manifest.classes[label] == ["whale", "ant", "bee"][int(place) % 3]


class Malicious:
    """Unpickles to the result of making a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("owned",))


def test_a_malicious_pickle_runs_nothing(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    write_cifar(Path("raw"), "cifar10")
    Path("raw/data_batch_3").write_bytes(pickle.dumps({b"data": Malicious()}))
    assert run("cifar10", "raw", "out") == 1
    assert "asks for the object posix.mkdir" in capsys.readouterr().err
    assert not Path("owned").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no pickle", "cannot be used"),
        (pickle.dumps([1]), "does not hold a dictionary"),
        (pickle.dumps({b"labels": [0]}), "an entry 'data' of type ndarray"),
        (pickle.dumps({b"data": np.zeros((1, 3072))}), r"data are float64 of shape \(1, 3072\)"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8)}), "an entry 'labels' of type list"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": ["a"]}), "must hold whole numbers"),
        (
            pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [3]}),
            "label 3; allowed are 0 to 2",
        ),
    ],
)
def test_pickles_that_cannot_be_used(
    run: Run, capsys: pytest.CaptureFixture[str], content: bytes, sentence: str
) -> None:
    write_cifar(Path("raw"), "cifar10")
    Path("raw/data_batch_2").write_bytes(content)
    assert run("cifar10", "raw", "out") == 1
    printed = capsys.readouterr().err
    assert "data_batch_2" in printed
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError(printed)


def test_a_missing_pickle(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"test_batch is missing\. Give the folder"):
        read_pickle(tmp_path / "test_batch")


def test_a_failed_download_gets_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    datasets = pytest.importorskip("torchvision.datasets")

    def fail(root: Path, download: bool) -> None:
        raise RuntimeError("Error downloading")

    monkeypatch.setattr(datasets, "CIFAR10", fail)
    with pytest.raises(DataError, match=r"cifar10 could not be downloaded to .*downloads \(Error downl"):
        download.download("cifar10", tmp_path)


def test_half_moons_are_where_they_belong() -> None:
    points, labels = half_moons(30_000, 0, 0)
    assert points.dtype == np.float32
    for label in range(3):
        centred = points[labels == label] - [2.2 * (label - 1), -0.5]
        radius = np.hypot(*centred.T)
        # E[|u + e|^2] = 1 + 2 std^2; mean height of the upper half circle 2 / pi.
        assert np.mean(radius**2) == pytest.approx(1 + 2 * 0.15**2, abs=0.015)
        assert np.std(radius) == pytest.approx(0.15, abs=0.005)
        assert np.mean(centred, axis=0) == pytest.approx([0, 2 / np.pi], abs=0.03)
        assert np.mean(centred[:, 1] < -0.6) < 0.001


def test_a_point_depends_on_its_position_alone(run: Run) -> None:
    few, _ = half_moons(10, 5, seed=1)
    many, _ = half_moons(100, 0, seed=1)
    assert np.array_equal(few, many[5:15])
    assert not np.array_equal(few, half_moons(10, 5, seed=2)[0])
    assert run("toy", "out", "--num-points", 30, "--num-test-points", 6, "--seed", 1) == 0
    assert Manifest.load("out/train").shape == (2, 0, 0)
    assert [tar.name for tar in find_tars(Path("out/test"))] == ["000000.tar.gz"]
    for content, label, about in samples_of(Path("out/train")):
        place = int(about["source"].removeprefix("train-point[").removesuffix("]"))
        assert np.array_equal(np.load(io.BytesIO(content)), many[place])
        assert label == place % 3
    assert run("toy", "none", "--num-points", 0) == 1


def test_building_again_changes_no_byte(run: Run) -> None:
    arguments = ["--num-points", 30, "--num-test-points", 6, "--overwrite"]
    assert run("toy", "out", *arguments) == 0
    before = all_files(Path("out"))
    assert run("toy", "out", *arguments) == 0
    assert all_files(Path("out")) == before


def test_the_committed_set_is_whole() -> None:
    folder = REPOSITORY / "shards" / "fashion-mnist-mini"
    train, test = Manifest.load(folder / "train"), Manifest.load(folder / "test")
    verify(test)
    assert (train.num_samples, test.num_samples) == (10_000, 2_000)
    assert train.shape == test.shape == (1, 32, 32)
    for manifest, count in ((train, 1000), (test, 200)):
        per_class: Counter[int] = Counter()
        for shard in manifest.shards:
            per_class.update(shard.samples_per_class)
        assert set(per_class.values()) == {count}
    assert sum(map(len, all_files(folder).values())) <= 6_000_000
    assert "MIT" in (folder / "LICENSE-fashion-mnist.txt").read_text(encoding="utf-8")
