"""metrics.jsonl: one line a tick, cut back on resume; running means that survive a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dist_dsvae.engine.telemetry import LossMeter, Telemetry
from dist_dsvae.methods.step import Reduction, Step

STEPS = (
    Step(name="gm", repeats=3, terms=("gm",), trains=("a",), reduction=Reduction.FLAT),
    Step(name="joint", repeats=1, terms=("kl", "rec"), trains=("a",), reduction=Reduction.OVERLAPPED),
)
CPU = torch.device("cpu")


def test_means_over_the_steps_of_a_tick() -> None:
    """Two iterations: stage 1 runs three times in each, the joint step once."""
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
    meter.add("joint", {"rec": torch.tensor(1.0), "kl": torch.tensor(0.0)})
    meter.num_iterations = 1
    assert meter.means() == meter.means() == {"gm": 0.0, "kl": 0.0, "rec": 1.0}
    meter.state()["joint"].zero_()
    assert meter.read()["rec"] == 1.0
    assert meter.means()["rec"] == 0.0


def test_a_rank_goes_on_from_its_own_sums_exactly() -> None:
    meter, resumed = LossMeter(STEPS, CPU), LossMeter(STEPS, CPU)
    meter.add("joint", {"rec": torch.tensor(0.1), "kl": torch.tensor(1e30)})
    own = json.loads(json.dumps(meter.own_sums()))  # as a checkpoint's marker holds them
    resumed.restore({name: torch.zeros_like(sums) for name, sums in meter.sums.items()}, own)
    assert all(torch.equal(resumed.sums[name], sums) for name, sums in meter.sums.items())


def telemetry(folder: Path, samples_seen: int) -> Telemetry:
    return Telemetry(
        folder, total_steps=10, samples_seen=samples_seen, step=samples_seen // 4, tensorboard=True
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
