"""Images that lie in a split, scored beside real ones, from files alone."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dist_dsvae.commands import evaluate
from dist_dsvae.config import DataConfig, EvaluationConfig
from dist_dsvae.data.open_split import open_split
from dist_dsvae.engine.evaluating import split_images
from dist_dsvae.engine.evaluating.judges import Judges, open_judges
from dist_dsvae.engine.evaluating.progress import Progress
from dist_dsvae.engine.evaluating.split_images import SplitImages
from tests.unit.data.making import run_build

JUDGE = "shards/fashion-mnist-mini/classifier"
TEST = "shards/fashion-mnist-mini/test"
SMALL = ["--set", "evaluation.diversity_samples=3", "--set", "evaluation.neighbour_samples=200"]


def scored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["dsvae evaluate", *arguments])
    capsys.readouterr()
    status = evaluate.main()
    printed = capsys.readouterr()
    return status, printed.out if status == 0 else printed.err


@pytest.fixture
def noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Shards of grey noise of the judge's size, of two classes that the real images do not have."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for name in ("first", "second"):
        (tmp_path / "noise" / name).mkdir(parents=True)
        for number in range(30):
            pixels = rng.integers(0, 256, (32, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "noise" / name / f"{number}.png")
    built = ("folder", tmp_path / "noise", tmp_path / "shards", "--size", 32, "--channels", 1, "--workers", 1)
    assert run_build(monkeypatch, *built) == 0
    return tmp_path / "shards/train"


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts whose sums are computed, not found in the cache."""
    parts: list[str] = []
    compute = SplitImages._computed

    def counted(self: SplitImages, judges: Judges, progress: Progress) -> dict[str, torch.Tensor]:
        parts.append(self.part)
        return compute(self, judges, progress)

    monkeypatch.setattr(SplitImages, "_computed", counted)
    return parts


def test_a_split_beside_itself(
    noise: Path,
    computed: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "itself"
    asked = ["--images", TEST, "--real", TEST, "--classifier", JUDGE, "--out", str(out), "--json", *SMALL]
    status, printed = scored(monkeypatch, capsys, *asked)
    assert status == 0
    result = json.loads(printed.splitlines()[-1])
    figures = result["figures"]
    assert figures["fid"] == pytest.approx(0.0, abs=1e-6)
    assert figures["precision"] == figures["recall"] == 1.0
    for name in ("inception_score", "label_accuracy", "diversity"):
        assert figures[name] == result["real"][name]
    # what this judge makes of these pictures, as docs/results.md has it
    assert figures["inception_score"] == pytest.approx(5.02, abs=0.05)
    assert figures["label_accuracy"] == pytest.approx(0.893, abs=0.005)
    assert result["settings"]["samples"] == result["settings"]["real_samples"] == 2000
    written = json.loads(out.with_suffix(".json").read_text())
    assert written["figures"] == figures
    # written again over its own file, not over a person's
    assert scored(monkeypatch, capsys, *asked)[0] == 0
    out.with_suffix(".json").write_text("{}")
    status, said = scored(monkeypatch, capsys, *asked)
    assert status == 1
    assert f"{out}.json exists already" in said
    assert computed == ["real"]  # and the images found there


def test_each_seed_has_its_own_neighbours(
    noise: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The features that are kept are chosen by the seed, so the sums of one do not serve another."""
    asked = ["--images", TEST, "--real", TEST, "--classifier", JUDGE, "--json", *SMALL]
    found = []
    for seed, cache in ((1, "cache"), (0, "cache"), (1, "empty")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / cache))
        status, printed = scored(monkeypatch, capsys, *asked, "--set", f"evaluation.seed={seed}")
        assert status == 0
        found.append(json.loads(printed.splitlines()[-1])["figures"])
    kept = {path.name for path in (tmp_path / "cache").rglob("*.safetensors")}
    assert kept > {path.name for path in (tmp_path / "empty").rglob("*.safetensors")}
    assert found[0] == found[2]


def test_noise_is_far_from_real_images_and_has_none_of_their_labels(
    noise: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--images", str(noise), "--real", TEST, "--classifier", JUDGE, "--json", *SMALL]
    status, printed = scored(monkeypatch, capsys, *asked)
    assert status == 0
    result = json.loads(printed.splitlines()[-1])
    assert set(result["figures"]) == {"inception_score", "fid", "precision", "recall"}
    assert set(result["real"]) == {"inception_score"}
    assert result["settings"]["samples"] == result["settings"]["real_samples"] == 60
    assert result["figures"]["fid"] > 5
    assert result["figures"]["recall"] < 0.1


def test_only_sums_over_real_images_are_kept(
    noise: Path,
    computed: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["--images", str(noise), "--real", TEST, "--classifier", JUDGE, *SMALL]
    for parts in (["real", "images"], ["real", "images", "images"]):
        assert scored(monkeypatch, capsys, *asked)[0] == 0
        assert computed == parts
        assert len(list((tmp_path / "cache/dist_dsvae/real-images").iterdir())) == 1


def test_a_judge_without_labels_leaves_diversity(
    noise: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a file of ImageNet's weights is: it tells no labels, but pairs of a class can be compared."""
    classes = open_split(TEST, DataConfig(train=TEST)).classes
    judges = open_judges(EvaluationConfig(classifier=JUDGE), classes, torch.device("cpu"))
    assert judges is not None
    monkeypatch.setattr(split_images, "open_judges", lambda *_: replace(judges, knows_labels=False))
    asked = ["--images", str(noise), "--real", str(noise), "--classifier", "any", "--json", *SMALL]
    asked += ["--set", "evaluation.diversity_samples=101"]  # whatever the default of samples_per_class
    status, printed = scored(monkeypatch, capsys, *asked)
    assert status == 0
    result = json.loads(printed.splitlines()[-1])
    assert set(result["figures"]) == {"inception_score", "fid", "precision", "recall", "diversity"}
    assert set(result["real"]) == {"inception_score", "diversity"}


def test_what_does_not_fit_gets_a_sentence(
    noise: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = scored(monkeypatch, capsys, "--images", str(noise), "--real", TEST)
    assert status == 1
    assert "Nothing judges the images: give --classifier." in said
    bigger = (
        "folder",
        tmp_path / "noise",
        tmp_path / "bigger",
        "--size",
        64,
        "--channels",
        1,
        "--workers",
        1,
    )
    assert run_build(monkeypatch, *bigger) == 0
    status, said = scored(
        monkeypatch, capsys, "--images", str(noise), "--real", str(noise), "--classifier", JUDGE
    )
    assert status == 1
    assert "tells 10 classes apart (Ankle boot, Bag, Coat, ...), but the data have 2" in said
    asked = ["--images", str(tmp_path / "bigger/train"), "--real", TEST, "--classifier", JUDGE]
    status, said = scored(monkeypatch, capsys, *asked)
    assert status == 1
    assert "has images of the shape [1, 64, 64], but --real" in said
    status, said = scored(monkeypatch, capsys, "--images", str(tmp_path), "--real", TEST, *asked[-2:])
    assert status == 1
    assert str(tmp_path) in said
