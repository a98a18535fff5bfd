"""DeepSpeed ZeRO 1 and 2 against plain data parallelism: losses, moments, memory, checkpoints of either.

A tiny learning rate keeps float32 rounding small (DeepSpeed lays convolutions out in another order):
at the usual one it grows to 1e-3 within six iterations, with or without ZeRO.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

from tests.distributed.launching import checkpoint_tensors, epochs_of, metrics, train, write_config

pytest.importorskip("deepspeed")

ITERATIONS, SAVED = 10, 8
STAGES = ["zero1.yaml", "zero2.yaml"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(
        tmp_path_factory.mktemp("zero") / "c.json",
        optimizer={
            "learning_rate": 1e-6,
            "variance_learning_rate": 1e-6,
            "beta1": 0.5,
            "clip_gradient_norm": 2.0,
        },
        train={
            "epochs": epochs_of(ITERATIONS),
            "checkpoint_every_steps": SAVED,
            "ema_half_life_updates": 4.0,
            "ema_ramp_up": 0.5,
            "ema_networks": "all",
            "evaluate_at_end": False,
        },
    )


@pytest.fixture(scope="module")
def runs(config: Path) -> dict[str, tuple[Path, str]]:
    """Run directory and output by launcher file, each on 2 ranks from the start to the end."""
    folder = config.parent
    return {
        name: (folder / name, train(2, folder / name, config, launcher_file=name))
        for name in ["cpu.yaml", *STAGES]
    }


def final_tensors(run_dir: Path) -> dict[str, torch.Tensor]:
    return checkpoint_tensors(run_dir / f"checkpoints/step-{ITERATIONS:08d}")


def assert_close(run_dir: Path, expected_dir: Path) -> None:
    """The same losses at every step, and the same moments at the end, to float32's tolerance."""
    for got, expected in zip(metrics(run_dir), metrics(expected_dir), strict=True):
        assert got == pytest.approx(expected, rel=1e-4), expected["step"]
    tensors, expected_tensors = final_tensors(run_dir), final_tensors(expected_dir)
    assert tensors.keys() == expected_tensors.keys()
    for key, moment in expected_tensors.items():
        if key.startswith(".optimizers"):
            # absolute: a bias before a batch norm has rounding for a gradient
            tolerance = 5e-3 * moment.norm() + 1e-5
            assert tensors[key].shape == moment.shape, key
            assert (tensors[key] - moment).norm() <= tolerance, key


def set_back(source: Path, name: str) -> tuple[Path, str]:
    """A copy of a finished run, and its checkpoint to go on from."""
    run_dir = source.parent / name
    shutil.copytree(source, run_dir)
    return run_dir, str(run_dir / f"checkpoints/step-{SAVED:08d}")


@pytest.mark.parametrize("stage", STAGES)
def test_training_equals_data_parallel_training(runs: dict[str, tuple[Path, str]], stage: str) -> None:
    assert f"ZeRO stage {stage[4]}" in runs[stage][1]
    assert_close(runs[stage][0], runs["cpu.yaml"][0])


@pytest.mark.parametrize("stage", STAGES)
def test_each_of_two_ranks_holds_half_of_the_state(runs: dict[str, tuple[Path, str]], stage: str) -> None:
    def mebibytes(name: str) -> float:
        found = re.search(r"Optimiser state: ([\d.]+) MiB per process", runs[name][1])
        assert found is not None
        return float(found[1])

    assert mebibytes(stage) == pytest.approx(mebibytes("cpu.yaml") / 2, rel=0.01)


def test_resume_is_exact(runs: dict[str, tuple[Path, str]], config: Path) -> None:
    undisturbed = runs["zero1.yaml"][0]
    run_dir, saved = set_back(undisturbed, "resumed")
    output = train(2, run_dir, config, "--resume", saved, launcher_file="zero1.yaml")
    assert f"Resumed {saved}" in output
    assert metrics(run_dir) == metrics(undisturbed)
    expected, got = final_tensors(undisturbed), final_tensors(run_dir)
    assert [key for key in expected if not torch.equal(got[key], expected[key])] == []


def test_resume_on_other_numbers_of_processes(runs: dict[str, tuple[Path, str]], config: Path) -> None:
    """From 2 to 1 to 3."""
    run_dir, saved = set_back(runs["zero1.yaml"][0], "elastic")
    shorter = ("--set", f"train.epochs={epochs_of(SAVED + 1)}")
    train(1, run_dir, config, "--resume", saved, *shorter, launcher_file="zero1.yaml")
    output = train(3, run_dir, config, launcher_file="zero1.yaml")
    assert f"step-{SAVED + 1:08d} after" in output
    assert_close(run_dir, runs["cpu.yaml"][0])


@pytest.mark.parametrize(("source", "target"), [("zero1.yaml", "cpu.yaml"), ("cpu.yaml", "zero2.yaml")])
def test_checkpoints_of_either_kind_go_on_as_the_other(
    runs: dict[str, tuple[Path, str]], config: Path, source: str, target: str
) -> None:
    run_dir, saved = set_back(runs[source][0], f"{source}-{target}")
    train(2, run_dir, config, "--resume", saved, launcher_file=target)
    assert_close(run_dir, runs["cpu.yaml"][0])
