"""metrics.jsonl: one line a tick, cut back on resume; running means that survive a checkpoint."""

from __future__ import annotations

import errno
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState

from dist_dsvae.config import DataConfig, ExperimentConfig, ModelConfig
from dist_dsvae.engine.reporting import tracker_kinds
from dist_dsvae.engine.reporting.telemetry import LossMeter, Telemetry
from dist_dsvae.engine.reporting.trackers import Trackers
from dist_dsvae.methods.update import Reduction, Update

STEPS = (
    Update(name="gm", repeats=3, terms=("gm",), trains=("a",), reduction=Reduction.FLAT),
    Update(name="joint", repeats=1, terms=("kl", "rec"), trains=("a",), reduction=Reduction.OVERLAPPED),
)
CPU = torch.device("cpu")


def test_means_over_the_steps_of_a_tick() -> None:
    """Two iterations: stage 1 runs three times in each, the joint update once."""
    meter = LossMeter(STEPS, CPU)
    for value in (1.0, 2.0, 6.0, 1.0, 2.0, 0.0):
        meter.add("gm", torch.tensor([value]))
    for value in (1.0, 9.0):
        meter.add("joint", torch.tensor([4.0, value]))
    meter.num_iterations = 2
    assert meter.read() == {"gm": 2.0, "kl": 4.0, "rec": 5.0}
    meter.add("joint", torch.tensor([0.0, 8.0]))
    meter.num_iterations += 1
    assert meter.read()["rec"] == 8.0


def test_means_survive_a_checkpoint() -> None:
    meter, resumed = LossMeter(STEPS, CPU), LossMeter(STEPS, CPU)
    meter.add("joint", torch.tensor([0.0, 1.0]))
    resumed.restore(meter.state(), None)
    resumed.num_iterations = 1
    resumed.add("joint", torch.tensor([0.0, 3.0]))
    resumed.num_iterations += 1
    assert resumed.read()["rec"] == 2.0


def test_looking_leaves_no_trace() -> None:
    meter = LossMeter(STEPS, CPU)
    meter.add("joint", torch.tensor([0.0, 1.0]))
    meter.num_iterations = 1
    assert meter.means() == meter.means() == {"gm": 0.0, "kl": 0.0, "rec": 1.0}
    meter.state()["joint"].zero_()
    assert meter.read()["rec"] == 1.0
    assert meter.means()["rec"] == 0.0


def test_a_rank_goes_on_from_its_own_sums_exactly() -> None:
    meter, resumed = LossMeter(STEPS, CPU), LossMeter(STEPS, CPU)
    meter.add("joint", torch.tensor([1e30, 0.1]))
    own = json.loads(json.dumps(meter.own_sums()))  # as a checkpoint's marker holds them
    resumed.restore({name: torch.zeros_like(sums) for name, sums in meter.sums.items()}, own)
    assert all(torch.equal(resumed.sums[name], sums) for name, sums in meter.sums.items())


def telemetry(folder: Path, samples_seen: int) -> Telemetry:
    PartialState()  # as a run has it
    config = ExperimentConfig(data=DataConfig(train="none"), model=ModelConfig(architecture="mlp2d"))
    return Telemetry(
        folder,
        total_steps=10,
        samples_seen=samples_seen,
        step=samples_seen // 4,
        trackers=Trackers(config, folder, samples_seen),
    )


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_resume_drops_what_will_be_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = telemetry(tmp_path, 0)
    for step in (1, 2, 3):
        first.log(4 * step, step, step / 10, {"kl": float(step)})
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"samples_seen": 16, "st')  # a kill in the middle of a line
    again = telemetry(tmp_path, 8)
    again.log(12, 3, 0.3, {"kl": 30.0})
    again.close()
    assert [(line["samples_seen"], line["kl"]) for line in lines(tmp_path)] == [
        (4, 1.0),
        (8, 2.0),
        (12, 30.0),
    ]
    assert any((tmp_path / "tensorboard").iterdir())
    plain = capsys.readouterr().out  # not a terminal: plain lines
    assert "step 2/10" in plain
    assert "kl 2.000" in plain
    assert "ETA" in plain


def test_what_interrupts_training_is_none_of_its_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    shown = telemetry(tmp_path, 0)
    now[0] += 1
    with shown.stopped():  # an evaluation, say
        now[0] += 3600
    now[0] += 1
    shown.log(8, 2, 0.2, {"kl": 2.0})
    shown.close()
    assert [line["images_per_second"] for line in lines(tmp_path)] == [4.0]
    assert "ETA 8 s" in capsys.readouterr().out


def test_a_line_is_for_people_alone_and_once_for_a_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = telemetry(tmp_path, 0)
    shown.line(4, 1, {"kl": 7.0})
    shown.log(8, 2, 0.2, {"kl": 2.0})
    shown.line(8, 2, {"kl": 0.0})
    shown.close()
    assert [(line["step"], line["kl"]) for line in lines(tmp_path)] == [(2, 2.0)]
    plain = capsys.readouterr().out
    assert "step 1/10" in plain
    assert "kl 7.000" in plain
    assert plain.count("step 2/10") == 1


def test_a_full_disk_costs_lines_and_not_the_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = telemetry(tmp_path, 0)
    run.log(4, 1, 0.1, {"kl": 1.0})
    opened = Path.open

    def full(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        stream = opened(path, mode, *arguments, **options)
        if path.name == "metrics.jsonl" and "a" in mode:
            stream.write(b'{"samples_se')  # what there was room for
            stream.close()
            raise OSError(errno.ENOSPC, "No space left on device")
        return stream

    def add(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        patch.setattr(tracker_kinds.TensorBoardTracker, "log", add)
        for step in (2, 3):
            run.log(4 * step, step, step / 10, {"kl": float(step)})
    run.log(16, 4, 0.4, {"kl": 4.0})
    run.close()
    text = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(text[0])["step"] == 1
    assert json.loads(text[-1])["step"] == 4
    assert caplog.text.count("cannot be written (No space left on device)") == 2  # once for each
    assert caplog.text.count("is written again") == 2
    telemetry(tmp_path, 16).close()
    assert [line["step"] for line in lines(tmp_path)] == [1, 4]
