"""What ``dsvae reproduce`` decides: which runs, with what budget, what is missing, and how processes end."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from dist_dsvae.commands import generate, reproduce
from dist_dsvae.commands.reproduce import jobs, reproducing
from dist_dsvae.commands.reproduce.evaluations import at_temperatures, judge_jobs, scores_of
from dist_dsvae.commands.reproduce.jobs import Job, JobError, run_jobs
from dist_dsvae.commands.reproduce.paper_figures import figure_jobs
from dist_dsvae.commands.reproduce.planned_runs import Budget, PlannedRun, configs_of, plan_runs
from dist_dsvae.commands.reproduce.reproduce_options import Stopped
from dist_dsvae.commands.reproduce.time_needed import TimeNeeded, report
from dist_dsvae.commands.reproduce.write_results import write_results
from dist_dsvae.config.reading import ConfigError, load_config, to_json
from dist_dsvae.core.files import sha256_of
from dist_dsvae.core.shipped import config_names, root
from dist_dsvae.engine.stopping.preemption import TRY_AGAIN_LATER
from dist_dsvae.evaluation.comparing.evaluated import FORMAT, ComparisonError
from dist_dsvae.evaluation.comparing.results import read_results
from dist_dsvae.evaluation.probes import PROBE_NOISE
from dist_dsvae.runs import auto_augmentation, marker
from tests.unit.commands.conftest import UsageError

JUDGE_FILE = root() / "shards/fashion-mnist-mini/classifier/model.safetensors"
NUMBERS = ("3", "4a", "4b", "5", "6", "7", "8")  # of the figures of a method with two codes
PER_ITERATION = {"dsvae": 384, "paper": 384, "cvae": 96, "cgan": 96, "cvae_gan": 96}


def planned(tmp_path: Path, budget: Budget, *overrides: str, methods: Any = None) -> list[PlannedRun]:
    return plan_runs("quickstart", methods, [0, 7], budget, tmp_path / "runs", overrides)


def trained(run: PlannedRun, iterations: int, seconds: float, *, ended: bool = False) -> PlannedRun:
    """The run's directory, as training would have left it."""
    step = run.directory / "checkpoints" / f"step-{iterations:08d}"
    step.mkdir(parents=True)
    seen = iterations * run.samples_per_iteration
    values = {
        "samples_seen": seen,
        "num_replaced": 0,
        "meter_iterations": 0,
        "train_seconds": seconds,
        "data_fingerprint": run.fingerprint,
    }
    (step / "checkpoint.json").write_text(
        marker.Marker(values, dict.fromkeys((".metadata", "__0_0.distcp"), "0" * 64)).to_json()
    )
    (run.directory / "config.json").write_text(to_json(run.config))
    record = {
        "device_type": "cpu", "device": "AMD EPYC", "threads": 1, "world_size": 1, "mixed_precision": "bf16",
        "packages": {"torch": "2.15.0", "dist_dsvae": "0.1.0"}, "git": "0123456789ab",
    }  # fmt: skip
    at_its_end = record | {"samples_seen": seen, "git": "ba9876543210", "threads": 7}  # which trained nothing
    starts = [record | {"samples_seen": 0}, at_its_end]
    (run.directory / "environment.json").write_text(json.dumps(starts))
    (run.directory / "dataset.json").write_text(json.dumps({"classes": list(run.train.classes)}))
    if ended:
        (run.directory / "evaluation").mkdir()
        (run.directory / "evaluation/summary.json").write_text(json.dumps({"samples_seen": seen}))
    return run


def fingerprint_of_test(run: PlannedRun) -> str:
    assert run.test is not None
    return run.test.fingerprint


