"""Every kind of config of the project trains an iteration and is evaluated with its settings, at toy size.

Configs that differ in their data alone count as one kind: the same method with the same options, the same
networks. All of them are read, with their checks, by test_config_io.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dist_dsvae.commands import evaluate, train
from dist_dsvae.config import DSVAEConfig
from dist_dsvae.config.reading import load_config
from dist_dsvae.core.types import ImageShape
from dist_dsvae.engine.evaluating import test_codes
from dist_dsvae.engine.reporting import visuals
from dist_dsvae.runs import measure_statistics
from dist_dsvae.runs.auto_augmentation import without_auto
from tests.programs import REPOSITORY
from tests.unit.data.making import run_build
from tests.unit.engine.making import write_images

IMAGE_SIZES = {"fashion": 32, "cifar": 32, "lfw": 64, "facescrub": 64, "cub": 64}
# Half a minute and more of a core for one iteration and its evaluation; these are only read
LARGE = ("vgg64", "conv32", "inception-resnet-v1")
ONE_ITERATION = {
    "train.epochs": "1e-9",
    "train.max_seconds": "0",
    "train.cpu_threads": "1",
    "train.trackers": "[]",
    "train.mixed_precision": "no",
    "train.sample_every_steps": "0",
    "data.batch_size": "6",
    "data.num_workers": "0",
    "evaluation.held_out": "null",  # persons that the toy data have not
}


def size_of(tree: dict[str, Any]) -> int:
    """Of the pictures that a config is for; 0 for points."""
    return next((edge for name, edge in IMAGE_SIZES.items() if name in tree["data"]["train"]), 0)


def kinds() -> dict[str, Path]:
    """One config of each kind."""
    found: dict[str, Path] = {}
    for path in sorted((REPOSITORY / "configs").rglob("*.json")):
        tree: dict[str, Any] = json.loads(path.read_text())
        architecture, evaluated = tree["model"]["architecture"], tree.get("evaluation", {}).keys()
        if architecture not in LARGE:
            found.setdefault(repr((architecture, size_of(tree), tree.get("method"), evaluated)), path)
    return found


KINDS = list(kinds().values())


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Splits 32, 64 and 0 (points), each of train and test."""
    folder = tmp_path_factory.mktemp("toy")
    for edge in (32, 64):
        for split, count in (("train", 12), ("test", 6)):
            write_images(folder / f"{edge}/{split}", ("a", "b"), count, ImageShape(1, edge, edge))
    with pytest.MonkeyPatch.context() as patched:
        assert run_build(patched, "toy", folder / "0", "--num-points", 60, "--num-test-points", 30) == 0
    return folder


@pytest.mark.parametrize("path", KINDS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_it_trains_and_is_evaluated(
    path: Path,
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(test_codes, "PROBE_TRAIN_SAMPLES", 24)
    monkeypatch.setattr(measure_statistics, "NUM_CODES", 24)
    monkeypatch.setattr(visuals, "FEW_CODES", 24)
    size = size_of(json.loads(path.read_text()))
    splits = {f"data.{split}": str(shards / f"{size}/{split}") for split in ("train", "test")}
    splits["data.unlabelled"] = splits["data.train"]
    settings = ONE_ITERATION | splits | {"evaluation.classifier": "null", "init_from": "null"}
    arguments = [f"--set={key}={value}" for key, value in settings.items()]
    run_dir = str(tmp_path / "run")
    monkeypatch.setattr(sys, "argv", ["train.py", "--config", str(path), "--run-dir", run_dir, *arguments])
    assert train.main() == 0, capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--run", run_dir, "--set", "evaluation.batch_size=12"])
    assert evaluate.main() == 0, capsys.readouterr()
    scores = json.loads((tmp_path / "run/evaluation/scores.json").read_text())
    assert scores["figures"]["test_samples"] == (30 if size == 0 else 12)


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs/paper").glob("*.json")), ids=lambda p: p.stem)
def test_algorithm_1_to_the_letter_has_no_option_on(path: Path) -> None:
    """Whatever the data: of a few pictures "auto" would show the discriminator augmented ones."""
    config = load_config(path)
    shape = ImageShape(2, 0, 0) if path.stem == "toy" else ImageShape(3, 32, 32)
    trained = without_auto(config, shape, 100, None)
    assert trained.method == DSVAEConfig(augmentation="off")


def test_launch_files_leave_the_precision_to_the_experiment() -> None:
    """Another number of GPUs, or another file, is no reason to train or to score otherwise."""
    files = sorted((REPOSITORY / "configs/accelerate").glob("*.yaml"))
    assert len(files) == 5
    assert {yaml.safe_load(file.read_text())["mixed_precision"] for file in files} == {"no"}
