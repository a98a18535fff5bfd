"""DeepSpeed ZeRO 1 and 2 against plain data parallelism: losses, state, memory, checkpoints of either.

A tiny learning rate keeps float32 rounding small (DeepSpeed lays convolutions out in another order):
at the usual one it grows to 1e-3 within six iterations, with or without ZeRO. What rounding still does
is to switch a ReLU now and then, which moves one network's gradient by up to 2e-2 for one update: a large
beta1 makes that small among the other updates' gradients.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.launching import checkpoint_tensors, epochs_of, metrics, train, write_config
from tests.unit.methods.making import BEYOND

pytest.importorskip("deepspeed")

ITERATIONS, SAVED = 6, 4
WITHOUT_ZERO = "cpu.yaml"
METHODS: dict[str, dict[str, Any]] = {
    "paper": {},
    "beyond": {  # and flat updates that train what the joint update trains
        "data": {"unlabelled": "shards/fashion-mnist-mini/test"},
        "method": BEYOND | {"unlabelled_updates": 1},
    },
}
# paper's mixture is parameters, beyond's is buffers; paper meets stage 2 where checkpoints are exchanged
RUNS = [("paper", "zero1.yaml"), ("beyond", "zero2.yaml")]


def epochs(method: str, iterations: int) -> float:
    """train.epochs for so many iterations: of four batches, or of five from both splits."""
    return iterations * 5 * 12 / 12_000 if method == "beyond" else epochs_of(iterations)


class Runs:
    """Runs of each method under each launcher file on 2 ranks to the end, made when first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._outputs: dict[Path, str] = {}
        self.configs = {
            method: write_config(
                folder / f"{method}.json",
                optimizer={
                    "learning_rate": 1e-6,
                    "variance_learning_rate": 1e-6,
                    "beta1": 0.9,
                    "clip_gradient_norm": 2.0,
                },
                train={
                    "epochs": epochs(method, ITERATIONS),
                    "checkpoint_every_steps": SAVED,
                    "ema_half_life_updates": 4.0,
                    "ema_ramp_up": 0.5,
                    "ema_networks": "all",
                    "evaluate_at_end": False,
                },
                **sections,
            )
            for method, sections in METHODS.items()
        }

    def directory(self, method: str, launcher_file: str = WITHOUT_ZERO) -> Path:
        run_dir = self.folder / f"{method}-{launcher_file}"
        if run_dir not in self._outputs:
            self._outputs[run_dir] = train(2, run_dir, self.configs[method], launcher_file=launcher_file)
        return run_dir

    def output(self, method: str, launcher_file: str = WITHOUT_ZERO) -> str:
        return self._outputs[self.directory(method, launcher_file)]

    def set_back(self, method: str, launcher_file: str, name: str) -> tuple[Path, str]:
        """A copy of a finished run, and its checkpoint to go on from."""
        run_dir = self.folder / f"{method}-{launcher_file}-{name}"
        shutil.copytree(self.directory(method, launcher_file), run_dir)
        return run_dir, str(run_dir / f"checkpoints/step-{SAVED:08d}")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("zero"))


def tensors_of(run_dir: Path, iteration: int = ITERATIONS) -> dict[str, torch.Tensor]:
    return checkpoint_tensors(run_dir / f"checkpoints/step-{iteration:08d}")


def assert_close(run_dir: Path, expected_dir: Path) -> None:
    """The same losses at every step, the same moments, buffers and averages at the end, to float32's
    tolerance.
    """
    for got, expected in zip(metrics(run_dir), metrics(expected_dir), strict=True):
        assert got == pytest.approx(expected, rel=1e-4), expected["step"]
    tensors, expected_tensors = tensors_of(run_dir), tensors_of(expected_dir)
    assert tensors.keys() == expected_tensors.keys()
    trained = {key.split(".", 3)[3].rsplit(".", 1)[0] for key in tensors if key.startswith(".optimizers")}
    for key, tensor in expected_tensors.items():
        if key.startswith(".optimizers"):
            # absolute: a bias before a batch norm has rounding for a gradient
            tolerance = moment_tolerance(expected_tensors, key) + 1e-5
        elif key.startswith(".method") and key.removeprefix(".method.") not in trained:
            tolerance = 1e-4 * tensor.double().norm()  # a count of batches is an integer
        else:
            continue
        assert tensors[key].shape == tensor.shape, key
        assert (tensors[key] - tensor).double().norm() <= tolerance, key
    lags, expected_lags = lags_of(tensors), lags_of(expected_tensors)
    for network, lag in expected_lags.items():
        assert (lags[network] - lag).norm() <= 2e-2 * lag.norm(), network


