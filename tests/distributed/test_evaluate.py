"""launch/evaluate.py and launch/export.py on a run: the same figures on any number of ranks."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from dist_dsvae.core.types import ImageShape
from dist_dsvae.methods.published import load_published
from tests.distributed.launching import (
    REPOSITORY,
    checkpoint_tensors,
    environment,
    epochs_of,
    launcher_words,
    train,
    write_config,
)
from tests.forking import launch_program, run_program
from tests.unit.engine.making import write_images


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    config = write_config(
        folder / "c.json",
        data={"test": "shards/fashion-mnist-mini/test"},
        train={
            "epochs": epochs_of(4),
            "ema_half_life_updates": 2.0,
            "ema_ramp_up": 0.0,
            "checkpoint_every_steps": 2,
        },
    )
    train(1, folder / "run", config)
    return folder / "run"


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_program(script, *arguments, environment=environment())


CLASSIFIER = REPOSITORY / "shards/fashion-mnist-mini/classifier"
SETTINGS = [
    "--samples-per-class",
    "7",
    "--set",
    "evaluation.diversity_samples=5",
    "--set",
    "evaluation.batch_size=16",
    "--set",
    "evaluation.splits=3",
]


def evaluate(run_dir: Path, *arguments: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    words = ["launch/evaluate.py", "--run", str(run_dir), *arguments]
    if processes == 1:
        return run(*words)
    return launch_program(*launcher_words(processes), *words, environment=environment())


def test_any_number_of_ranks_gives_the_same_figures(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every figure, generated and real: nothing but the order of sums in float64 may differ."""
    results = []
    unknown = write_images(tmp_path / "held-out", ("Ann", "Bob", "Cy"), 15, ImageShape(1, 32, 32))
    for processes in (1, 2, 3):
        arguments = [*SETTINGS, "--classifier", str(CLASSIFIER), "--json", "--name", f"by-{processes}"]
        arguments += ["--set", "evaluation.neighbour_samples=40", "--identity-network", str(CLASSIFIER)]
        arguments += ["--set", "evaluation.identity_samples=70", "--held-out", str(unknown.directory)]
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / str(processes)))  # or the first one's would do
        done = evaluate(run_dir, *arguments, processes=processes)
        assert done.returncode == 0, done.stderr
        results.append(json.loads(done.stdout.strip().splitlines()[-1]))
        assert json.loads((run_dir / f"evaluation/by-{processes}.json").read_text()) == results[-1]
    alone, *others = results
    for processes, together in enumerate(others, start=2):
        assert together["processes"] == processes
        assert together["figures"].keys() == alone["figures"].keys()
        for name, value in alone["figures"].items():
            assert together["figures"][name] == pytest.approx(value, rel=1e-6, abs=1e-6), name
        assert together["real"] == pytest.approx(alone["real"], rel=1e-6)
    assert alone["judges"]["identity_network"] == alone["judges"]["classifier"]
    assert alone["settings"]["held_out_fingerprint"] == unknown.fingerprint
    assert alone["figures"]["held_out_reconstruction_error"] > 0.01
    for figure in ("swap_to_zs", "swap_to_zu", "same_person", "other_person", "reconstruction"):
        for prefix in ("", "held_out_"):
            assert -1 < alone["figures"][f"{prefix}identity_{figure}"] < 1
    assert alone["figures"]["identity_swaps"] > 60
    assert alone["figures"]["identity_sample_to_class"] != alone["figures"]["identity_sample_to_others"]
    at_the_end = json.loads((run_dir / "evaluation/summary.json").read_text())
    assert alone["figures"]["zs_accuracy"] == at_the_end["zs_accuracy"]
    assert (alone["weights"], at_the_end["weights"]) == ("ema", "ema")
    assert at_the_end["reconstruction_error"] == pytest.approx(
        alone["figures"]["reconstruction_error"], rel=1e-6
    )
    assert not list((run_dir / "evaluation").glob(".by-*"))  # what was done in parts is gone


@pytest.mark.parametrize(("weights", "section"), [("ema", "ema"), ("raw", "method.decoder")])
def test_export_takes_the_weights_asked_for(
    run_dir: Path, tmp_path: Path, weights: str, section: str
) -> None:
    out = tmp_path / "model"
    done = run(
        "launch/export.py", "--run", str(run_dir), "--step", "2", "--weights", weights, "--out", str(out)
    )
    assert done.returncode == 0, done.stderr
    published = load_published(out)
    assert len(published.classes) == 10
    saved = checkpoint_tensors(run_dir / "checkpoints/step-00000002")
    for name, tensor in published.method.get_submodule("decoder").state_dict().items():
        if not name.startswith("statistics."):  # measured for these weights
            assert torch.equal(tensor, saved[f".{section}.{name}"]), name


@pytest.mark.parametrize("script", ["evaluate", "export"])
def test_wrong_input_gets_a_sentence(run_dir: Path, tmp_path: Path, script: str) -> None:
    out = ["--out", str(tmp_path / "model")] if script == "export" else []
    for arguments, sentence in (
        (["--run", str(run_dir), "--step", "3"], "has no checkpoint of step 3. It has those of [2, 4]."),
        (["--run", str(tmp_path)], "is not a run directory"),
    ):
        done = run(f"launch/{script}.py", *arguments, *out)
        assert done.returncode == 1
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr


def test_other_shards_than_those_of_training_are_refused(run_dir: Path, tmp_path: Path) -> None:
    """Of the same classes and size: what a run has learned may lie in their test split."""
    shutil.copytree(run_dir, tmp_path / "run")
    record = tmp_path / "run/dataset.json"
    fingerprint = json.loads(record.read_text())["fingerprint"]
    record.write_text(record.read_text().replace(fingerprint, "0" * 64))
    done = evaluate(tmp_path / "run")
    assert (done.returncode, "are not those that" in done.stderr) == (1, True)
    assert "Restore those shards, or train anew." in done.stderr
