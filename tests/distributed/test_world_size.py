"""Any number of processes: the same samples, the same noise, the same losses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed.launching import checkpoint_tensors, metrics, train, write_config
from tests.unit.methods.making import BEYOND

ITERATIONS = 12


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Path, str]]:
    folder = tmp_path_factory.mktemp("world_size")
    epochs = ITERATIONS * 5 * 12 / 12_000  # four labelled batches and an unlabelled one, of both splits
    config = write_config(
        folder / "c.json",
        data={"unlabelled": "shards/fashion-mnist-mini/test"},
        method=BEYOND | {"unlabelled_updates": 1, "augmentation": "on"},
        train={"double_precision": True, "epochs": epochs, "ema_half_life_updates": 3.0},
        optimizer={"clip_gradient_norm": 5.0},
    )
    return {n: (folder / str(n), train(n, folder / str(n), config)) for n in (1, 2, 3)}


@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_as_many_processes_train_as_were_asked_for(
    runs: dict[int, tuple[Path, str]], num_processes: int
) -> None:
    said = "1 process" if num_processes == 1 else f"{num_processes} processes"
    assert f"Training with {said} on CPU" in runs[num_processes][1]


@pytest.mark.parametrize("num_processes", [2, 3])
def test_losses_equal_those_of_one_process(runs: dict[int, tuple[Path, str]], num_processes: int) -> None:
    """float64, convolutions with synchronised batch norm, 12 iterations: every loss to 1e-6."""
    alone, together = metrics(runs[1][0]), metrics(runs[num_processes][0])
    assert len(alone) == len(together) == ITERATIONS
    for expected, got in zip(alone, together, strict=True):
        assert got.keys() == expected.keys()
        for key, value in expected.items():
            assert got[key] == pytest.approx(value, rel=1e-6, abs=1e-9), (key, expected["step"])


@pytest.mark.parametrize("num_processes", [2, 3])
def test_final_weights_agree(runs: dict[int, tuple[Path, str]], num_processes: int) -> None:
    name = f"checkpoints/step-{ITERATIONS:08d}"
    alone = checkpoint_tensors(runs[1][0] / name)
    together = checkpoint_tensors(runs[num_processes][0] / name)
    assert alone.keys() == together.keys()
    for key, expected in alone.items():
        difference = (together[key].double() - expected.double()).abs().max()
        assert difference < 1e-6, key


def test_a_baseline_too(tmp_path: Path) -> None:
    """Two processes, resumed by one: the losses of one process throughout."""

    def config(iterations: int) -> Path:
        train_section = {"double_precision": True, "epochs": iterations * 12 / 10_000}
        return write_config(tmp_path / f"{iterations}.json", train=train_section, method={"name": "cvae_gan"})

    train(1, tmp_path / "alone", config(6))
    train(2, tmp_path / "changing", config(3))
    train(1, tmp_path / "changing", config(6))
    alone, changing = metrics(tmp_path / "alone"), metrics(tmp_path / "changing")
    assert len(alone) == len(changing) == 6
    for expected, got in zip(alone, changing, strict=True):
        assert got == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_a_batch_that_cannot_be_shared_gets_a_sentence(tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.json", data={"batch_size": 13})
    output = train(2, tmp_path / "run", config, check=False)
    assert "error: data.batch_size is 13, which 2 processes cannot share evenly" in output