def moment_tolerance(tensors: dict[str, torch.Tensor], key: str) -> torch.Tensor:
    """By how much a ReLU that switches moves one of Adam's moments, the module's 2e-2 of a gradient.

    The first moment is held against the gradients' size, the root of the second: it may itself be far
    smaller, where gradients cancel. A gradient's square moves by twice its share.
    """
    if key.endswith(".exp_avg"):
        return 2e-2 * tensors[f"{key}_sq"].sqrt().norm()
    return 4e-2 * tensors[key].double().norm()


def lags_of(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """How far each network's average is behind its weights and buffers: [number of elements].

    The distances are some 1e-6, so that comparing the averages themselves would tell nothing.
    """
    parts: dict[str, list[torch.Tensor]] = {}
    for key in sorted(tensors):  # the order in a checkpoint depends on which rank wrote what
        if key.startswith(".ema."):
            behind = tensors[key.replace(".ema.", ".method.")].double() - tensors[key].double()
            parts.setdefault(key.split(".")[2], []).append(behind.flatten())
    return {network: torch.cat(behind) for network, behind in parts.items()}


@pytest.mark.parametrize(("method", "stage"), RUNS)
def test_training_equals_data_parallel_training(runs: Runs, method: str, stage: str) -> None:
    assert f"ZeRO stage {stage[4]}" in runs.output(method, stage)
    assert_close(runs.directory(method, stage), runs.directory(method))


@pytest.mark.parametrize(("method", "stage"), RUNS)
def test_each_of_two_ranks_holds_half_of_the_state(runs: Runs, method: str, stage: str) -> None:
    def mebibytes(launcher_file: str) -> float:
        output = runs.output(method, launcher_file)
        found = re.search(r"Optimiser state: ([\d.]+) MiB per process", output)
        assert found is not None
        return float(found[1])

    assert mebibytes(stage) == pytest.approx(mebibytes(WITHOUT_ZERO) / 2, rel=0.01)


@pytest.mark.parametrize(("method", "stage"), RUNS)
def test_the_mixture_and_the_average_of_all_networks_move(runs: Runs, method: str, stage: str) -> None:
    """The mixture: with an optimiser's updates, or by the codes' moments, in the forward."""
    run_dir = runs.directory(method, stage)
    before, after = tensors_of(run_dir, SAVED), tensors_of(run_dir)
    for name in ("mean", "log_variance"):
        for kind in ("method", "ema"):
            assert not torch.equal(
                before[f".{kind}.mixture_prior.{name}"], after[f".{kind}.mixture_prior.{name}"]
            )
        assert any(f"mixture_prior.{name}" in key for key in after if ".optimizers" in key) == (
            method == "paper"
        )
    lags = lags_of(after)
    assert lags.keys() == {"encoder_s", "encoder_u", "decoder", "mixture_prior"}
    assert [network for network, lag in lags.items() if not lag.any()] == []


@pytest.mark.parametrize(("method", "stage"), RUNS)
def test_resume_is_exact(runs: Runs, method: str, stage: str) -> None:
    undisturbed = runs.directory(method, stage)
    run_dir, saved = runs.set_back(method, stage, "resumed")
    output = train(2, run_dir, runs.configs[method], "--resume", saved, launcher_file=stage)
    assert f"Resumed {saved}" in output
    assert metrics(run_dir) == metrics(undisturbed)
    expected, got = tensors_of(undisturbed), tensors_of(run_dir)
    assert [key for key in expected if not torch.equal(got[key], expected[key])] == []


def test_resume_on_other_numbers_of_processes(runs: Runs) -> None:
    """From 2 to 1 to 3."""
    run_dir, saved = runs.set_back("beyond", "zero2.yaml", "elastic")
    config = runs.configs["beyond"]
    shorter = ("--set", f"train.epochs={epochs('beyond', SAVED + 1)}")
    train(1, run_dir, config, "--resume", saved, *shorter, launcher_file="zero2.yaml")
    output = train(3, run_dir, config, launcher_file="zero2.yaml")
    assert f"step-{SAVED + 1:08d} after" in output
    assert_close(run_dir, runs.directory("beyond"))


@pytest.mark.parametrize(
    ("method", "source", "target", "num_processes"),
    [
        ("beyond", "zero2.yaml", "cpu.yaml", 2),
        ("paper", "cpu.yaml", "zero2.yaml", 3),
    ],
)
def test_checkpoints_of_either_kind_go_on_as_the_other(
    runs: Runs, method: str, source: str, target: str, num_processes: int
) -> None:
    run_dir, saved = runs.set_back(method, source, target)
    train(num_processes, run_dir, runs.configs[method], "--resume", saved, launcher_file=target)
    assert_close(run_dir, runs.directory(method))
