"""Watching a run: its files while they are being written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from dist_dsvae.explore.watched_run import (
    draw_curves,
    newest_grid,
    read_metrics,
    snapshot,
    state_of,
    status_of,
)


def line(samples_seen: int, **figures: float) -> str:
    return (
        json.dumps({"samples_seen": samples_seen, "step": samples_seen // 10, "epoch": 0.5, **figures}) + "\n"
    )


def grid(run: Path, name: str, width: int) -> None:
    (run / "samples").mkdir(exist_ok=True)
    Image.new("RGB", (width, 10)).save(run / "samples" / name)


def test_curves_by_name_over_samples_seen(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(line(100, gm=2.0) + line(200, gm=1.0, zs_accuracy=0.5), "utf-8")
    metrics = read_metrics(path)
    assert metrics.curves == {"gm": ([100, 200], [2.0, 1.0]), "zs_accuracy": ([200], [0.5])}
    assert metrics.last["step"] == 20


def test_a_line_that_is_still_being_written_waits(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(line(100, gm=2.0) + line(200, gm=1.0)[:-1], "utf-8")  # all of it but its end
    metrics = read_metrics(path)
    assert metrics.curves["gm"] == ([100], [2.0])
    assert metrics.num_unreadable == 0


def test_unreadable_lines_are_counted(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        line(100, gm=2.0) + '{"samp\n[1]\n{"gm": 3}\n' + line(300, gm=1.0)
    )
    assert read_metrics(tmp_path / "metrics.jsonl").curves["gm"] == ([100, 300], [2.0, 1.0])
    status = snapshot(tmp_path, state_of(tmp_path), None).status
    assert status.startswith("Iteration 30, 300 samples seen, epoch 0.5.")
    assert "3 unreadable lines of metrics.jsonl are left out." in status


def test_a_run_that_has_written_nothing(tmp_path: Path) -> None:
    seen = snapshot(tmp_path, state_of(tmp_path), None)
    assert seen == ("Nothing has been logged yet.", None, None, None)


def test_the_newest_grids(tmp_path: Path) -> None:
    for step, width in ((9, 20), (10, 30)):
        grid(tmp_path, f"step-{step:08}.png", width)
        grid(tmp_path, f"step-{step:08}-swap.png", width + 1)
    (tmp_path / "samples" / ".step-00000011.png.partial").write_bytes(b"half")
    assert newest_grid(tmp_path, swap=False) == tmp_path / "samples/step-00000010.png"
    seen = snapshot(tmp_path, state_of(tmp_path), None)
    assert seen.samples is not None
    assert seen.swaps is not None
    assert (seen.samples.width, seen.swaps.width) == (30, 31)


def test_the_state_changes_with_what_there_is_to_see(tmp_path: Path) -> None:
    states = [state_of(tmp_path)]
    assert state_of(tmp_path) == states[0]
    (tmp_path / "metrics.jsonl").write_text(line(100, gm=2.0))
    states.append(state_of(tmp_path))
    grid(tmp_path, "step-00000010.png", 20)
    states.append(state_of(tmp_path))
    assert len(set(states)) == 3


def test_curves_are_a_panel_each(tmp_path: Path) -> None:
    path, heights = tmp_path / "metrics.jsonl", []
    for num_curves in (2, 3):
        figures = {f"figure_{number}": 1.0 for number in range(num_curves)}
        path.write_text("".join(line(seen, **figures) for seen in range(100, 5000, 100)))
        drawn = draw_curves(read_metrics(path))
        assert drawn is not None
        heights.append(drawn.height)
    assert heights[1] == 2 * heights[0]


@pytest.mark.parametrize(
    ("speed", "total", "saved_step", "expected"),
    [
        (50.0, 10_000, 10, "About 3 min to go at this speed."),
        (0.5, 10_000, 10, "About 5 h 0 min to go at this speed."),
        (0.01, 10_000, 10, "About 10 days 10 h to go at this speed."),
        (500.0, 10_000, 10, "About 18 s to go at this speed."),
        (50.0, 10_000, 1000, "It is done."),  # the last line of metrics.jsonl is that of the last tick
        (50.0, None, 100, ""),
    ],
)
def test_how_long_it_takes_yet(
    tmp_path: Path, speed: float, total: float | None, saved_step: int, expected: str
) -> None:
    (tmp_path / "metrics.jsonl").write_text(line(1000, images_per_second=speed), "utf-8")
    status = status_of(read_metrics(tmp_path / "metrics.jsonl"), total, saved_step)
    place = "Iteration 100 of 1,000, 1,000 of 10,000" if total else "Iteration 100, 1,000"
    assert status.startswith(f"{place} samples seen, epoch 0.5, {speed:,.0f} images per second.")
    assert status.endswith(expected or "per second.")
