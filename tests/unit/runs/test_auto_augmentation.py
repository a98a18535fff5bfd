"""method.augmentation "auto": decided once by the amount of data, recorded, kept by a run that goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dist_dsvae.config import DSVAEConfig, ExperimentConfig
from dist_dsvae.config.reading import ConfigError, differing_keys, from_tree, load_config
from dist_dsvae.core.types import ImageShape
from dist_dsvae.runs.auto_augmentation import SMALL_DATA_SAMPLES, as_trained, without_auto
from tests.distributed.launching import differing_tensors, write_config
from tests.unit.engine.making import write_images
from tests.unit.engine.test_every_method import METHODS, Entries, entry, train

__all__ = ["entry"]

IMAGES, POINTS = ImageShape(1, 32, 32), ImageShape(2, 0, 0)
MINIMAL = {"data": {"train": "t"}, "model": {"architecture": "small32"}}
FEW, MANY = SMALL_DATA_SAMPLES - 1, SMALL_DATA_SAMPLES


def config(**method: object) -> ExperimentConfig:
    return from_tree(ExperimentConfig, MINIMAL | {"method": method})


def test_the_reference_states_the_bound() -> None:
    assert f"{SMALL_DATA_SAMPLES:,}" in (DSVAEConfig.__doc__ or "")


@pytest.mark.parametrize("name", ["dsvae", "cgan", "cvae_gan"])
@pytest.mark.parametrize(
    ("setting", "shape", "num_samples", "expected"),
    [
        ("auto", IMAGES, FEW, "on"),
        ("auto", IMAGES, MANY, "off"),
        ("auto", POINTS, FEW, "off"),
        ("on", IMAGES, MANY, "on"),
        ("off", IMAGES, FEW, "off"),
        ("off", POINTS, FEW, "off"),
    ],
)
def test_what_it_stands_for(
    name: str, setting: str, shape: ImageShape, num_samples: int, expected: str
) -> None:
    given = config(name=name, augmentation=setting)
    resolved = without_auto(given, shape, num_samples, None)
    assert resolved.method.augmentation == expected
    assert differing_keys(given, resolved) == (
        [] if setting == expected else [f'method.augmentation ("auto" -> "{expected}")']
    )


def test_methods_without_a_discriminator_are_untouched() -> None:
    for name in ("cvae", "classifier"):
        given = config(name=name)
        assert without_auto(given, IMAGES, FEW, None) is given
        assert as_trained(given) is given


@pytest.mark.parametrize("key", ["augmentation", "stage_1_augmentation"])
def test_points_are_not_augmented(key: str) -> None:
    with pytest.raises(ConfigError, match=rf'method\.{key} is "on", but t holds points'):
        without_auto(config(**{key: "on"}), POINTS, FEW, None)


@pytest.mark.parametrize("recorded", ["on", "off"])
@pytest.mark.parametrize("num_samples", [FEW, MANY])
def test_a_record_decides_for_auto_alone(recorded: str, num_samples: int) -> None:
    record = config(augmentation=recorded)
    assert without_auto(config(), IMAGES, num_samples, record).method.augmentation == recorded
    other = "off" if recorded == "on" else "on"
    chosen = without_auto(config(augmentation=other), IMAGES, num_samples, record)
    assert differing_keys(record, chosen) == [f'method.augmentation ("{recorded}" -> "{other}")']


@pytest.mark.parametrize("method", ["cgan", "semi_supervised"])
def test_runs_keep_what_they_began_with(method: str, entry: Entries, tmp_path: Path) -> None:
    """Whole runs of few pictures: augmented unless told otherwise, or begun before there was the choice."""
    write_images(tmp_path / "shards", ["a", "b", "c"], 8, IMAGES)

    def run(name: str, iterations: int, **settings: str) -> dict[str, Any]:
        sections = METHODS[method]
        data = {"train": str(tmp_path / "shards"), "test": None}
        batches = 1
        if method == "semi_supervised":
            data["unlabelled"], batches = str(tmp_path / "shards"), 5
        per_epoch = 48 if method == "semi_supervised" else 24
        path = write_config(
            tmp_path / "config.json",
            data=data,
            method=sections["method"] | settings,
            train={"epochs": iterations * batches * 12 / per_epoch},
        )
        status, printed = entry(train, "--config", str(path), "--run-dir", str(tmp_path / name))
        assert status == 0, printed
        assert load_config(path).method.augmentation == settings.get("augmentation", "auto")
        recorded: dict[str, Any] = json.loads((tmp_path / name / "config.json").read_text())
        return recorded

    assert run("auto", 2)["method"]["augmentation"] == "on"
    run("resumed", 1)
    assert run("resumed", 2)["method"]["augmentation"] == "on"
    assert differing_tensors(tmp_path / "resumed", tmp_path / "auto", 2) == []

    run("plain", 2, augmentation="off")
    assert any("discriminator" in n for n in differing_tensors(tmp_path / "plain", tmp_path / "auto", 2))
    old = run("old", 1, augmentation="off")
    del old["method"]["augmentation"]
    (tmp_path / "old/config.json").write_text(json.dumps(old))
    assert run("old", 2)["method"]["augmentation"] == "off"
    assert differing_tensors(tmp_path / "old", tmp_path / "plain", 2) == []


def test_another_choice_is_another_experiment(entry: Entries, tmp_path: Path) -> None:
    paths = []
    for name, settings in (("auto", {}), ("on", {"augmentation": "on"})):
        train_section = {"epochs": 12 / 10_000 * (1 + len(paths))}
        method = METHODS["cgan"]["method"] | settings
        paths.append(write_config(tmp_path / f"{name}.json", method=method, train=train_section))
    assert entry(train, "--config", str(paths[0]), "--run-dir", str(tmp_path / "run"))[0] == 0
    status, printed = entry(train, "--config", str(paths[1]), "--run-dir", str(tmp_path / "run"))
    assert status == 1
    assert 'started with another configuration: method.augmentation ("off" -> "on")' in printed


def test_another_configuration_is_refused_without_any_checkpoint(entry: Entries, tmp_path: Path) -> None:
    """Neither a run that was killed before its first one, nor a checkpoint of another run, changes that."""
    first, other, config = tmp_path / "first", tmp_path / "other", tmp_path / "c.json"
    write_config(config, method=METHODS["cgan"]["method"], train={"epochs": 12 / 10_000})

    def start(run_dir: Path, *arguments: str) -> tuple[int, str]:
        return entry(train, "--config", str(config), "--run-dir", str(run_dir), *arguments)

    assert start(first)[0] == start(other, "--set", "seed=3")[0] == 0
    shutil.rmtree(first / "checkpoints")
    (first / "environment.json").write_text("{}")
    before = {path.name: path.read_bytes() for path in first.iterdir() if path.is_file()}
    for arguments in (("--set", "seed=3"), ("--set", "seed=3", "--resume", str(other))):
        status, printed = start(first, *arguments)
        assert status == 1
        assert "started with another configuration: seed (0 -> 3)" in printed
        assert {path.name: path.read_bytes() for path in first.iterdir() if path.is_file()} == before
    assert start(first)[0] == 0
    assert len(json.loads((first / "environment.json").read_text())) == 1
