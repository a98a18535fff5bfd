"""What a trainer keeps over starts, and what it refuses to keep or to go on from."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from dist_dsvae.config.reading import ConfigError
from dist_dsvae.engine.iteration.guard import NonFiniteLossError
from dist_dsvae.engine.reporting.telemetry import LossMeter
from dist_dsvae.engine.run_state import RunState
from dist_dsvae.engine.trainer import Trainer
from dist_dsvae.runs import checkpoint
from dist_dsvae.runs.checkpoint import read_marker
from dist_dsvae.runs.checkpoint_folder import complete_checkpoints
from dist_dsvae.runs.marker import CheckpointError
from tests.unit.engine import test_fine_tuning
from tests.unit.engine.making import StandInEvaluation, write_images
from tests.unit.engine.test_fine_tuning import GREY, config_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With shards of two classes."""
    write_images(tmp_path / "shards", ("ant", "bee"), 12, GREY)
    return tmp_path


def begun(folder: Path, iterations: int, *overrides: str) -> Trainer:
    """The run of ``folder``, about to make its next update."""
    config = config_of(folder, "dsvae", folder / "shards", iterations)
    return test_fine_tuning.begun(config, folder / "run", *overrides)


def test_a_run_goes_on_with_its_own_shards_alone(folder: Path) -> None:
    begun(folder, 1).train()
    shutil.rmtree(folder / "shards")
    write_images(folder / "shards", ("ant", "bee"), 15, GREY)
    with pytest.raises(CheckpointError, match="was trained on other shards than those that"):
        begun(folder, 2)


def test_a_batch_is_no_larger_than_the_data(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.batch_size is 48, but .* has 24 samples"):
        begun(folder, 1, "data.batch_size=48")


def test_a_statistic_that_is_not_finite_ends_the_run_before_a_checkpoint(folder: Path) -> None:
    """Running statistics are in no loss of training, so no guard trips."""
    trainer = begun(folder, 1)
    with torch.no_grad():
        trainer.method.get_buffer("decoder.layers.0.1.running_mean")[0] = math.nan
    with pytest.raises(NonFiniteLossError, match="Nothing was saved"):
        trainer.train()
    assert complete_checkpoints(folder / "run/checkpoints") == []


def test_nothing_is_scored_after_a_loss_that_was_not_finite(folder: Path) -> None:
    """On a GPU the host may not have looked since; what moves without an optimiser went on."""
    trainer = begun(folder, 1)
    trainer.evaluation = StandInEvaluation(lambda _: pytest.fail("it was scored"))  # type: ignore[assignment]
    trainer.guard.tripped.fill_(1.0)
    with pytest.raises(NonFiniteLossError, match="the last checkpoint is intact"):
        trainer._evaluate(None, None)  # type: ignore[arg-type]


def test_seconds_and_replaced_samples_add_up_over_starts(folder: Path) -> None:
    first = begun(folder, 1)
    first.state.train_seconds, first.state.num_replaced = 50.0, 3
    first.train()
    saved = read_marker(complete_checkpoints(folder / "run/checkpoints")[-1])
    assert saved["num_replaced"] == 3
    again = begun(folder, 2)
    assert again.state.num_replaced == 3
    assert again.state.train_seconds == saved["train_seconds"] >= 50.0
    again.state.train_seconds += 0.1  # the iteration's own time may round to none
    again.train()
    assert read_marker(complete_checkpoints(folder / "run/checkpoints")[-1])["train_seconds"] > 50.0


def test_pictures_are_drawn_by_the_average(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, seen = begun(folder, 3), []
    weight = trainer.method.get_parameter("decoder.layers.0.0.weight")
    monkeypatch.setattr(trainer.visuals, "draw", lambda *_: seen.append(weight.detach().clone()) or [])
    trainer.train()
    assert trainer.ema is not None
    assert torch.equal(seen[-1], trainer.ema.averaged["decoder.layers.0.0.weight"])
    assert not torch.equal(seen[-1], weight)


def test_the_loss_scale_of_fp16_goes_on_where_it_was(tmp_path: Path) -> None:
    def state(scale: float) -> RunState:
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        scaler.scale(torch.zeros(()))  # makes it
        return RunState(nn.Linear(2, 2), {}, None, LossMeter([], torch.device("cpu")), scaler, "")

    saved = checkpoint.save(tmp_path, 1, *state(128.0).snapshot(), keep=1)
    resumed = state(65536.0)
    resumed.load(saved)
    assert resumed.scaler is not None
    assert resumed.scaler.get_scale() == 128.0