def evaluated(
    run: PlannedRun,
    name: str = "scores",
    *,
    diversity: float = 0.8,
    score: float = 5.0,
    weights: str = "ema",
    sha256: str | None = None,
    **settings: Any,
) -> None:
    """An evaluation of its newest checkpoint. sha256: of the judge, by default the embedded one."""
    newest = run.newest()
    assert newest is not None
    marked = marker.Marker.read(newest).values
    judge = {"name": "own:classifier", "sha256": sha256 or sha256_of(JUDGE_FILE)}
    document = {
        "format": FORMAT, "run": run.directory.name, "method": run.config.method.name,
        "data": run.config.data.train,
        "checkpoint": newest.name, "samples_seen": marked["samples_seen"],
        "train_seconds": marked["train_seconds"], "training_seed": run.seed,
        "weights": weights,
        "asked": asdict(replace(run.config.evaluation, **settings)),
        "settings": {
            "samples": 1000, "samples_per_class": 100, "real_samples": 1000, "real_split": "test", "seed": 0,
            "data_fingerprint": run.train.fingerprint, "test_fingerprint": fingerprint_of_test(run),
            "precision": "bf16", "probe_noise": PROBE_NOISE, **settings,
        },
        "judges": {"classifier": judge, "feature_network": judge},
        "figures": {"inception_score": score, "fid": 10 - score, "diversity": diversity},
        "real": {"inception_score": 6.0, "diversity": 0.81},
    }  # fmt: skip
    (run.directory / "evaluation").mkdir(exist_ok=True)
    (run.directory / "evaluation" / f"{name}.json").write_text(json.dumps(document))


# Figures


def test_figures_of_each_method_are_commands_that_generate_understands(tmp_path: Path) -> None:
    jobs_by_file: dict[str, Job] = {}
    for job in figure_jobs(planned(tmp_path, Budget("updates")), tmp_path / "out"):
        assert job.arguments[0] == "generate"
        parsed = generate.make_parser().parse_args(job.arguments[1:])
        assert parsed.run.name.endswith("-seed0")
        assert parsed.run.name.removesuffix("-seed0") in parsed.out.name
        jobs_by_file[str(parsed.out.relative_to(tmp_path / "out"))] = job
    both = [f"figure{number}-{method}.png" for method in ("dsvae", "paper") for number in NUMBERS]
    others = ["figure3-cvae.png", "figure3-cgan.png", "figure3-cvae_gan.png", "figure7-cvae_gan.png"]
    assert sorted(jobs_by_file) == sorted(both + others)


# Which runs, with what budget


def test_every_top_level_config_is_an_experiment_with_all_methods() -> None:
    for name in (name for name in config_names() if "/" not in name):
        assert list(configs_of(name)) == ["dsvae", "paper", "cvae", "cgan", "cvae_gan"], name
    with pytest.raises(
        ConfigError, match=r"no experiment 'quickstrat'. Did you mean 'quickstart'\? There are "
    ):
        configs_of("quickstrat")
    for name in ("baselines/cvae-quickstart", "classifier/quickstart", "paper/quickstart"):
        with pytest.raises(ConfigError, match=f"There is no experiment '{name}'"):
            configs_of(name)


def test_equal_updates_whatever_a_method_draws(tmp_path: Path) -> None:
    runs = planned(tmp_path, Budget("updates"))
    assert [(run.method, run.seed) for run in runs] == [(m, seed) for m in PER_ITERATION for seed in (0, 7)]
    assert {run.method: run.samples_per_iteration for run in runs} == PER_ITERATION
    assert {run.iterations for run in runs} == {1000}  # of the baselines; dsvae's config ends by the clock
    assert {run.config.train.max_seconds for run in runs} == {0}
    assert {run.config.seed for run in runs} == {0, 7}
    for iterations in (1, 3, 777, 12_345):  # training rounds up what an epoch leaves of an iteration
        for run in planned(tmp_path, Budget("updates", iterations=iterations), "data.batch_size=7"):
            samples = run.config.train.epochs * 10_000
            assert run.iterations == math.ceil(samples / run.samples_per_iteration) == iterations


def test_algorithm_1_is_not_trained_twice_unless_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """configs/cifar10.json is configs/paper/cifar10.json but for augmentation, which "auto" leaves off."""

    def of_cifar10(methods: list[str] | None) -> list[str]:
        data = [f"data.{split}=shards/fashion-mnist-mini/{split}" for split in ("train", "test")]
        runs = plan_runs("cifar10", methods, [0, 1, 2], Budget("updates"), tmp_path, data)
        return [run.method for run in runs]

    by_default = of_cifar10(None)
    assert by_default == [method for method in ("dsvae", "cvae", "cgan", "cvae_gan") for _ in range(3)]
    assert f" --array 0-{len(by_default) - 1} " in reproduce.make_parser().format_help()  # of cifar10, too
    assert set(of_cifar10(["dsvae", "paper"])) == {"dsvae", "paper"}
    monkeypatch.setattr(auto_augmentation, "SMALL_DATA_SAMPLES", 10_001)  # of data that dsvae augments
    assert list(dict.fromkeys(of_cifar10(None))) == list(PER_ITERATION)


