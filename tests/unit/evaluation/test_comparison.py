"""Comparisons of evaluated runs, from small evaluations written by hand."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dist_dsvae.commands import evaluate
from dist_dsvae.config import (
    CVAEConfig,
    CVAEGANConfig,
    DataConfig,
    DSVAEConfig,
    ExperimentConfig,
    ModelConfig,
    TrainConfig,
)
from dist_dsvae.config.reading import to_tree
from dist_dsvae.evaluation.comparing.comparison import Comparison, compare
from dist_dsvae.evaluation.comparing.comparison_files import save_comparison
from dist_dsvae.evaluation.comparing.comparison_report import as_json, caption, markdown, sheet, tables_of
from dist_dsvae.evaluation.comparing.evaluated import FORMAT, ComparisonError, read_runs
from dist_dsvae.evaluation.comparing.paper import paper_figures
from dist_dsvae.evaluation.comparing.proven_files import prefix_of

REPOSITORY = Path(__file__).parents[3]
METHODS = {"dsvae": DSVAEConfig, "cvae": CVAEConfig, "cvae_gan": CVAEGANConfig}
JUDGE = {"name": "own:cifar10", "sha256": "ab" * 32}
OTHER_JUDGE = {"name": "own:other", "sha256": "cd" * 32}
SETTINGS = {
    "samples": 1000,
    "samples_per_class": 100,
    "real_samples": 1000,
    "real_split": "test",
    "splits": 10,
    "seed": 0,
    "batch_norm": "running",
    "diversity_samples": 100,
    "neighbour_samples": 10000,
    "precision": "no",
    "data_fingerprint": "0123456789abcdef",
    "test_fingerprint": "123456789abcdef0",
    "ms_ssim": {"weights": [0.25, 0.75], "black": -1.0},
}
FIGURES = {
    "inception_score": 6.0,
    "fid": 30.0,
    "precision": 0.6,
    "recall": 0.5,
    "diversity": 0.9,
    "zu_probe_accuracy": 0.2,
    "test_samples": 1000,
}


def write_run(path: Path, method: str = "dsvae", seed: int = 0, **changes: Any) -> Path:
    """A run directory with an evaluation. changes: of the evaluation; ``settings`` and ``figures`` are added
    to; ``method_options`` are of its configuration."""
    options = changes.pop("method_options", {})
    name = changes.pop("name", "scores")
    data = changes.get("data", "shards/cifar10/train")
    classes = changes.pop("classes", [f"class {i}" for i in range(10)])
    config = ExperimentConfig(
        seed=seed,
        data=DataConfig(train=data, unlabelled=changes.pop("unlabelled", None)),
        init_from=changes.pop("init_from", None),
        model=ModelConfig(architecture="conv32"),
        method=METHODS[method](**options),
        train=TrainConfig(**changes.pop("train", {})),
    )
    settings = SETTINGS | changes.pop("settings", {})
    figures = changes.pop("figures", {})
    evaluation = {
        "format": FORMAT,
        "run": path.name,
        "method": method,
        "data": data,
        "checkpoint": "step-00003000",
        "commonest_class": 0.17,
        "samples_seen": 1_152_000,
        "train_seconds": 840.9,
        "training_seed": seed,
        "weights": "ema",
        "settings": settings,
        "judges": {"classifier": JUDGE, "feature_network": JUDGE},
        "figures": {k: v for k, v in (FIGURES | figures).items() if v is not None},
        "real": {"inception_score": 9.5, "diversity": 0.91},
    } | changes
    (path / "evaluation").mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(to_tree(config)))
    (path / "dataset.json").write_text(json.dumps({"classes": classes}))
    (path / "evaluation" / f"{name}.json").write_text(json.dumps(evaluation))
    return path


def compared(*paths: Path) -> Comparison:
    return compare(read_runs(paths, "scores"))


def judged_by(judge: dict[str, str]) -> dict[str, Any]:
    return {"classifier": judge, "feature_network": judge}


def cell_of(comparison: Comparison, row: int, figure: str) -> Any:
    [i] = [i for i, column in enumerate(comparison.columns) if column.metric.figure == figure]
    return comparison.rows[row].cells[i]


# Rows


def test_seeds_of_one_training_are_a_row_with_mean_and_sample_deviation(tmp_path: Path) -> None:
    scores = [6.0, 6.5, 7.6]
    runs = [
        write_run(tmp_path / f"s{seed}", seed=seed, figures={"inception_score": score})
        for seed, score in enumerate(scores)
    ]
    comparison = compared(*runs)
    assert [row.label for row in comparison.rows] == ["dsvae"]
    cell = cell_of(comparison, 0, "inception_score")
    assert math.isclose(cell.mean, 6.7, rel_tol=1e-12)
    assert math.isclose(cell.std, statistics.stdev(scores), rel_tol=1e-12)
    assert cell.values == {str(run): score for run, score in zip(runs, scores, strict=True)}
    assert "| dsvae | 3 | 6.70 ± 0.82 |" in markdown(comparison)
    assert "seeds 0, 1, 2" in "\n".join(caption(comparison))


@pytest.mark.parametrize(
    "changes",
    [
        {"method_options": {"kl_weight": 0.5}, "seed": 1},
        {"samples_seen": 2_000_000, "seed": 1},
        {"weights": "raw", "seed": 1},
        {"seed": 0},  # a seed twice is no second sample
        {"seed": 1, "init_from": "runs/other"},
        {"seed": 1, "unlabelled": "shards/more/train"},
    ],
    ids=["options", "budget", "weights", "seed", "from others' weights", "unlabelled"],
)
def test_other_trainings_are_rows_of_their_own(tmp_path: Path, changes: dict[str, Any]) -> None:
    comparison = compared(write_run(tmp_path / "a"), write_run(tmp_path / "b", **changes))
    assert [row.label for row in comparison.rows] == ["dsvae (a)", "dsvae (b)"]
    assert cell_of(comparison, 0, "fid").std is None


def test_rows_of_different_weights_are_named_below_the_table(tmp_path: Path) -> None:
    average, last = write_run(tmp_path / "a"), write_run(tmp_path / "b", weights="raw")
    baseline = write_run(tmp_path / "c", "cvae_gan", weights="raw")
    said = "Rows are of different weights. "
    comparison = compared(average, last, baseline)
    told = [line for line in caption(comparison) if line.startswith(said)]
    assert told == [f'{said}Last weights ("raw"): cvae_gan; dsvae (b). Moving average ("ema"): dsvae (a).']
    assert said in markdown(comparison)
    assert said not in markdown(compared(last, baseline))


def test_by_the_clock_seeds_are_one_row_if_they_trained_as_long(tmp_path: Path) -> None:
    """Whatever was left of the seconds for the last start of each."""
    given = [{"max_seconds": 100.0}, {"max_seconds": 40.0}]
    times = [{"train_seconds": 100.5, "samples_seen": 900}, {"train_seconds": 101.0, "samples_seen": 1000}]
    runs = [
        write_run(tmp_path / str(seed), seed=seed, train=train, **seen)
        for seed, (train, seen) in enumerate(zip(given, times, strict=True))
    ]
    assert len(compared(*runs).rows) == 1
    longer = write_run(tmp_path / "l", seed=5, train=given[0], train_seconds=150.0, samples_seen=1500)
    assert len(compared(*runs, longer).rows) == 2
    counted = write_run(tmp_path / "c", seed=6, train_seconds=100.0, samples_seen=950)
    assert len(compared(*runs, counted).rows) == 2


def test_equal_names_are_told_apart_by_path(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a/run"), write_run(tmp_path / "b/run")]
    assert [row.label for row in compared(*runs).rows] == [f"dsvae ({run})" for run in runs]


def test_rows_in_the_order_of_the_paper_with_real_images_last(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / m, m, data="shards/fashion-mnist/train") for m in ("dsvae", "cvae")]
    labels, strips = sheet(compared(*runs))
    assert labels == ["cvae", "dsvae", "real images"]
    [score] = [s for s in strips if s.heading[0].startswith("Inception Score")]
    assert score.entries[-1].text == "9.50"
    assert [s.entries[-1].text for s in strips if s.heading[0].startswith("FID")] == [""]


# Columns


def test_a_column_per_judge(tmp_path: Path) -> None:
    comparison = compared(
        write_run(tmp_path / "a", figures={"inception_score": 6.0}),
        write_run(
            tmp_path / "b", "cvae_gan", judges=judged_by(OTHER_JUDGE), figures={"inception_score": 60.0}
        ),
    )
    scores = [i for i, c in enumerate(comparison.columns) if c.metric.figure == "inception_score"]
    means = [[c.mean if (c := row.cells[i]) else None for i in scores] for row in comparison.rows]
    assert means == [[None, 60.0], [6.0, None]]
    headings = [strip.heading for strip in sheet(comparison)[1]]
    assert ("Inception Score ↑", "own:cifar10", "abababababab") in headings
    assert ("Inception Score ↑", "own:other", "cdcdcdcdcdcd") in headings
    assert not any(comparison.best[row][i] for row in (0, 1) for i in scores)
    assert len([h for h in headings if h[0].startswith("diversity")]) == 1  # asks no judge


def test_judges_of_one_name_and_other_weights_are_two(tmp_path: Path) -> None:
    retrained = JUDGE | {"sha256": "ef" * 32}
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", seed=1, judges=judged_by(retrained))]
    comparison = compared(*runs)
    fids = [
        c
        for c, column in zip(comparison.rows[0].cells, comparison.columns, strict=True)
        if column.metric.figure == "fid"
    ]
    assert [len(cell.values) for cell in fids if cell] == [1, 1]
    assert "30.00 (n = 1)" in markdown(comparison)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("samples", 5000),
        ("real_samples", 500),
        ("splits", 5),
        ("batch_norm", "batch"),
        ("temperature_zs", 0.7),
        ("diversity_samples", 50),
        ("ms_ssim", {"weights": [1.0], "black": -1.0}),
        ("ms_ssim", None),  # of before it was recorded
        ("precision", "bf16"),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, setting: str, value: object) -> None:
    splits = {"inception_score_splits_mean": 5.9, "inception_score_splits_std": 0.1}
    runs = [
        write_run(tmp_path / "a", figures=splits),
        write_run(tmp_path / "b", "cvae_gan", figures=splits, settings={setting: value}),
    ]
    with pytest.raises(ComparisonError) as caught:
        compared(*runs)
    values = [json.dumps(v) for v in (SETTINGS.get(setting), value)]
    shown = f"setting {setting}, which is {values[0]} in {runs[0]}, {values[1]} in {runs[1]}"
    assert shown in str(caught.value)
    assert "again with equal settings" in str(caught.value)


def test_settings_of_another_column_do_not_matter(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a")
    b = write_run(tmp_path / "b", "cvae_gan", settings={"splits": 5})  # neither has scores over splits
    assert len(compared(a, b).rows) == 2


def test_other_data_are_refused(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a")
    b = write_run(tmp_path / "b", data="shards/toy/train", settings={"data_fingerprint": "f" * 16})
    with pytest.raises(
        ComparisonError, match=r"a and .*b are of different data: shards/cifar10/train .*shards/toy"
    ):
        compared(a, b)
    c = write_run(tmp_path / "c", classes=["one", "two"])
    with pytest.raises(ComparisonError, match=r"different classes: 10 \(class 0, .*2 \(one, two\)"):
        compared(a, c)


def identified(path: Path, method: str = "dsvae", **settings: Any) -> Path:
    """A run whose faces were measured, with no other judge."""
    swaps = {"identity_swap_to_zs": 0.5, "identity_swap_to_zu": 0.1, "identity_same_person": 0.7}
    unseen = {"held_out_identity_swap_to_zs": 0.4, "held_out_reconstruction_error": 0.02}
    return write_run(
        path,
        method,
        judges={"identity_network": {"name": "facenet:face", "sha256": "ef" * 32}},
        real={"identity_swap_to_zs": 0.7, "identity_swap_to_zu": 0.05},
        figures=dict.fromkeys(FIGURES) | swaps | (unseen if method == "dsvae" else {}),
        settings={"identity_samples": 1000, "held_out_fingerprint": "a" * 16} | settings,
    )


def test_identity_stands_under_the_face_network(tmp_path: Path) -> None:
    comparison = compared(identified(tmp_path / "a"), identified(tmp_path / "b", "cvae"))
    headings = [column.metric.title for column in comparison.columns]
    assert headings == [
        "identity, swap to zs",
        "identity, swap to zu",
        "identity of unseen, swap to zs",
        "reconstruction error of unseen",
    ]
    assert comparison.real == (0.7, 0.05, None, None)  # what pairs of real pictures have there
    assert [row.cells[2] is None for row in comparison.rows] == [True, False]
    assert ("identity, swap to zs ↑", "facenet:face", "efefefefefef") in [
        strip.heading for strip in sheet(comparison)[1]
    ]
    assert "Identity network: facenet:face, sha256 efefefefefef." in caption(comparison)
    assert any("identity samples 1000" in line for line in caption(comparison))
    fewer = identified(tmp_path / "c", "cvae", identity_samples=10)
    with pytest.raises(
        ComparisonError, match=r"differ in the setting identity_samples, .*--set evaluation.identity_samples="
    ):
        compared(identified(tmp_path / "d"), fewer)
    # without figures on unseen persons, the split that they were is no matter
    compared(identified(tmp_path / "e"), identified(tmp_path / "f", "cvae", held_out_fingerprint=None))
    others = identified(tmp_path / "g", held_out_fingerprint="b" * 16)
    with pytest.raises(ComparisonError, match=r"the setting held_out_fingerprint, .*\(--held-out\)"):
        compared(identified(tmp_path / "h"), others)


def test_splits_show_their_own_deviation(tmp_path: Path) -> None:
    runs = [
        write_run(
            tmp_path / f"{seed}",
            seed=seed,
            figures={
                "inception_score_splits_mean": 5.0 + seed,
                "inception_score_splits_std": 0.1 + 0.2 * seed,
            },
        )
        for seed in (0, 1)
    ]
    cell = cell_of(compared(*runs), 0, "inception_score_splits_mean")
    assert (cell.mean, round(cell.std, 12)) == (5.5, 0.2)


def test_points(tmp_path: Path) -> None:
    none = dict.fromkeys(FIGURES)
    points = {"coverage": 0.9, "precision": 0.8, "spread_x": 1.2, "spread_y": 0.7, "zs_accuracy": 0.99}
    common: dict[str, Any] = {"judges": None, "data": "shards/toy/train", "real": {"coverage": 0.95}}
    a = write_run(tmp_path / "a", figures=none | points, **common)
    b = write_run(tmp_path / "b", "cvae_gan", figures=none | points | {"spread_x": 0.95}, **common)
    comparison = compared(a, b)
    titles = [column.metric.title for column in comparison.columns]
    assert titles == [
        "accuracy from zs",
        "coverage",
        "precision of points",
        "spread along x",
        "spread along y",
    ]
    assert [flags[3] for flags in comparison.best] == [True, False]
    assert sheet(comparison)[0][-1] == "real points"
    assert save_comparison(comparison, str(tmp_path / "c"))[2].stat().st_size > 0


# What people see


def test_the_best_is_bold(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", "cvae_gan", figures={"fid": 20.0, "zu_probe_accuracy": 0.3})
    b = write_run(tmp_path / "b", figures={"inception_score": 7.0, "diversity": 0.90001})
    c = write_run(tmp_path / "c", "cvae", figures={"inception_score": 3.0, "fid": 99.0, "diversity": 0.4})
    text = markdown(compared(a, b, c))
    rows = {line.split(" ")[1]: line for line in text.splitlines() if line.startswith("| ")}
    for cell in ("**20.00**", "6.00 |", "0.300 |", "**0.9000**"):  # diversity: equal as shown
        assert cell in rows["cvae\\_gan"]
    for cell in ("**7.00**", "30.00 |", "**0.200**", "**0.9000**"):
        assert cell in rows["dsvae"]
    assert "**" not in rows["real"]
    assert "| 0.600 | 0.500 |" in rows["dsvae"]  # equal in all rows
    assert "**" not in markdown(compared(a)).split("\n\n")[0]  # nothing to compare with


def test_the_papers_figures_stand_in_their_own_columns(tmp_path: Path) -> None:
    comparison = compared(write_run(tmp_path / "a"), write_run(tmp_path / "b", "cvae_gan"))
    labels, strips = sheet(comparison)
    assert labels == ["cvae_gan", "dsvae", "cvae (paper only)", "cgan (paper only)", "real images"]
    [scores, diversity] = [s for s in strips if s.heading[0].startswith("paper")]
    assert scores.heading == ("paper: CIFAR-10 Inception Score", "its classifier")
    assert [e.text for e in scores.entries] == ["6.99", "7.04", "3.01", "6.27", ""]
    assert [e.text for e in diversity.entries] == ["0.0136", "0.0149", "", "", ""]
    assert "under its own classifier" in caption(comparison)[-1]


@pytest.mark.parametrize(
    ("place", "data_set"),
    [
        ("shards/cifar10/train", "CIFAR-10"),
        ("https://host/CIFAR-100/train", "CIFAR-100"),
        ("shards/facescrub/train", "FaceScrub"),
        ("shards/cub200/train", "CUB-200"),
        ("shards/fashion-mnist/train", None),
    ],
)
def test_the_data_set_is_told_by_the_path(place: str, data_set: str | None) -> None:
    found = paper_figures([place])
    assert (found.data_set if found else None) == data_set


def test_data_that_the_paper_has_not(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "a", data="shards/fashion-mnist/train", figures={"zs_accuracy": 0.9, "label_accuracy": 0.8}
    )
    comparison = compared(run)
    assert caption(comparison)[-1] == "The paper has no figures for these data."
    assert "paper:" not in markdown(comparison).split("\n\n")[0]
    heads = markdown(comparison).split("\n")[0].split("|")
    assert "chance 0.1<br>" in next(head for head in heads if "label accuracy" in head)
    assert "chance 0.17" in next(head for head in heads if "accuracy from zs" in head)


def test_narrow_terminals_get_pieces(tmp_path: Path) -> None:
    comparison = compared(write_run(tmp_path / "a"))
    columns = [len(table.columns) - 1 for table in tables_of(comparison, 80)]
    assert len(columns) > 1
    assert sum(columns) == sum(len(table.columns) - 1 for table in tables_of(comparison, 400))


def test_files(tmp_path: Path) -> None:
    comparison = compared(write_run(tmp_path / "a"), write_run(tmp_path / "b", "cvae_gan"))
    for out, prefix in (
        (None, tmp_path / "comparison"),
        (f"{tmp_path}/new/", tmp_path / "new/comparison"),
        (f"{tmp_path}/x/table.md", tmp_path / "x/table"),
    ):
        paths = save_comparison(comparison, out)
        assert paths == [prefix.with_name(f"{prefix.name}.{ending}") for ending in ("md", "png", "json")]
        assert paths[0].read_text(encoding="utf-8") == markdown(comparison)
        document = json.loads(paths[2].read_text(encoding="utf-8"))
        assert document.pop("files_sha256").keys() == {"md", "png", "json"}
        assert document == as_json(comparison)
        assert Image.open(paths[1]).size[0] > 600
    save_comparison(comparison, None)  # its own are replaced
    (tmp_path / "comparison.md").write_text("edited")
    with pytest.raises(ComparisonError, match="is not as this command wrote it"):
        save_comparison(comparison, None)
    with pytest.raises(ComparisonError, match=r"comparison.md is no directory that lets this user write"):
        save_comparison(comparison, str(tmp_path / "comparison.md/x/y"))
    cells = as_json(comparison)["rows"][0]["cells"]
    assert cells[0]["values"] == {str(tmp_path / "b"): 6.0}


def test_where_files_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for out, prefix in (
        (".", "scores"), ("..", "../scores"), ("dir/", "dir/scores"), (str(tmp_path), f"{tmp_path}/scores"),
        ("theirs", "theirs"), ("theirs.json", "theirs"), ("v1.5", "v1.5"),
    ):  # fmt: skip
        assert prefix_of(out, "scores") == Path(prefix)


# Mistakes


def test_mistakes_are_sentences(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a")
    b = write_run(tmp_path / "b", name="long")
    old = write_run(tmp_path / "old", format="dist_dsvae-evaluation/0")
    damaged = write_run(tmp_path / "damaged")
    (damaged / "evaluation/scores.json").write_text('{"format": ')
    part = write_run(tmp_path / "part", settings={"samples": "many"})
    for paths, sentence in (
        ([], "There is no run to compare. Give one run directory or more"),
        ([a, a], f"{a} is given twice. Give every run once."),
        ([a, tmp_path / "b/../a"], f"is given twice, also as {a}."),
        ([tmp_path / "no"], f"There is no run directory {tmp_path / 'no'}."),
        ([b], f"dsvae evaluate --run {b}\nor choose with --name what it has: long."),
        ([old], "is of the format 'dist_dsvae-evaluation/0'"),
        ([damaged], "scores.json is not valid JSON"),
        ([part], "scores.json cannot be used"),
    ):
        with pytest.raises(ComparisonError) as caught:
            read_runs(paths, "scores")
        assert sentence in str(caught.value)


def test_the_entry_point_prints_and_writes_the_table(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b", "cvae_gan", figures={"fid": 20.5})
    command = [sys.executable, "launch/evaluate.py", "--compare", a, b, "--out", tmp_path / "table"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for text in ("cvae_gan", "20.50", "real images", "its classifier", f"Wrote {tmp_path}/table.png"):
        assert text in done.stdout
    assert (tmp_path / "table.md").is_file()


def test_the_entry_point_fails_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluate, "say_start", lambda: None)
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--compare", str(tmp_path / "no")])
    assert evaluate.main() == 1
    sentence = f"error: There is no run directory {tmp_path / 'no'}. Give one such as runs/quickstart.\n"
    assert capsys.readouterr() == ("", sentence)

    for arguments, sentence in (
        ([], "give one of --run RUN, to evaluate it, --compare RUN RUN"),
        (["--run", "a", "--compare", "b"], "give one of --run RUN, to evaluate it, --compare RUN RUN"),
        (["--compare", "b", "--set", "evaluation.seed=5"], "--set says how a run is evaluated"),
        (["--compare", "b", "--held-out", "c"], "--held-out says how a run is evaluated"),
        (["--run", "a", "--images", "b", "--real", "c"], "give one of --run RUN"),
        (["--images", "b"], "--images SPLIT and --real SPLIT go together"),
        (["--run", "a", "--real", "c"], "--images SPLIT and --real SPLIT go together"),
        (
            ["--images", "b", "--real", "c", "--step", "3"],
            "--step says how a run is evaluated; the images of",
        ),
        (["--images", "b", "--real", "c", "--temperature-zs", "2"], "--temperature-zs says how a run is"),
        (
            ["--images", "b", "--real", "c", "--name", "d"],
            "--name says how a run is evaluated; the images of",
        ),
        (["--run", "a", "--out", "b"], "leave it out with --run"),
    ):
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *arguments])
        with pytest.raises(SystemExit) as left:
            evaluate.main()
        assert left.value.code == 2
        assert sentence in capsys.readouterr().err
