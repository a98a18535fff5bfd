"""shards/build.py on known data sets: idx files, CIFAR pickles, half-moons, and the committed set."""

from __future__ import annotations

import gzip
import io
import os
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dist_dsvae.building import named_sources
from dist_dsvae.building.sources import arrays
from dist_dsvae.building.sources.cifar import read_pickle
from dist_dsvae.building.sources.toy import half_moons
from dist_dsvae.building.tar_scan import find_tars
from dist_dsvae.building.verify import verify
from dist_dsvae.core.errors import DataError
from dist_dsvae.data.shards.manifest import Manifest
from tests.unit.data.making import REPOSITORY, all_files, samples_of, write_idx

Run = Callable[..., int]


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


IMAGES, LABELS = "idx/train-images-idx3-ubyte", "idx/train-labels-idx1-ubyte"


def cut(path: str, keep: int) -> None:
    Path(path).write_bytes(Path(path).read_bytes()[:keep])


@pytest.mark.parametrize(
    ("damage", "arguments", "sentence"),
    [
        (lambda: Path(LABELS).unlink(), [], "has neither train-labels-idx1-ubyte.gz nor"),
        (lambda: cut(IMAGES, 999), [], "holds 983 values; its header says 40 x 28 x 28"),
        (lambda: cut(IMAGES, 3), [], "begins with the bytes 00 00 08;"),
        (lambda: Path(f"{IMAGES}.gz").write_bytes(b"no"), [], "ubyte.gz cannot be read"),
        (lambda: write_idx(Path(LABELS), np.arange(40)), [], "has the label 10; allowed are 0 to 9"),
        (lambda: write_idx(Path(LABELS), np.zeros(9)), [], "has 40 images but 9 labels"),
        (lambda: None, ["--train-samples", 41], "41 samples were asked for in the split 'train', which"),
        (lambda: None, ["--size", 27], "image size is 27; it must be at least 28"),
    ],
)
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
    coarse = {b"coarse_labels": [0] * 10} if prefix else {}
    if prefix:
        meta[b"coarse_label_names"] = [b"animals"]
    (folder / ("batches.meta" if kind == "cifar10" else "meta")).write_bytes(pickle.dumps(meta, protocol))
    images = {}
    for seed, batch in enumerate(batches):
        images[batch] = np.random.default_rng(seed).integers(0, 256, (10, 3, 32, 32), dtype=np.uint8)
        content = {
            b"batch_label": batch.encode(),
            b"data": images[batch].reshape(10, -1),
            f"{prefix}labels".encode(): [place % 3 for place in range(10)],
            b"filenames": [b"x.png"] * 10,
            **coarse,
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


ONE_IMAGE = np.zeros((1, 3072), dtype=np.uint8)


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
        (pickle.dumps({b"data": np.zeros((1, 3072))}), "data are float64 of shape (1, 3072)"),
        (pickle.dumps({b"data": ONE_IMAGE}), "an entry 'labels' of type list"),
        (pickle.dumps({b"data": ONE_IMAGE, b"labels": ["a"]}), "must hold whole numbers"),
        (pickle.dumps({b"data": ONE_IMAGE, b"labels": [3]}), "label 3; allowed are 0 to 2"),
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
    assert sentence in printed


def test_a_missing_pickle(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"test_batch is missing\. Give the folder"):
        read_pickle(tmp_path / "test_batch")


def test_a_failed_download_gets_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    datasets = pytest.importorskip("torchvision.datasets")

    def fail(root: Path, download: bool) -> None:
        raise RuntimeError("Error downloading")

    monkeypatch.setattr(datasets, "CIFAR10", fail)
    with pytest.raises(DataError, match=r"cifar10 could not be downloaded to .*downloads \(Error downl"):
        named_sources.download("cifar10", tmp_path)


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
    data = [content for name, content in all_files(folder).items() if not name.startswith("model/")]
    assert sum(map(len, data)) <= 6_000_000
    assert "MIT" in (folder / "LICENSE-fashion-mnist.txt").read_text(encoding="utf-8")
