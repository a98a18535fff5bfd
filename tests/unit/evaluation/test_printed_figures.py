"""An evaluation as people see it at the terminal."""

from __future__ import annotations

import io

from rich.console import Console

from dist_dsvae.evaluation.printed_figures import Bars, table_of


def test_names_that_look_like_markup_are_names() -> None:
    result = {
        "run": "faces[big]",
        "checkpoint": "step-00000100",
        "weights": "ema",
        "method": "dsvae[/]",
        "settings": {"samples": 10, "real_samples": 20, "seed": 0},
        "judges": {"classifier": {"name": "judges[red]/one", "sha256": 64 * "a"}},
        "figures": {"fid": 1.5, "[my]figure": 2},
        "real": {},
    }
    console = Console(file=io.StringIO(), width=200)
    console.print(table_of(result))
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    for name in ("faces[big], step-00000100", "dsvae[/]", "judges[red]/one", "[my]figure"):
        assert name in printed


def test_parts_that_look_like_markup_are_told_by_their_names() -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    with Bars(console, enabled=True) as bars:
        bars.update("samples of faces[big]", 1, 2)
    assert isinstance(console.file, io.StringIO)
    assert "samples of faces[big]" in console.file.getvalue()
