"""What is due by time: asked for by a clock, agreed, and without a trace in what is computed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dist_dsvae.config import TrainConfig
from dist_dsvae.config.reading import load_config
from dist_dsvae.engine import trainer
from dist_dsvae.engine.processes.fence import Patience
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.engine.run_state import RunState
from dist_dsvae.engine.stopping.clock import Clock, Due, is_early
from dist_dsvae.engine.stopping.preemption import StopRequests
from tests.distributed.launching import (
    REPOSITORY,
    differing_tensors,
    epochs_of,
    metrics,
    write_config,
)


class Time:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def make_clock(time: Time, **train: Any) -> Clock:
    state = cast(RunState, SimpleNamespace(train_seconds=0.0))
    return Clock(state, TrainConfig(**train), 30.0, now=time)


def test_early_iterations() -> None:
    assert [i for i in range(1, 3000) if is_early(i, 500)] == [1, 10, 100]
    assert [i for i in range(1, 3000) if is_early(i, 2000)] == [1, 10, 100, 1000]
    assert [i for i in range(1, 3000) if is_early(i, 10)] == [1]
    assert [i for i in range(1, 3000) if is_early(i, 1) or is_early(i, 0)] == []


def test_each_is_asked_for_once_in_its_time() -> None:
    time = Time()
    clock = make_clock(time, checkpoint_every_minutes=1.0, max_seconds=100.0)
    asked = {}
    for second in range(1, 110):
        time.seconds += 1
        if found := clock.asks():
            asked[second] = found
    expected = {30: Due.LINE, 60: Due.LINE | Due.CHECKPOINT, 90: Due.LINE}
    assert asked == expected | dict.fromkeys(range(100, 110), Due.END)


def test_what_is_done_for_another_reason_begins_its_time_anew() -> None:
    time = Time()
    clock = make_clock(time, checkpoint_every_minutes=1.0)
    time.seconds += 59
    clock.done(Due.CHECKPOINT)
    clock.done(Due.LINE)
    time.seconds += 29
    assert clock.asks() == Due(0)
    time.seconds += 31
    assert clock.asks() == Due.LINE | Due.CHECKPOINT


def test_zero_means_never_and_an_evaluation_is_not_training() -> None:
    time = Time()
    clock = make_clock(time, checkpoint_every_minutes=0.0)
    time.seconds += 1e6
    assert clock.asks() == Due.LINE
    clock = make_clock(time, max_seconds=10.0)
    with clock.stopped():
        time.seconds += 20
    time.seconds += 9
    assert Due.END not in clock.asks()


def test_a_process_begins_with_a_line_and_hears_the_rest(tmp_path: Path) -> None:
    time = Time()
    clock = make_clock(time, checkpoint_every_minutes=1.0)
    requests = StopRequests(tmp_path, Patience(timedelta(seconds=5)))
    assert requests.agreed(clock) is None
    assert clock.is_due(Due.LINE)
    clock.done(Due.LINE)
    assert not clock.is_due(Due.LINE)
    time.seconds += 60
    requests.agreed(clock)
    assert clock.is_due(Due.CHECKPOINT)
    requests.agreed(clock)
    assert not clock.is_due(Due.CHECKPOINT)
    requests.close()


def test_what_is_due_is_not_lost_between_pieces_of_an_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With several ranks a request is heard one call after it was made, which may be one without a clock."""
    time = Time()
    clock = make_clock(time, checkpoint_every_minutes=1.0)
    requests = StopRequests(tmp_path, Patience(timedelta(seconds=5)))
    under_way = [[0, 0]]

    def exchange(self: StopRequests, seen: int, asked: int) -> list[list[int]]:
        under_way.append([seen, asked])
        return [under_way.pop(0)]

    monkeypatch.setattr(StopRequests, "_exchange", exchange)
    requests.agreed(clock)
    time.seconds += 60
    requests.agreed(clock)  # asks
    requests.raise_if_asked()  # hears
    requests.raise_if_asked()
    requests.agreed(clock)
    assert clock.is_due(Due.CHECKPOINT)
    requests.agreed(clock)
    assert not clock.is_due(Due.CHECKPOINT)
    requests.close()


ITERATIONS = 14


def train(
    monkeypatch: pytest.MonkeyPatch, run_dir: Path, config: Path, seconds: Iterator[float] | None
) -> None:
    """In this process; a reading of its clock takes the next of ``seconds``."""
    if seconds is not None:
        time = Time()

        def now() -> float:
            time.seconds += next(seconds)
            return time.seconds

        monkeypatch.setattr(trainer, "Clock", lambda *arguments: Clock(*arguments, now=now))
    loaded = load_config(config)
    runtime = Runtime(loaded.train)
    trainer.Trainer(loaded, run_dir, "auto", runtime).train()
    runtime.close()
    monkeypatch.undo()
    monkeypatch.chdir(REPOSITORY)


def test_saved_by_the_clock_and_resumed_equals_undisturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines and checkpoints at odd iterations, and what came after one of them is lost: all ends alike."""
    monkeypatch.chdir(REPOSITORY)
    schedule = {"epochs": epochs_of(ITERATIONS), "log_every_steps": 4, "keep_checkpoints": 100}
    schedule |= {"ema_half_life_updates": 4.0, "ema_networks": "all", "evaluate_at_end": False}
    config = write_config(tmp_path / "c.json", train=schedule)
    train(monkeypatch, tmp_path / "undisturbed", config, None)
    capsys.readouterr()

    run_dir = tmp_path / "by-the-clock"
    train(monkeypatch, run_dir, config, iter([97.0] * 1000))
    printed = capsys.readouterr().out
    saved = [int(path.name[5:]) for path in sorted((run_dir / "checkpoints").iterdir())]
    assert len(saved) > 3
    assert any(step % 2 for step in saved[:-1])
    assert all(f"step {step}/{ITERATIONS} " in printed for step in (1, 2, 4, 8, ITERATIONS))
    assert metrics(run_dir) == metrics(tmp_path / "undisturbed")
    assert differing_tensors(run_dir, tmp_path / "undisturbed", ITERATIONS) == []

    for step in saved:  # as a kill right after the first odd one leaves it
        if step > next(step for step in saved if step % 2):
            shutil.rmtree(run_dir / f"checkpoints/step-{step:08d}")
    train(monkeypatch, run_dir, config, iter([55.0] * 1000))
    assert "Resumed" in capsys.readouterr().out
    assert metrics(run_dir) == metrics(tmp_path / "undisturbed")
    assert differing_tensors(run_dir, tmp_path / "undisturbed", ITERATIONS) == []
