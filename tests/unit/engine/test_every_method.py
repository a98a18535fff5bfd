"""Every method through the same entry points: train, be stopped, resume, evaluate, export. In one process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dist_dsvae import PretrainedModel
from dist_dsvae.commands import evaluate, export, train
from dist_dsvae.config import TrainConfig
from dist_dsvae.engine.evaluating import test_codes
from dist_dsvae.engine.reporting import visuals
from dist_dsvae.engine.stopping.preemption import Preempted, StopRequests
from dist_dsvae.evaluation.metrics import description_of
from dist_dsvae.methods.published import load_published
from dist_dsvae.methods.update import averaged_networks, weights_of
from dist_dsvae.runs import measure_statistics
from tests.distributed.launching import REPOSITORY, checkpoint_tensors, metrics, write_config

SHARDS = "shards/fashion-mnist-mini"
METHODS: dict[str, dict[str, Any]] = {
    "dsvae": {"method": {"name": "dsvae"}},
    "semi_supervised": {
        "method": {"name": "dsvae", "unlabelled_updates": 1},
        "data": {"test": f"{SHARDS}/test", "unlabelled": f"{SHARDS}/test"},
    },
    "cvae": {"method": {"name": "cvae"}},
    "cgan": {"method": {"name": "cgan", "adversarial": "hinge"}},
    "cvae_gan": {"method": {"name": "cvae_gan"}},
    "classifier": {
        "method": {"name": "classifier", "width": 4, "shift_pixels": 2, "dropout": 0.1},
        "model": {"architecture": "resnet32"},
        "optimizer": {"decay_epochs": 0.01},
    },
}
IN_UPDATES = {"ema_half_life_updates": 2.0, "ema_ramp_up": 0.5}
AVERAGES: dict[str, dict[str, Any]] = {
    "dsvae": IN_UPDATES | {"ema_networks": "all"},
    "semi_supervised": IN_UPDATES,
    "cvae": IN_UPDATES | {"ema_networks": "all"},
    "cgan": {"ema_half_life_samples": 50.0},  # deprecated
    "cvae_gan": IN_UPDATES,
    "classifier": IN_UPDATES | {"ema_networks": "all"},
}
CLASSIFIER = f"{SHARDS}/classifier"
FEW = [
    "--samples-per-class",
    "4",
    "--set",
    "evaluation.diversity_samples=3",
    "--set",
    "evaluation.splits=2",
    "--set",
    "evaluation.neighbour_samples=30",
]
BATCHES_PER_ITERATION = {"dsvae": 4, "semi_supervised": 5}
SAMPLES_PER_EPOCH = {"semi_supervised": 12_000}
EXPECTED = {
    "dsvae": {"zs_accuracy", "zu_probe_accuracy", "swap_follows_zs", "inception_score", "fid", "diversity"},
    "semi_supervised": {"zs_accuracy", "swap_follows_zs", "inception_score"},
    "cvae": {"zu_probe_accuracy", "swap_follows_zs", "inception_score", "reconstruction_error", "recall"},
    "cgan": {"inception_score", "label_accuracy", "fid", "precision", "diversity"},
    "cvae_gan": {"zu_mlp_accuracy", "swap_follows_zu", "inception_score", "inception_score_splits_std"},
    "classifier": {"accuracy"},
}


class Entries:
    """The commands behind the scripts in launch/, called in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, script: Any, *arguments: str) -> tuple[int, str]:
        """Exit status, and everything that was printed after the word that it starts."""
        program = f"launch/{script.__name__.rpartition('.')[2]}.py"
        self._monkeypatch.setattr(sys, "argv", [program, *arguments])
        self._monkeypatch.setattr(script, "say_start", lambda: None)
        status = script.main()
        printed = self._capsys.readouterr()
        return status, printed.out + printed.err


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Entries:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(test_codes, "PROBE_TRAIN_SAMPLES", 300)  # enough to run the probes, fast
    monkeypatch.setattr(measure_statistics, "NUM_CODES", 256)
    monkeypatch.setattr(visuals, "FEW_CODES", 256)
    return Entries(monkeypatch, capsys)


def config_of(method: str, folder: Path, iterations: int, **sections: Any) -> Path:
    batches = BATCHES_PER_ITERATION.get(method, 1)
    epochs = iterations * batches * 12 / SAMPLES_PER_EPOCH.get(method, 10_000)
    return write_config(
        folder / f"{method}-{iterations}.json",
        **{
            "data": {"test": f"{SHARDS}/test"},
            "train": {"epochs": epochs, "evaluate_at_end": False} | AVERAGES[method],
            "evaluation": {"classifier": CLASSIFIER},
            **METHODS[method],
            **sections,
        },
    )


