"""Results as files, tables, marked pages and curves."""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from dist_dsvae.evaluation.comparing.evaluated import ComparisonError
from dist_dsvae.evaluation.comparing.marked_pages import with_tables, write_pages
from dist_dsvae.evaluation.comparing.results import FORMAT, Results, read_results, results_of
from dist_dsvae.evaluation.comparing.results_tables import (
    caption,
    figures_table,
    methods_table,
    metric_shown,
    paper_table,
    temperatures_table,
)
from dist_dsvae.evaluation.comparing.trade_off import Curve, area_between, areas, curves, far_away, png


def cell(mean: float, std: float | None = None) -> dict[str, Any]:
    return {"mean": mean, "std": std}


def point(label: str, zs: float | None, zu: float, diversity: float, score: float) -> dict[str, Any]:
    figures = {"diversity": cell(diversity), "inception_score": cell(score), "fid": cell(9 - score)}
    return {"label": label, "temperature_zs": zs, "temperature_zu": zu, "figures": figures}


DOCUMENT: Mapping[str, Any] = {
    "format": FORMAT,
    "name": "mine",
    "budget": "10 iterations",
    "hardware": "one core",
    "software": {"torch": "2.15"},
    "commit": "0123456789ab",
    "commands": ["dsvae reproduce mine"],
    "settings": {"samples": 1000, "samples_per_class": 100, "precision": "no"},
    "judges": {"classifier": {"name": "own:mine", "sha256": "ab" * 32}},
    "columns": ["inception_score", "fid", "zs_accuracy"],
    "rows": [
        {
            "label": "dsvae",
            "seeds": [0, 1],
            "figures": {
                "inception_score": cell(4.774, 0.106),
                "fid": cell(0.4251, 0.03),
                "zs_accuracy": cell(0.9),
            },
        },
        {"label": "cVAE", "seeds": [0, 1], "figures": {"inception_score": cell(4.5), "fid": cell(0.3)}},
    ],
    "real": {"inception_score": 5.02},
    "trade_off": {
        "columns": ["inception_score", "diversity"],
        "points": [
            point("dsvae", 0.8, 0.8, 0.7, 5.0),
            point("dsvae", 1, 1, 0.9, 3.0),
            point("cVAE", None, 1, 0.8, 3.0),
            point("cVAE", None, 1.1, 1.0, 3.0),
        ],
    },
}


def results(**changes: Any) -> Results:
    return results_of({**DOCUMENT, **changes})


def test_rows_of_different_weights_are_named_below_the_table() -> None:
    def captioned(*weights: str | None, **more: str) -> str:
        rows = [
            row if kind is None else {**row, "weights": kind}
            for row, kind in zip(DOCUMENT["rows"], weights, strict=True)
        ]
        return caption(results(rows=rows, **more))

    before = caption(results())
    said = 'Rows are of different weights. Moving average ("ema"): dsvae. Last weights ("raw"): cVAE.'
    assert captioned("ema", "raw", note="A note.") == f"{before} {said} A note."
    assert captioned("ema", "ema") == captioned("ema", None) == before
    assert [row.weights for row in results().rows] == [None, None]  # of an older file


def test_tables() -> None:
    assert methods_table(results()) == (
        "|  | Inception Score ↑ | FID ↓ | accuracy from zs ↑ |\n"
        "|---|---:|---:|---:|\n"
        "| dsvae | **4.77 ± 0.11** | 0.425 ± 0.030 | 0.900 |\n"
        "| cVAE | 4.50 | **0.300** |  |\n"
        "| real images | 5.02 |  |  |"
    )
    assert figures_table(results()).splitlines()[2:] == [
        "| Inception Score ↑ | **4.77 ± 0.11** | 4.50 | 5.02 |",
        "| FID ↓ | 0.425 ± 0.030 | **0.300** |  |",
        "| held-out accuracy from zs ↑ | 0.900 |  |  |",
    ]
    assert temperatures_table(results()).splitlines()[2:5:2] == [
        "| dsvae | zs 0.8, zu 0.8 | **5.00** | 0.700 |",
        "| cVAE | 1 | 3.00 | 0.800 |",
    ]
    assert "| FaceScrub | cVAE-GAN | 16.75 | 0.0141 |" in paper_table()
    assert metric_shown("precision", of_points=True).title == "precision of points"
    assert metric_shown("precision", of_points=False).title == "precision"
    with pytest.raises(ValueError, match="'test_samples' is no figure that a table can show"):
        metric_shown("test_samples", of_points=False)


def test_the_caption_says_how_it_came_about() -> None:
    assert caption(results(note="A note.")) == (
        "Seeds 0, 1; ±: sample standard deviation over them; 10 iterations; 1,000 samples (100 per class); "
        "float32; classifier: own:mine (sha256 abababababab); one core; torch 2.15; commit 0123456789ab. "
        "A note."
    )


def test_the_area_between_curves() -> None:
    first, second = curves(results().curve, "inception_score")
    assert first == Curve("dsvae", (0.7, 0.9), (5.0, 3.0))
    area = area_between("inception_score", first, second)
    assert area is not None
    # from 0.8, where the first is at 4, to 0.9: a triangle of height 1
    assert area.diversity == (0.8, 0.9)
    assert (area.area, area.mean_difference) == (pytest.approx(0.05), pytest.approx(0.5))
    back = area_between("inception_score", second, first)
    assert back is not None
    assert back.area == pytest.approx(-0.05)
    assert area_between("fid", first, Curve("far", (0.95, 1.0), (1.0, 1.0))) is None
    assert [(a.figure, a.of, a.against) for a in areas(results().curve)] == [
        ("inception_score", "dsvae", "cVAE"),
        ("fid", "dsvae", "cVAE"),
    ]
    # knots of both count: a roof of height 1 over [0, 1] above a flat line
    roof, flat = Curve("roof", (0.0, 0.5, 1.0), (0.0, 1.0, 0.0)), Curve("flat", (-1.0, 2.0), (0.0, 0.0))
    over = area_between("fid", roof, flat)
    assert over is not None
    assert over.area == pytest.approx(0.5)