def test_what_only_some_methods_know_can_be_changed_for_them(tmp_path: Path) -> None:
    """The budget is still that of all methods, on the data that all are changed to."""
    change = ("method.discriminator_gain=1", "data.batch_size=48")
    runs = planned(tmp_path, Budget("updates"), *change, methods=["cvae_gan"])
    assert {(run.config.method.discriminator_gain, run.iterations) for run in runs} == {(1, 2000)}  # type: ignore[union-attr]
    fitted = planned(
        tmp_path, Budget("updates"), "evaluation.prior=fitted", methods=["dsvae"]
    )  # cgan has none
    assert [run.config.evaluation.prior for run in fitted] == ["fitted"] * 2
    wrong = (
        "cvae-quickstart.json with --set method.discriminator_gain=1: Unknown key 'method.discriminator_gain'"
    )
    with pytest.raises(ConfigError, match=wrong):
        planned(tmp_path, Budget("updates"), *change)


def test_equal_minutes_and_the_configs_own_budget(tmp_path: Path) -> None:
    for run in planned(tmp_path, Budget("minutes", minutes=1.5)):
        assert run.config.train.max_seconds == 90
        assert run.iterations > 10**9
    own = {run.method: run for run in planned(tmp_path, Budget("paper"))}
    assert own["dsvae"].config.train.max_seconds == 230
    assert (own["dsvae"].iterations, own["cvae"].iterations) == (1563, 1000)


def test_commands_name_config_seed_and_budget(tmp_path: Path) -> None:
    run = planned(tmp_path, Budget("updates", iterations=96), "data.flip=false", methods=["paper"])[1]
    changes = ["data.flip=false", "seed=7", "train.epochs=3.6864", "train.max_seconds=0"]
    options = [word for change in changes for word in ("--set", change)]
    directory = str(tmp_path / "runs/quickstart/paper-seed7")
    assert run.arguments() == ("train", "paper/quickstart", "--run-dir", directory, *options)


def test_a_run_has_ended_when_its_budget_is_used_up(tmp_path: Path) -> None:
    run = planned(tmp_path, Budget("updates", iterations=20))[0]
    assert not run.has_ended()
    trained(run, 20, 500.0)
    assert run.has_ended()
    assert not planned(tmp_path, Budget("updates", iterations=21))[0].has_ended()  # it is trained further
    for smaller in (Budget("updates", iterations=19), Budget("paper")):
        with pytest.raises(
            ConfigError, match=r"dsvae-seed0 was trained for 20 iterations in 500 seconds; now "
        ):
            planned(tmp_path, smaller)[0].has_ended()
    with pytest.raises(
        ConfigError, match=r"was started with another configuration: model.zu_dim \(12 -> 3\)"
    ):
        planned(tmp_path, Budget("updates", iterations=20), "model.zu_dim=3")[0].has_ended()


def test_seconds_add_up_over_the_starts_of_a_run(tmp_path: Path) -> None:
    first, second = planned(tmp_path, Budget("minutes", minutes=1.0))[:2]
    trained(first, 20, 45.0)
    assert not first.has_ended()
    assert first.arguments()[-1] == "train.max_seconds=15.0"
    assert first.arguments(go_on=False)[-1] == "train.max_seconds=60.0"
    trained(second, 20, 58.5, ended=True)
    assert second.has_ended()
    assert not planned(tmp_path, Budget("minutes", minutes=2.0))[1].has_ended()


def test_what_is_left_tells_the_time(tmp_path: Path) -> None:
    runs = planned(tmp_path, Budget("updates", iterations=1000), methods=["dsvae", "cvae"])
    needed = [TimeNeeded(run, 0.5, 500.0) for run in runs]
    told = report(needed, 4, at_once=2)
    assert "quickstart, dsvae: 2 to train, 0.5 s an iteration, 8 min each" in told
    assert "4 of 4 runs are to be trained, 2 at a time: about 17 min on " in told
    assert "about 8 min on " in report(needed, 4, at_once=9)  # a run is not split


# What is evaluated