@pytest.mark.parametrize("method", METHODS)
def test_train_resume_evaluate_export(method: str, entry: Entries, tmp_path: Path) -> None:
    whole, half = config_of(method, tmp_path, 4), config_of(method, tmp_path, 2)
    for run, configs in (("undisturbed", [whole]), ("resumed", [half, whole])):
        for config in configs:
            status, printed = entry(train, "--config", str(config), "--run-dir", str(tmp_path / run))
            assert status == 0, printed
    last = "checkpoints/step-00000004"
    expected = checkpoint_tensors(tmp_path / "undisturbed" / last)
    got = checkpoint_tensors(tmp_path / "resumed" / last)
    assert [name for name in expected if not torch.equal(got[name], expected[name])] == []
    assert metrics(tmp_path / "resumed") == metrics(tmp_path / "undisturbed")

    run_dir = str(tmp_path / "resumed")
    status, printed = entry(evaluate, "--run", run_dir, *FEW, "--json")
    assert status == 0, printed
    begun = ["opening ", "measuring batch norm", "reading the test split"]
    assert all(any(line.startswith(what) for line in printed.splitlines()) for what in begun), printed
    result = json.loads((tmp_path / "resumed/evaluation/scores.json").read_text())
    assert json.loads(next(line for line in printed.splitlines() if line.startswith('{"format"'))) == result
    assert EXPECTED[method] <= result["figures"].keys()
    assert [name for name in result["figures"] if description_of(name) is None] == []
    assert result["method"] == METHODS[method]["method"]["name"]
    if method != "classifier":
        assert result["real"]["inception_score"] > result["figures"]["inception_score"]
        assert len(result["judges"]["classifier"]["sha256"]) == 64

    if method == "cvae":
        cool = ["--set", "evaluation.prior=fitted", "--temperature-zu", "0.1", "--name", "cool"]
        status, printed = entry(evaluate, "--run", run_dir, *FEW, *cool)
        assert status == 0, printed
        cool_result = json.loads((tmp_path / "resumed/evaluation/cool.json").read_text())
        assert cool_result["settings"] == result["settings"] | {"prior": "fitted", "temperature_zu": 0.1}
        same = {name for name, value in result["figures"].items() if cool_result["figures"][name] == value}
        assert {"reconstruction_error", "swap_follows_zs"} <= same  # of codes of images
        assert not {"fid", "diversity"} & same
        status, printed = entry(evaluate, "--run", run_dir, *FEW, "--temperature-zs", "0.5", "--name", "none")
        assert (status, "but this method has one code" in printed) == (1, True)
        paper = tmp_path / "resumed/evaluation/paper.json"
        paper.write_text('{"figures": "of my paper"}')
        for name, sentence in (
            ("paper", "and is no evaluation's"),
            ("stopped-early", "the file that what is stopped"),
        ):
            status, printed = entry(evaluate, "--run", run_dir, *FEW, "--name", name)
            assert (status, sentence in printed) == (1, True), printed
        assert paper.read_text() == '{"figures": "of my paper"}'
        with_remarks = json.dumps(cool_result | {"remarks": "hours of work"})
        (tmp_path / "resumed/evaluation/cool.json").write_text(with_remarks)
        status, printed = entry(evaluate, "--run", run_dir, *FEW, *cool)
        assert (status, "cool.json exists already, and somebody has changed it since" in printed) == (1, True)
        assert (tmp_path / "resumed/evaluation/cool.json").read_text() == with_remarks
        (tmp_path / "resumed/evaluation/cool.json").write_text(json.dumps(cool_result))
        status, printed = entry(evaluate, "--run", run_dir, *FEW, *cool)
        assert status == 0, printed
        as_images = ["--set", "evaluation.batch_norm=images", "--name", "as-images"]
        status, printed = entry(evaluate, "--run", run_dir, *FEW, *as_images)
        assert status == 0, printed
        other = json.loads((tmp_path / "resumed/evaluation/as-images.json").read_text())
        assert other["settings"] == result["settings"] | {"batch_norm": "images"}
        same = {name for name, value in result["figures"].items() if other["figures"][name] == value}
        assert {"reconstruction_error", "swap_follows_zs"} <= same
        assert not {"fid", "diversity"} & same

    status, printed = entry(export, "--run", run_dir, "--out", str(tmp_path / "model"))
    assert status == 0, printed
    assert f"Reading a checkpoint of {run_dir}; its batch norms are measured" in printed
    published = load_published(tmp_path / "model")
    networks = averaged_networks(published.method, TrainConfig(**AVERAGES[method]))
    measured = set()
    for name, tensor in weights_of(published.method, networks).items():
        if name.startswith("encoder_") and name.endswith((".running_mean", ".running_var")):
            assert not torch.equal(tensor, got[f".ema.{name}"]), name  # measured, under its old name
        elif "statistics." in name:
            measured.add(name.partition("statistics.")[2].split(".")[0])
        else:
            assert torch.equal(tensor, got[f".ema.{name}"]), name
    kinds = {"classifier": set(), "cgan": {"prior"}}
    assert measured == kinds.get(method, {"images", "prior"})
    assert result["settings"]["batch_norm"] == "precise"
    assert (tmp_path / "resumed/statistics/step-00000004-ema.safetensors").is_file() == bool(measured)

    if method == "cgan":
        half = tmp_path / "half"
        status, printed = entry(export, "--run", run_dir, "--out", str(half), "--half", "--torch-export")
        assert status == 0, printed
        model = PretrainedModel.from_pretrained(half)
        zs, zu = (torch.randn(3, width) for width in model.code_dims)
        with torch.no_grad():
            images = torch.export.load(half / "decoder.pt2").module()(zs, zu)
        torch.testing.assert_close(images, model.decode(zs, zu))  # of the weights that are stored


