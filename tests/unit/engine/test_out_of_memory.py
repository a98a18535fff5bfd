"""Memory that runs out while a run trains ends in a sentence, and what was saved stays as it was."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from dist_dsvae.commands import drawing, evaluate, generate
from dist_dsvae.commands.train import train
from dist_dsvae.config import TrainConfig
from dist_dsvae.config.reading import load_config
from dist_dsvae.core.types import ImageShape
from dist_dsvae.engine.evaluating import evaluate as evaluating
from dist_dsvae.engine.iteration.iteration import Iteration
from dist_dsvae.engine.memory import TooLargeError, is_out_of_memory, out_of_memory_explained, peak_bytes
from dist_dsvae.runs.checkpoint import verify
from dist_dsvae.runs.checkpoint_folder import complete_checkpoints
from tests.distributed.launching import epochs_of, metrics, write_config
from tests.unit.engine.making import write_images

CPU = torch.device("cpu")
TOO_MUCH = 2**55  # bytes, beyond any address space


def pythons() -> object:
    return bytearray(TOO_MUCH)


def numpys() -> object:
    return np.ones(TOO_MUCH // 8)


def torchs() -> object:
    return torch.empty(TOO_MUCH, dtype=torch.uint8)


def cudas() -> object:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total ...")


def cublass() -> object:
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def forks() -> object:
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


@pytest.mark.parametrize("allocate", [pythons, numpys, torchs, cudas, cublass, forks])
def test_every_kind_is_recognised(tmp_path: Path, allocate: Callable[[], object]) -> None:
    config = load_config(write_config(tmp_path / "c.json", data={"batch_size": 13, "source": "resident"}))
    with pytest.raises(TooLargeError) as caught, out_of_memory_explained(config.data, CPU, 1, 4):
        allocate()
    sentence = str(caught.value)
    assert sentence.startswith(
        "Rank 1 ran out of memory with 4 samples of every batch of 13, after a peak of"
    )
    assert "Lower data.batch_size" in sentence
    assert 'set data.source to "stream"' in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), OSError(errno.ENOSPC, "full"), KeyError("memory")]
)
def test_other_errors_stay_what_they_are(tmp_path: Path, error: Exception) -> None:
    config = load_config(write_config(tmp_path / "c.json"))
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)) as caught, out_of_memory_explained(config.data, CPU, 0, 1):
        raise error
    assert caught.value is error


def test_the_peak_is_what_was_held() -> None:
    before = peak_bytes(CPU)
    block = np.ones(before // 8 + 2**23)  # of 8 bytes, all written
    assert peak_bytes(CPU) - before > 0.9 * 2**26
    assert block[-1] == 1


def test_a_run_ends_in_a_sentence_and_its_checkpoint_is_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "train", ("a", "b", "c"), 8, ImageShape(1, 32, 32))
    schedule = {"epochs": epochs_of(4, num_samples=24), "checkpoint_every_steps": 2, "evaluate_at_end": False}
    path = write_config(tmp_path / "c.json", data={"train": str(tmp_path / "train")}, train=schedule)
    run_dir, iterate, calls = tmp_path / "run", Iteration.__call__, []

    def greedy(self: Iteration, *inputs: torch.Tensor) -> None:
        calls.append(1)
        if len(calls) == 4:
            torch.empty(TOO_MUCH, dtype=torch.uint8)
        iterate(self, *inputs)

    with monkeypatch.context() as patch:
        patch.setattr(Iteration, "__call__", greedy)
        assert train(load_config(path), run_dir, "auto", None) == 1
    error = capsys.readouterr().err
    assert "error: Rank 0 ran out of memory with 12 samples of every batch of 12" in error
    assert "Traceback" not in error
    (saved,) = complete_checkpoints(run_dir / "checkpoints")
    assert saved.name == "step-00000002"
    verify(saved)
    assert train(load_config(path), run_dir, "auto", None) == 0
    assert [line["step"] for line in metrics(run_dir)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("command", "arguments", "place", "told"),
    [
        (evaluate, ("--run", "RUN"), (evaluating, "evaluate"), "RUN was evaluated, after a peak of"),
        (generate, ("grid",), (drawing, "drawn"), "grid was drawn, after a peak of"),
    ],
)
def test_other_commands_end_in_a_sentence_too(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: ModuleType,
    arguments: tuple[str, ...],
    place: tuple[ModuleType, str],
    told: str,
) -> None:
    monkeypatch.setattr(*place, lambda *inputs: torchs())
    monkeypatch.setattr(evaluating, "run_config", lambda run_dir: TrainConfig(cpu_threads=1))
    monkeypatch.setattr(sys, "argv", ["dsvae", *arguments])
    assert command.main() == 1
    error = capsys.readouterr().err
    assert f"error: The memory ran out while {told}" in error
    assert "Traceback" not in error
