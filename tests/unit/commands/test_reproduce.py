"""``dsvae reproduce`` for real, at toy size: points, two methods, two seeds, with real processes."""

from __future__ import annotations

import json
import shlex
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dist_dsvae.commands import reproduce
from dist_dsvae.commands.reproduce import jobs
from dist_dsvae.core.text import read_json
from dist_dsvae.evaluation.comparing.results import read_results
from dist_dsvae.evaluation.comparing.results_tables import methods_table

SETTINGS = {
    "data.batch_size": 8,
    "data.num_workers": 0,
    "train.cpu_threads": 1,
    "train.trackers": [],
    "train.evaluate_at_end": False,
    "evaluation.samples_per_class": 4,
    "evaluation.diversity_samples": 4,
}
COMMAND = (
    "toy --methods dsvae cvae_gan --seeds 0 1 --iterations 2 --jobs 2 --runs my-runs --out my-results "
    + " ".join(f"--set {key}={shlex.quote(json.dumps(value))}" for key, value in SETTINGS.items())
)
RUNS = ("dsvae-seed0", "dsvae-seed1", "cvae_gan-seed0", "cvae_gan-seed1")


def starts_of(run: Path) -> int:
    return len(read_json(run / "environment.json"))


def figures(run: str) -> dict[str, float]:
    found: dict[str, float] = read_json(Path(f"my-runs/toy/{run}/evaluation/scores.json"))["figures"]
    return found


def test_from_nothing_to_a_table_and_not_twice(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("toy", "shards/toy", "--num-points", "60", "--num-test-points", "12", "--workers", "1") == 0

    def typed(more: str = "") -> tuple[int, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["dsvae reproduce", *shlex.split(f"{COMMAND} {more}")])
        status = reproduce.main()
        printed = capsys.readouterr()
        assert status == 0, printed.err
        return status, printed.out + printed.err

    def nothing_may_start(*_: Any) -> None:
        raise AssertionError("a process was started")

    # What it would take, measured, and nothing else
    with monkeypatch.context() as patched:
        patched.setattr(jobs, "_start", nothing_may_start)
        told = typed("--dry-run")[1]
    assert "toy, dsvae: 2 to train, " in told
    assert "4 of 4 runs are to be trained, 2 at a time: about " in told
    assert not Path("my-runs").exists()
    assert not Path("my-results").exists()

    # One run of an array, then all that is missing
    typed("--only 2")
    assert [path.name for path in Path("my-runs/toy").iterdir() if path.is_dir()] == ["cvae_gan-seed0"]
    assert not Path("my-results").exists()
    told = typed()[1]
    assert "1 of 4 runs have been trained." in told
    assert [starts_of(Path(f"my-runs/toy/{name}")) for name in RUNS] == [1, 1, 1, 1]
    for name in RUNS:
        marker = read_json(next(Path(f"my-runs/toy/{name}/checkpoints").iterdir()) / "checkpoint.json")
        batches = 4 if name.startswith("dsvae") else 1
        assert marker["values"]["samples_seen"] == 2 * batches * 8, name  # equal updates

    # What was written: figures of each seed, their mean and deviation, and how they came about
    results = read_results(Path("my-results/toy.json"))
    assert [(row.label, row.seeds) for row in results.rows] == [("dsvae", (0, 1)), ("cVAE-GAN", (0, 1))]
    cell = next(row for row in results.rows if row.label == "dsvae").cells["coverage"]
    values = [figures(name)["coverage"] for name in RUNS[:2]]
    assert cell.values == dict(zip("01", values, strict=True))
    assert (cell.mean, cell.std) == (statistics.fmean(values), statistics.stdev(values))
    assert methods_table(results) in told
    document = results.document
    assert document["budget"] == "2 iterations, with an update of the decoder each"
    assert len(document["commands"]) == 1 + 4 + 4
    assert document["commands"][0].startswith("dsvae reproduce toy --methods dsvae cvae_gan --seeds 0 1 ")
    assert set(document["software"]) == {"dist_dsvae", "torch"}
    assert "1 thread, float32" in document["hardware"]
    assert methods_table(results) in Path("my-results/toy.md").read_text()
    log = Path("my-runs/toy/cvae_gan-seed0.log").read_text()
    assert log.count("$ dsvae train baselines/cvae_gan-toy ") == log.count("$ dsvae evaluate ") == 1

    # Nothing is missing any more: the same files, and no process
    before = Path("my-results/toy.json").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(jobs, "_start", nothing_may_start)
        typed()
    assert Path("my-results/toy.json").read_bytes() == before

    # The figures; never in the place of a person's picture
    figure = Path("my-results/toy/figure2.png")
    figure.parent.mkdir()
    Image.new("RGB", (8, 8)).save(figure)
    monkeypatch.setattr(sys, "argv", ["dsvae reproduce", *shlex.split(f"{COMMAND} --figures")])
    assert reproduce.main() == 1
    assert f"{figure} exists already, and is no picture that this program drew." in capsys.readouterr().err
    figure.unlink()
    typed("--figures")
    with Image.open(figure) as drawn:
        assert drawn.width > 3 * 100  # the real points, dsvae's and cVAE-GAN's