def test_evaluation_during_training_leaves_no_trace(entry: Entries, tmp_path: Path) -> None:
    settings = {"classifier": CLASSIFIER, "samples_per_class": 2, "diversity_samples": 2, "splits": 1}
    settings |= {"neighbour_samples": 20, "batch_norm": "batch"}
    settings |= {"identity_network": CLASSIFIER, "identity_samples": 20}
    quiet = config_of("cvae_gan", tmp_path, 3)
    scored = config_of("cvae_gan", tmp_path, 3, evaluation=settings | {"every_steps": 2})
    runs = []
    for run, config in (("quiet", quiet), ("scored", scored)):
        status, printed = entry(train, "--config", str(config), "--run-dir", str(tmp_path / run))
        assert status == 0, printed
        runs.append(checkpoint_tensors(tmp_path / run / "checkpoints/step-00000003"))
    assert "evaluation  " in printed
    assert [name for name in runs[0] if not torch.equal(runs[0][name], runs[1][name])] == []
    result = json.loads((tmp_path / "scored/evaluation/step-00000002.json").read_text())
    assert result["samples_seen"] == 24
    assert result["weights"] == "ema"
    assert result["figures"]["inception_score"] >= 1
    assert result["figures"]["identity_swaps"] == 20
    assert result["figures"]["identity_same_person"] == result["real"]["identity_sample_to_class"]