def test_an_evaluation_is_missing_unless_it_is_of_now(tmp_path: Path) -> None:
    run = trained(planned(tmp_path, Budget("updates", iterations=20))[0], 20, 50.0)
    wanted = scores_of(run)
    assert not wanted.is_there()
    evaluated(run)
    assert wanted.is_there()
    assert wanted.arguments()[5:7] == ("--step", "20")  # not the one before, should this be damaged
    scores = run.directory / "evaluation/scores.json"
    scores.write_text(scores.read_text().replace('"train_seconds": 50.0', '"train_seconds": 49.0'))
    assert not wanted.is_there()  # of a checkpoint that had the name before
    evaluated(run)
    other = replace(wanted, settings=replace(wanted.settings, samples_per_class=50))
    assert not other.is_there()
    assert other.arguments()[-2:] == ("--set", "evaluation.samples_per_class=50")  # as the run does not say
    file = tmp_path / "weights.pt"
    file.write_bytes(b"weights")
    for change in (
        {"classifier": None},
        {"classifier": "nowhere.pt"},
        {"fid_network": str(file)},
        {"identity_network": str(file)},
        {"held_out": str(tmp_path)},
        {"weights": "raw"},
    ):
        assert not replace(wanted, settings=replace(wanted.settings, **change)).is_there(), change
    more = replace(run, config=replace(run.config, evaluation=replace(wanted.settings, real_samples=10**6)))
    evaluated(more)
    assert scores_of(more).is_there()  # all that there are
    judged = replace(wanted.settings, classifier=f"inception-v3={file}")
    by_file = replace(run, config=replace(run.config, evaluation=judged))
    evaluated(by_file, sha256=sha256_of(file))
    assert scores_of(by_file).is_there()
    other_kind = replace(judged, classifier=f"inception-v3-tf={file}")
    assert not replace(scores_of(by_file), settings=other_kind).is_there()
    file.write_bytes(b"other weights")
    assert not scores_of(by_file).is_there()
    evaluated(run)
    (run.directory / "checkpoints/step-00000020").rename(run.directory / "checkpoints/step-00000021")
    assert not wanted.is_there()


def test_temperatures_of_both_codes_are_for_methods_that_have_both(tmp_path: Path) -> None:
    runs = planned(tmp_path, Budget("updates"), methods=["dsvae", "cvae_gan"])
    asked = [(0.8, 0.8), (0.4, 1.2), (1.0, 1.0)]
    names = ["scores", "temperature-0.8-0.8", "temperature-0.4-1.2"]
    assert [wanted.name for wanted in at_temperatures(runs[0], asked)] == names
    assert [wanted.name for wanted in at_temperatures(runs[2], asked)] == names[:2]
    assert [(w.temperature_zs, w.temperature_zu) for w in at_temperatures(runs[2], asked)] == [
        (None, 1.0),
        (None, 0.8),
    ]
    own = planned(tmp_path, Budget("updates"), "evaluation.temperature_zu=0.5", methods=["dsvae", "cvae_gan"])
    assert [wanted.name for wanted in at_temperatures(own[0], [(0.5, 0.5)])] == [
        "scores",
        "temperature-0.5-0.5",
    ]
    assert at_temperatures(own[0], [])[0] == scores_of(own[0])
    assert [wanted.name for wanted in at_temperatures(own[2], [(0.5, 0.5), (1, 1)])] == [
        "scores",
        "temperature-1-1",
    ]
    assert at_temperatures(runs[2], [(0.8, 1.0)]) == [scores_of(runs[2])]  # a pair is for both codes
    assert at_temperatures(own[2], [(0.5, 0.5)]) == [scores_of(own[2])]
    trained(runs[0], 20, 1.0)
    arguments = at_temperatures(runs[0], asked)[2].arguments()
    assert arguments[-4:] == (
        "--set",
        "evaluation.temperature_zs=0.4",
        "--set",
        "evaluation.temperature_zu=1.2",
    )


def test_a_missing_judge_is_trained_and_exported_where_a_config_makes_it(tmp_path: Path) -> None:
    place = "runs/classifier-quickstart/model"
    runs = planned(tmp_path, Budget("updates"), f"evaluation.classifier={place}")
    made = [job.arguments for job in judge_jobs(runs, ["method.width=8"])]
    train = (
        "train",
        "classifier/quickstart",
        "--run-dir",
        "runs/classifier-quickstart",
        "--set",
        "method.width=8",
    )
    assert made == [train, ("export", "--run", "runs/classifier-quickstart", "--out", place)]
    embedded = planned(tmp_path, Budget("updates"))
    assert judge_jobs(embedded, []) == []
    assert judge_jobs(planned(tmp_path, Budget("updates"), "evaluation.classifier=some/model"), []) == []