def test_pairs_of_temperatures_are_points_beside_the_curve() -> None:
    pair = point("dsvae", 0.4, 1.2, 0.85, 9.0)
    with_pair = [pair, *DOCUMENT["trade_off"]["points"]]
    curve = results(trade_off={**DOCUMENT["trade_off"], "points": with_pair}).curve
    assert curve[0].temperatures_differ
    assert not any(p.temperatures_differ for p in curve[1:])
    assert curves(curve, "inception_score") == curves(results().curve, "inception_score")
    assert areas(curve) == areas(results().curve)
    # the first method sampled at pairs alone: nothing is measured against another one in its place
    alone = [pair, *(p for p in DOCUMENT["trade_off"]["points"] if p["label"] != "dsvae")]
    without = results(trade_off={**DOCUMENT["trade_off"], "points": alone})
    assert [c.label for c in curves(without.curve, "fid")] == ["cVAE"]
    assert areas(without.curve) == []
    drawn = results(trade_off={**DOCUMENT["trade_off"], "points": with_pair})
    assert png(drawn) != png(results())


def test_the_picture_of_the_curves(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(results()))
    assert Image.open(tmp_path / "a.png").size[0] > 800


def test_a_curve_far_away_leaves_the_picture_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    first, beside = Curve("dsvae", (0.89, 0.91), (3.7, 3.3)), Curve("near", (0.86, 0.88), (2.0, 1.9))
    collapsed, wild = Curve("one picture", (0.05, 0.06), (1.9, 1.9)), Curve("noise", (0.96, 0.97), (1.0, 1.0))
    found = [first, beside, collapsed, wild]
    assert far_away(found, None) == ["one picture", "noise"]
    assert far_away(found, 0.95) == ["one picture"]
    assert far_away([Curve("one point", (0.9,), (3.0,)), collapsed], None) == []
    assert far_away([], 0.9) == []

    axes = []
    plain = Figure.subplots
    monkeypatch.setattr(Figure, "subplots", lambda *given: axes.append(plain(*given)) or axes[-1])
    points = [
        point(curve.label, 1.0, 1.0, diversity, score)
        for curve in found
        for diversity, score in zip(curve.diversity, curve.score, strict=True)
    ]
    png(results(trade_off={**DOCUMENT["trade_off"], "points": points}, real={"diversity": 0.95}))
    for ax in axes[0]:
        assert ax.get_xlim()[0] > 0.85
        said = [text.get_text() for text in ax.get_legend().get_texts()]
        assert said[:3] == ["dsvae", "near", "one picture: diversity 0.05 to 0.06, not drawn"]


PAGE = "Before.\n\n<!-- results mine -->\nold\n<!-- end of results -->\n\nAfter 1.00.\n"


def test_pages_are_written_between_their_marks(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "mine.json").write_text(json.dumps(DOCUMENT))
    (tmp_path / "page.md").write_text(PAGE)
    (tmp_path / "other.md").write_text("No marks.\n")
    assert write_pages(folder) == [tmp_path / "page.md"]
    assert write_pages(folder) == []
    before, table, after = (tmp_path / "page.md").read_text().partition(methods_table(results()))
    assert before == "Before.\n\n<!-- results mine -->\n\n"
    assert after == f"\n\n{caption(results())}\n\n<!-- end of results -->\n\nAfter 1.00.\n"
    assert table


def test_a_page_keeps_its_byte_order_mark_and_its_line_endings(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "mine.json").write_text(json.dumps(DOCUMENT))
    page = tmp_path / "page.md"
    page.write_bytes(PAGE.replace("\n", "\r\n").encode("utf-8-sig"))
    assert write_pages(folder) == [page]
    written = page.read_bytes()
    assert written.startswith(codecs.BOM_UTF8)
    assert methods_table(results()).replace("\n", "\r\n").encode() in written
    assert written.count(b"\n") == written.count(b"\r\n")
    assert write_pages(folder) == []

    page.write_text(PAGE, encoding="utf-16")
    with pytest.raises(ComparisonError, match="byte 0 is not UTF-8: save it as UTF-8"):
        write_pages(folder)


@pytest.mark.parametrize(
    ("page", "sentence"),
    [
        ("<!-- results mine -->\n", "page.md has marks of results that are not in pairs"),
        ("<!-- end of results -->\n", "page.md has marks of results that are not in pairs"),
        (
            "<!-- results mine as-bars -->\n<!-- end of results -->\n",
            "'mine' as 'as-bars'. Views are methods, fig",
        ),
    ],
)
def test_wrong_marks_are_sentences(page: str, sentence: str) -> None:
    with pytest.raises(ComparisonError, match=sentence):
        with_tables(page, lambda _: results(), "page.md")


def test_files_that_are_no_results_are_sentences(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    with pytest.raises(
        ComparisonError, match=r"cannot be read: No such file.*`dsvae reproduce NAME` makes such a file"
    ):
        read_results(path)
    for content, sentence in (
        ("{", "is not valid JSON"),
        ("[]", "holds no results"),
        (json.dumps({"format": FORMAT, "name": "mine"}), "is not as `dsvae reproduce` writes it: KeyError"),
        (json.dumps({**DOCUMENT, "rows": [{"label": "a", "seeds": "x", "figures": {}}]}), "ValueError"),
    ):
        path.write_text(content)
        with pytest.raises(ComparisonError, match=sentence):
            read_results(path)
