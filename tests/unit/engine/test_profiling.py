"""A profile of a real run: what is recorded, and that nothing else changes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from dist_dsvae.commands.train import train
from dist_dsvae.config.reading import ConfigError, load_config
from dist_dsvae.core.types import ImageShape
from dist_dsvae.engine.reporting import visuals
from dist_dsvae.runs.marker import CheckpointError
from dist_dsvae.runs.run_directory import checkpoint_to_resume
from tests.distributed.launching import differing_tensors, epochs_of, metrics, write_config
from tests.unit.engine.making import write_images


@pytest.fixture(autouse=True)
def _few_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the last pictures, which take most of so short a run."""
    monkeypatch.setattr(visuals, "FEW_CODES", 16)


def run(folder: Path, iterations: int, name: str, profile: str | None) -> Path:
    if not (folder / "train").exists():
        write_images(folder / "train", ("a", "b", "c"), 8, ImageShape(1, 32, 32))
    path = write_config(
        folder / "config.json",
        data={"train": str(folder / "train")},
        train={"epochs": epochs_of(iterations, num_samples=24), "profile": profile, "evaluate_at_end": False},
    )
    assert train(load_config(path), folder / name, "auto", None) == 0
    return folder / name


def steps(trace: Path) -> int:
    """How many iterations a trace names; the numbers are the profiler's own."""
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    return len({event["name"] for event in events if event.get("name", "").startswith("ProfilerStep")})


def test_a_run_with_a_profile_is_the_run_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, profiled = run(tmp_path, 6, "plain", None), run(tmp_path, 6, "profiled", "2:5")
    assert metrics(plain) == metrics(profiled)
    assert differing_tensors(plain, profiled, 6) == []
    assert not (plain / "profile").exists()
    written = sorted(path.name for path in (profiled / "profile").iterdir())
    assert written == ["iterations-2-4.json.gz", "iterations-2-4.txt"]
    assert steps(profiled / "profile" / written[0]) == 3
    assert "aten::convolution" in (profiled / "profile" / written[1]).read_text()
    assert "Profile of iterations 2 to 4:" in capsys.readouterr().out


def test_a_run_that_ends_or_is_resumed_in_between_records_what_it_can(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = run(tmp_path, 4, "run", "3:9")
    assert steps(run_dir / "profile/iterations-3-3.json.gz") == 1
    run(tmp_path, 12, "run", "3:9")  # resumed at 4, which is the first iteration of a process, then a warm-up
    assert steps(run_dir / "profile/iterations-6-8.json.gz") == 3
    run(tmp_path, 14, "run", "13:15")  # only the warm-up is run: nothing to write
    assert len(list((run_dir / "profile").iterdir())) == 4
    capsys.readouterr()
    run(tmp_path, 15, "run", "13:15")
    assert "no such iteration" not in capsys.readouterr().out  # as another start has left some
    run(tmp_path, 3, "short", "50:55")
    assert "train.profile is 50:55, but no such iteration was made in this start" in capsys.readouterr().out


def test_a_profile_is_the_run_s_own_work(tmp_path: Path) -> None:
    (tmp_path / "profile").mkdir()  # which a run would replace
    with pytest.raises(CheckpointError, match=r"is no run's directory .* but holds profile, which a run"):
        checkpoint_to_resume(tmp_path, "auto")


@pytest.mark.parametrize("setting", ["5", "5:5", "6:5", "1:5", "0:3", "5:106", "5:-6", "a:b", "2:3:4", ""])
def test_what_is_no_interval_is_a_sentence(tmp_path: Path, setting: str) -> None:
    path = write_config(tmp_path / "config.json", train={"profile": setting})
    with pytest.raises(ConfigError, match=r'train\.profile is ".*"; it must be "START:STOP".*"100:103"'):
        load_config(path)