def test_a_judge_that_is_there_is_told_of_as_it_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = "runs/classifier-quickstart/model"
    runs = planned(tmp_path, Budget("updates"), f"evaluation.classifier={place}")
    monkeypatch.chdir(tmp_path)
    Path(place).mkdir(parents=True)
    assert len(judge_jobs(runs, [], also_made=True)) == 2  # of unknown training: it may be from elsewhere
    so = ["train.epochs=3", "method.width=8"]
    record = load_config(Path("classifier/quickstart"), [*so, "data.shuffle_window_shards=7"])
    Path("runs/classifier-quickstart/config.json").write_text(to_json(record))
    assert len(judge_jobs(runs, [*so, "train.cpu_threads=1"], also_made=True)) == 2
    assert judge_jobs(runs, so) == []
    with pytest.raises(
        ConfigError, match=r"trained otherwise: method.width \(8 -> 9\); train.epochs \(3 -> 4\)"
    ):
        judge_jobs(runs, ["train.epochs=4", "method.width=9"], also_made=True)
    with pytest.raises(ConfigError, match="Say with --judge-set how it was trained"):
        judge_jobs(runs, [], also_made=True)


def test_one_run_of_an_array_needs_no_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one that is there, trained otherwise than configs/classifier has it, nor any."""
    place = Path("runs/classifier-quickstart/model")
    monkeypatch.chdir(tmp_path)
    arguments = ["quickstart", "--only", "1", "--set", f"evaluation.classifier={place}"]
    monkeypatch.setattr(sys, "argv", ["dsvae reproduce", *arguments])
    trained: list[str] = []
    monkeypatch.setattr(reproducing, "train", lambda runs, _: trained.extend(run.title for run in runs))
    for width in (None, 8):
        if width is not None:
            place.mkdir(parents=True)
            record = load_config(Path("classifier/quickstart"), [f"method.width={width}"])
            (place.parent / "config.json").write_text(to_json(record))
        assert reproduce.main() == 0
    assert trained == ["quickstart: dsvae, seed 1"] * 2


# What is written


def test_seeds_and_temperatures_become_a_table_and_a_curve(tmp_path: Path) -> None:
    budget = Budget("updates", iterations=20)
    runs = planned(tmp_path, budget, methods=["dsvae", "cvae_gan"])
    for run in runs:
        trained(run, 20, 50.0)
        shift = 0.2 if run.method == "dsvae" else 0.0
        evaluated(run, score=5.0 + shift + 0.1 * (run.seed == 7))
        evaluated(run, "temperature-0.8-0.8", diversity=0.78, score=5.2 + shift, temperature_zs=0.8)
    curve = [wanted for run in runs for wanted in at_temperatures(run, [(0.8, 0.8)])]
    paths = write_results("quickstart", runs, curve, budget, ["dsvae reproduce quickstart"], tmp_path / "out")
    assert [path.name for path in paths] == ["quickstart.png", "quickstart.md", "quickstart.json"]
    results = read_results(tmp_path / "out/quickstart.json")
    cell = next(row for row in results.rows if row.label == "dsvae").cells["inception_score"]
    assert cell.values == pytest.approx({"0": 5.2, "7": 5.3})
    assert (cell.mean, cell.std) == (pytest.approx(5.25), pytest.approx(0.1 / math.sqrt(2)))
    assert [row.weights for row in results.rows] == ["ema", "ema"]
    assert results.document["hardware"] == "AMD EPYC, 1 thread, bf16"
    assert results.document["commit"] == "0123456789ab"
    score, fid = results.document["trade_off"]["areas"]
    assert (score["of"], score["against"], score["diversity"]) == ("dsvae", "cVAE-GAN", [0.78, 0.8])
    assert score["mean_difference"] == pytest.approx(0.2)
    assert fid["mean_difference"] == pytest.approx(-0.2)
    text = paths[1].read_text()
    assert "Inception Score: dsvae is 0.2 ahead of cVAE-GAN on average" in text
    assert "FID: dsvae is 0.2 ahead of cVAE-GAN on average" in text
    write_results("quickstart", runs, [], budget, [], tmp_path / "out")  # its own files are replaced
    assert not (tmp_path / "out/quickstart.png").exists()  # which is of a curve that there is no more
    evaluated(runs[1], weights="raw")
    with pytest.raises(
        ComparisonError, match=r"dsvae-seed0 was evaluated with the weights 'ema', .*dsvae-seed7"
    ):
        write_results("quickstart", runs, [], budget, [], tmp_path / "out")
    evaluated(runs[1])
    (tmp_path / "out/quickstart.md").write_text("a person's")
    with pytest.raises(ComparisonError, match="is not as this command wrote it"):
        write_results("quickstart", runs, [], budget, [], tmp_path / "out")


# Processes


def nothing(*_: object) -> None:
    raise AssertionError("a process was started")


def test_a_failing_command_ends_all_with_its_last_words(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    failing = [Job("The first", ("evaluate", "--run", "runs/none", "--out", "x"), log)]
    with pytest.raises(JobError, match=r"The first failed with status 2. .*a.log ends with\n") as caught:
        run_jobs([*failing, *failing], [{}])
    assert not caught.value.can_go_on
    assert (
        log.read_text().count("$ dsvae evaluate --run runs/none --out x") == 1
    )  # the second was not started
    assert "leave it out with --run" in str(caught.value)


def test_stopping_stops_what_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    places: list[Mapping[str, str]] = []

    def start(job: Job, place: Mapping[str, str]) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
        places.append(place)
        return started[-1]

    def stop(seconds: float) -> None:
        raise Stopped

    monkeypatch.setattr(jobs, "_start", start)
    monkeypatch.setattr(time, "sleep", stop)
    job = Job("A training", ("train",), tmp_path / "a.log")
    with pytest.raises(Stopped):
        run_jobs([job] * 3, [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}])
    assert [process.returncode for process in started] == [-15, -15]
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places] == ["0", "1"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_asked_to_stop_it_says_that_it_goes_on(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "toy"])
    monkeypatch.setattr(reproducing, "reproduce", lambda args: signal.raise_signal(number))
    assert reproduce.main() == TRY_AGAIN_LATER
    assert "the same command goes on" in capsys.readouterr().err
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("", "reproduce what? Name a data set of configs/"),
        ("toy --budget minutes", "--minutes N and --budget minutes go together"),
        ("toy --minutes 3", "--minutes N and --budget minutes go together"),
        ("toy --set seed=7", "--set seed has no effect here; give --seeds"),
        ("toy --set run_dir=x", "--set run_dir has no effect here; give --runs"),
        (
            "toy --set train.max_seconds=9",
            "--set train.max_seconds has no effect here; give --budget minutes with",
        ),
        ("--write-docs --seeds 1", "--seeds is about runs of data sets, and none is named"),
        ("--write-docs --judge-set a=1", "--judge-set is about runs of data sets, and none is named"),
        ("toy --write-docs --dry-run", "--dry-run writes nothing; leave out --write-docs"),
        (
            "toy --iterations 9 --set train.epochs=9",
            "--set train.epochs has no effect here; give --iter",
        ),
        ("toy --only 0 --temperatures 0.5", "--only trains one run and evaluates nothing"),
        (
            "toy --budget paper --iterations 3",
            "--iterations is the budget of updates, but the budget is paper",
        ),
        ("toy --only 0 --dry-run", "--only trains one run and writes nothing"),
        ("toy --seeds 1 1", "--seeds names a seed twice"),
        (
            "toy --temperatures 0.5:0",
            "argument --temperatures: '0' is not allowed; it must be a number above 0",
        ),
        ("toy --temperatures 0.5:", "argument --temperatures: '' is not allowed"),
    ],
)
def test_options_that_do_not_go_together(arguments: str, sentence: str, usage_error: UsageError) -> None:
    assert sentence in usage_error(reproduce.main, arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("quickstrat", "There is no experiment 'quickstrat'. Did you mean 'quickstart'?"),
        ("quickstart --only 15", "--only 15: there are 15 runs, 0 to 14."),
        ("quickstart --set model.zz=1", "Unknown key 'model.zz'"),
        (
            "quickstart --set evaluation.classifier=runs/classifier-quickstart/model "
            "--judge-set train.epoch=8",
            "Unknown key 'train.epoch'",
        ),
        ("quickstart --judge-set train.epochs=8", "--judge-set: no judge is trained for these runs"),
        ("--write-docs --out nowhere", "There are no results in nowhere"),
        (
            "quickstart --set evaluation.classifier=typo.pt",
            "evaluation.classifier is typo.pt, and there is no ",
        ),
        (
            "quickstart --set evaluation.classifier=null --temperatures 0.8",
            "--temperatures: quickstart names no judge",
        ),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_starts(
    arguments: str, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jobs, "_start", nothing)
    monkeypatch.setattr(sys, "argv", ["dsvae reproduce", *arguments.split()])
    assert reproduce.main() == 1
    assert sentence in capsys.readouterr().err
