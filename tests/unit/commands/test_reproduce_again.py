"""What ``dsvae reproduce`` makes of runs that are there: those that were asked for, or a sentence."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from dist_dsvae.commands.reproduce.evaluations import at_temperatures, check_judges, scores_of
from dist_dsvae.commands.reproduce.jobs import Job, run_jobs
from dist_dsvae.commands.reproduce.planned_runs import Budget, PlannedRun
from dist_dsvae.commands.reproduce.reproducing import commands_of
from dist_dsvae.commands.reproduce.write_results import write_results
from dist_dsvae.config.reading import ConfigError
from dist_dsvae.core.shipped import root
from dist_dsvae.evaluation.comparing.evaluated import ComparisonError
from dist_dsvae.evaluation.comparing.results import read_results
from tests.unit.commands.test_reproduce_parts import evaluated, planned, trained

TWENTY = Budget("updates", iterations=20)


def edited(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# Runs


def test_a_run_of_other_shards_is_not_this_one(tmp_path: Path) -> None:
    run = trained(planned(tmp_path, TWENTY)[0], 20, 50.0)
    assert run.has_ended()
    rebuilt = replace(run, fingerprint="other")
    with pytest.raises(ConfigError, match=r"trained on other shards than those that are in shards/.*--runs"):
        rebuilt.has_ended()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("data.test=shards/fashion-mnist-mini/train", "is evaluated on data.test shards/.*mini/test; now "),
        ("data.test=null", "is evaluated on data.test shards/.*mini/test; now None is asked for"),
        ("train.mixed_precision=fp16", "was trained with train.mixed_precision bf16; now fp16 is asked for"),
    ],
)
def test_what_a_run_was_given_otherwise_is_said(tmp_path: Path, change: str, sentence: str) -> None:
    trained(planned(tmp_path, TWENTY)[0], 20, 50.0)  # in bf16, for which "auto" had asked
    assert planned(tmp_path, TWENTY)[0].has_ended()
    record = tmp_path / "runs/quickstart/dsvae-seed0/environment.json"
    starts = json.loads(record.read_text())
    record.write_text(json.dumps([*starts, starts[-1] | {"mixed_precision": "no"}]))  # which trained nothing
    assert planned(tmp_path, TWENTY, "train.mixed_precision=bf16")[0].has_ended()
    with pytest.raises(ConfigError, match=sentence):
        planned(tmp_path, TWENTY, change)[0].has_ended()
    longer = Budget("updates", iterations=30)
    assert not planned(tmp_path, longer, change)[0].has_ended()  # which goes on, and records this


def test_the_same_shards_elsewhere_are_the_same(tmp_path: Path) -> None:
    trained(planned(tmp_path, TWENTY)[0], 20, 50.0)
    there = root() / "shards/fashion-mnist-mini/test"
    assert planned(tmp_path, TWENTY, f"data.test={there}")[0].has_ended()


def test_a_run_that_draws_unlabelled_pictures_is_known_again(tmp_path: Path) -> None:
    more = ["data.unlabelled=shards/fashion-mnist-mini/test", "method.unlabelled_updates=1"]
    run = planned(tmp_path, TWENTY, *more, methods=["dsvae"])[0]
    assert run.samples_per_iteration == 5 * 96
    assert run.iterations == 20
    epoch = run.config.train.epochs * (10_000 + 2_000)  # of both splits, as the trainer counts
    assert math.ceil(epoch / run.samples_per_iteration) == 20
    assert run.fingerprint.count("+") == 1
    trained(run, 20, 50.0)
    assert run.has_ended()


def test_a_few_iterations_late_is_the_same_budget_of_seconds_and_no_more(tmp_path: Path) -> None:
    def run_of(seconds: float, name: str) -> PlannedRun:
        return trained(planned(tmp_path / name, Budget("minutes", minutes=0.05))[0], 300, seconds, ended=True)

    assert run_of(3.02, "late").has_ended()
    with pytest.raises(ConfigError, match="300 iterations in 24 seconds; now 3 seconds are asked for"):
        run_of(24.0, "long").has_ended()


def test_the_clock_ends_a_run_elsewhere_so_commands_name_no_step(tmp_path: Path) -> None:
    run = trained(planned(tmp_path, Budget("minutes", minutes=0.05))[0], 300, 3.0, ended=True)
    assert "--step" not in " ".join(commands_of([run], [], []))
    counted = trained(planned(tmp_path / "other", TWENTY)[0], 20, 3.0)
    assert "--step 20" in " ".join(commands_of([counted], [], []))


def test_a_damaged_record_of_a_checkpoint_leaves_the_one_before(tmp_path: Path) -> None:
    run = trained(planned(tmp_path, TWENTY)[0], 10, 25.0)
    trained(run, 20, 50.0)
    assert run.has_ended()
    (run.directory / "checkpoints/step-00000020/checkpoint.json").write_text("{")
    assert not run.has_ended()
    assert run.progress() == (10, 25.0)
    with pytest.raises(ConfigError, match="start a new run with another --runs"):
        planned(tmp_path, TWENTY, "model.zu_dim=3")[0].has_ended()


# Processes


def test_what_another_command_has_done_meanwhile_is_not_done_again(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    run_jobs([Job("Done", ("doctor", "--nonsense"), log, lambda: None)], [{}])
    assert not log.exists()
    left = Job("A part", ("train", "--set", "train.max_seconds=60"), log, lambda: ("config", "--names"))
    run_jobs([left], [{}])
    assert log.read_text().startswith("$ dsvae config --names\n")


def test_what_cannot_be_started_lets_the_others_end(tmp_path: Path) -> None:
    def refused() -> tuple[str, ...]:
        raise ConfigError("trained by another command")

    log = tmp_path / "a.log"
    jobs = [
        Job("Lists", ("config", "--names"), log),
        Job("Refused", (), log, refused),
        Job("Not started", ("config", "--names"), tmp_path / "b.log"),
    ]
    with pytest.raises(ConfigError, match="trained by another command"):
        run_jobs(jobs, [{}, {}])
    assert "classifier/quickstart" in log.read_text()
    assert not (tmp_path / "b.log").exists()


# Evaluations


@pytest.mark.parametrize("key", ["data_fingerprint", "test_fingerprint", "probe_noise"])
def test_evaluations_of_other_shards_or_older_figures_are_made_anew(tmp_path: Path, key: str) -> None:
    run = trained(planned(tmp_path, TWENTY)[0], 20, 50.0)
    evaluated(run)
    assert scores_of(run).is_there()
    path = run.directory / "evaluation/scores.json"
    settings = json.loads(path.read_text())["settings"]
    edited(path, settings={name: value for name, value in settings.items() if name != key})
    assert not scores_of(run).is_there()


def test_a_judge_in_a_folder_with_an_equals_sign_is_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "lr=0.1.pt"
    file.write_bytes(b"weights")
    run = planned(tmp_path, TWENTY)[0]
    judged = replace(
        run, config=replace(run.config, evaluation=replace(run.config.evaluation, classifier=str(file)))
    )
    trained(judged, 20, 50.0)
    evaluated(judged, sha256="0" * 64)
    assert not scores_of(judged).is_there()


def test_a_judge_that_nobody_makes_is_missed_before_any_training(tmp_path: Path) -> None:
    runs = planned(tmp_path, TWENTY, "evaluation.classifier=typo.pt")
    with pytest.raises(ConfigError, match=r"evaluation.classifier is typo.pt, and there is no such"):
        check_judges(runs, [])
    check_judges(runs, [Job("", ("export", "--out", "typo.pt"), tmp_path)])
    check_judges(planned(tmp_path, TWENTY), [])


def test_temperatures_that_differ_in_the_last_digit_have_files_of_their_own(tmp_path: Path) -> None:
    run = planned(tmp_path, TWENTY)[0]
    names = [wanted.name for wanted in at_temperatures(run, [(0.8, 0.8), (0.8, 0.8000001), (10, 0.5)])]
    assert names == ["scores", "temperature-0.8-0.8", "temperature-0.8-0.8000001", "temperature-10-0.5"]


# Results


def test_a_persons_note_stays_in_the_results(tmp_path: Path) -> None:
    run = trained(planned(tmp_path, TWENTY)[0], 20, 50.0)
    evaluated(run)
    out = tmp_path / "out"
    write_results("quickstart", [run], [], TWENTY, [], out)
    edited(out / "quickstart.json", note="Taken on a Sunday.")
    write_results("quickstart", [run], [], TWENTY, [], out)
    assert read_results(out / "quickstart.json").document["note"] == "Taken on a Sunday."
    assert "Taken on a Sunday." in (out / "quickstart.md").read_text()
    edited(out / "quickstart.json", note=None)
    write_results("quickstart", [run], [], TWENTY, [], out)
    assert "note" not in read_results(out / "quickstart.json").document


def test_points_of_a_curve_differ_in_their_temperatures_alone(tmp_path: Path) -> None:
    run = trained(planned(tmp_path, TWENTY)[0], 20, 50.0)
    evaluated(run)
    evaluated(run, "temperature-0.8-0.8", temperature_zs=0.8, temperature_zu=0.8)
    curve = at_temperatures(run, [(0.8, 0.8)])
    write_results("quickstart", [run], curve, TWENTY, [], tmp_path / "out")
    path = run.directory / "evaluation/temperature-0.8-0.8.json"
    edited(path, settings=json.loads(path.read_text())["settings"] | {"precision": "no"})
    with pytest.raises(
        ComparisonError, match=r"scores.json and temperature-0.8-0.8.json of different precision"
    ):
        write_results("quickstart", [run], curve, TWENTY, [], tmp_path / "out")


def test_a_run_that_was_trained_on_meanwhile_is_not_of_this_budget(tmp_path: Path) -> None:
    run = trained(planned(tmp_path, TWENTY)[0], 40, 50.0)
    evaluated(run)
    with pytest.raises(ComparisonError, match="15,360 samples, not at the end of its 20 iterations"):
        write_results("quickstart", [run], [], TWENTY, [], tmp_path / "out")


@pytest.mark.parametrize("content", [None, "{", "[{}]", '{"a": 1}'])
def test_a_damaged_record_of_the_machine_is_named(tmp_path: Path, content: str | None) -> None:
    run = trained(planned(tmp_path, TWENTY)[0], 20, 50.0)
    evaluated(run)
    path = run.directory / "environment.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(
        ComparisonError, match=r"environment.json, the record of what trained, cannot be read"
    ):
        write_results("quickstart", [run], [], TWENTY, [], tmp_path / "out")