def test_a_training_that_is_stopped_as_it_evaluates(
    entry: Entries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It saves and leaves at once; the same command makes that evaluation, then goes on."""
    settings = {"classifier": CLASSIFIER, "samples_per_class": 8, "diversity_samples": 2, "splits": 1}
    settings |= {"neighbour_samples": 20, "batch_norm": "batch", "batch_size": 4, "every_steps": 2}
    config = str(config_of("cgan", tmp_path, 3, evaluation=settings))
    assert entry(train, "--config", config, "--run-dir", str(tmp_path / "whole"))[0] == 0
    calls = iter([False, False, True])

    def asked(self: StopRequests) -> None:
        if next(calls):
            raise Preempted("SIGTERM")

    run_dir = tmp_path / "stopped"
    with monkeypatch.context() as patched:
        patched.setattr(StopRequests, "raise_if_asked", asked)
        status, printed = entry(train, "--config", config, "--run-dir", str(run_dir))
    assert status == 75, printed
    assert "Stopped by SIGTERM at step 2" in printed
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["step-00000002"]
    assert not (run_dir / "evaluation/step-00000002.json").exists()

    status, printed = entry(train, "--config", config, "--run-dir", str(run_dir))
    assert status == 0, printed
    whole, stopped = (
        json.loads((tmp_path / run / "evaluation/step-00000002.json").read_text())
        for run in ("whole", "stopped")
    )
    assert stopped["figures"] == whole["figures"]
    last = "checkpoints/step-00000003"
    expected, got = (checkpoint_tensors(tmp_path / run / last) for run in ("whole", "stopped"))
    assert [name for name in expected if not torch.equal(got[name], expected[name])] == []
    made = (run_dir / "evaluation/step-00000002.json").stat().st_mtime_ns
    back = ("--resume", str(run_dir / "checkpoints/step-00000002"))
    assert entry(train, "--config", config, "--run-dir", str(run_dir), *back)[0] == 0
    assert (run_dir / "evaluation/step-00000002.json").stat().st_mtime_ns == made  # it was there


def test_a_stopped_evaluation_goes_on(
    entry: Entries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"
    assert entry(train, "--config", str(config_of("cgan", tmp_path, 1)), "--run-dir", str(run_dir))[0] == 0
    arguments = ["--run", str(run_dir), *FEW, "--set", "evaluation.batch_size=4"]
    assert entry(evaluate, *arguments, "--name", "whole")[0] == 0

    reasons = iter([None, None, "SIGTERM"])  # in the midst of the generated images
    with monkeypatch.context() as patched:
        patched.setattr(StopRequests, "agreed", lambda self, clock=None: next(reasons))
        status, printed = entry(evaluate, *arguments, "--name", "stopped")
    assert status == 75
    assert "the same command goes on from there" in printed
    assert not (run_dir / "evaluation/stopped.json").exists()
    parts = {path.stem for path in (run_dir / "evaluation/.stopped").iterdir()}
    assert parts == {"key", "held-out", "generated"}
    assert json.loads((run_dir / "evaluation/stopped-early.json").read_text())["reason"] == "SIGTERM"

    status, printed = entry(evaluate, *arguments, "--name", "stopped")
    assert status == 0, printed
    whole, stopped = (
        json.loads((run_dir / f"evaluation/{name}.json").read_text()) for name in ("whole", "stopped")
    )
    assert stopped["figures"] == pytest.approx(whole["figures"], rel=1e-12)
    assert not (run_dir / "evaluation/.stopped").exists()


def test_wrong_input_gets_a_sentence(entry: Entries, tmp_path: Path) -> None:
    config = config_of("cgan", tmp_path, 1)
    run_dir = str(tmp_path / "run")
    assert entry(train, "--config", str(config), "--run-dir", run_dir)[0] == 0
    (tmp_path / "few").mkdir()
    description = json.loads((REPOSITORY / CLASSIFIER / "config.json").read_text())
    (tmp_path / "few/config.json").write_text(json.dumps(description | {"classes": ["a", "b"]}))
    (tmp_path / "weights.pth").write_bytes(b"no weights")
    for arguments, sentence in (
        (["--classifier", str(tmp_path / "nowhere")], "There is no classifier"),
        (["--classifier", str(tmp_path / "nowhere.pth")], "nowhere.pth"),
        (["--classifier", str(tmp_path / "weights.pth")], "weights.pth"),
        (["--classifier", run_dir], "is not a published classifier"),
        (["--classifier", str(tmp_path / "few")], "model.safetensors cannot be read"),
        (["--classifier", "inception=x.pth"], "there is no kind of judge 'inception'"),
        (
            [*FEW, "--set", "evaluation.temperature_zu=10.5"],
            "evaluation.temperature_zu is 10.5; it must be between 0 and 10",
        ),
        ([*FEW, "--set", "train.epochs=3"], "is not of the form evaluation.key=value"),
        ([*FEW, "--set", "evaluation.prio=model"], "Did you mean 'prior'?"),
        (["--samples-per-class", "1"], "evaluation.samples_per_class is 1; it must be between 2"),
        ([*FEW, "--set", "evaluation.real_samples=3"], "need at least 4 of each"),
        ([*FEW, "--set", "evaluation.prior=fitted"], "this method does not encode images"),
        ([*FEW, "--name", "summary"], "--name summary is the file that training writes"),
        (["--samples-per-class", "5"], "evaluation.diversity_samples is 100, more than the 5"),
        ([*FEW, "--set", "evaluation.splits=400"], "needs at least one sample for each"),
        (["--step", "7"], "has no checkpoint of step 7"),
    ):
        status, printed = entry(evaluate, "--run", run_dir, *arguments)
        assert status == 1, arguments
        assert sentence in printed, printed
    # a classifier of other classes
    (tmp_path / "few/config.json").unlink()
    status, printed = entry(
        train, "--config", str(config_of("classifier", tmp_path, 1)), "--run-dir", str(tmp_path / "c")
    )
    assert status == 0, printed
    assert entry(export, "--run", str(tmp_path / "c"), "--out", str(tmp_path / "m"))[0] == 0
    description = json.loads((tmp_path / "m/config.json").read_text())
    description["classes"][0] = "Zebra"
    (tmp_path / "m/config.json").write_text(json.dumps(description))
    status, printed = entry(evaluate, "--run", run_dir, "--classifier", str(tmp_path / "m"))
    assert status == 1
    assert "tells 10 classes apart (Zebra, " in printed
