"""launch/evaluate.py and launch/export.py on a run: the same figures on any number of ranks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dist_dsvae.methods.published import load_published
from tests.distributed.launching import (
    REPOSITORY,
    checkpoint_tensors,
    environment,
    epochs_of,
    train,
    write_config,
)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    config = write_config(
        folder / "c.json",
        data={"test": "shards/fashion-mnist-mini/test"},
        train={"epochs": epochs_of(4), "ema_half_life_samples": 100.0, "checkpoint_every_steps": 2},
    )
    train(1, folder / "run", config)
    return folder / "run"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=REPOSITORY,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_any_number_of_ranks_gives_the_same_figures(run_dir: Path) -> None:
    results = []
    for num_processes in (1, 2):
        launcher = ["-m", "accelerate.commands.launch"]
        if num_processes > 1:
            launcher += ["--config_file", "configs/accelerate/cpu.yaml", "--main_process_port", "0"]
        done = run(*launcher, "launch/evaluate.py", "--run", str(run_dir), "--json")
        assert done.returncode == 0, done.stderr
        results.append(json.loads(done.stdout.strip().splitlines()[-1]))
        assert json.loads((run_dir / "evaluation/held-out.json").read_text()) == results[-1]
    alone, together = results
    assert together["processes"] == 2
    for name in ("zs_accuracy", "zu_probe_accuracy", "zu_mean_probe_accuracy"):
        assert together[name] == pytest.approx(alone[name], abs=2e-3)  # 2,000 samples: four may tip over
    at_the_end = json.loads((run_dir / "evaluation/summary.json").read_text())
    assert alone["zs_accuracy"] == at_the_end["zs_accuracy"]


@pytest.mark.parametrize(("weights", "section"), [("ema", "ema"), ("raw", "method.decoder")])
def test_export_takes_the_weights_asked_for(
    run_dir: Path, tmp_path: Path, weights: str, section: str
) -> None:
    out = tmp_path / "model"
    done = run(
        "launch/export.py", "--run", str(run_dir), "--step", "2", "--weights", weights, "--out", str(out)
    )
    assert done.returncode == 0, done.stderr
    method, classes = load_published(out)
    assert len(classes) == 10
    saved = checkpoint_tensors(run_dir / "checkpoints/step-00000002")
    for name, tensor in method.decoder.state_dict().items():
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
