"""--init-from with other classes: what is taken, to the bit, what begins anew, and how it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dist_dsvae.commands import export, train
from dist_dsvae.config.reading import load_config
from dist_dsvae.core.types import ImageShape
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.engine.trainer import Trainer
from tests.distributed.launching import differing_tensors, write_config
from tests.unit.engine.making import write_images
from tests.unit.engine.test_every_method import METHODS, Entries, entry

__all__ = ["entry"]

THERE, HERE = ("ant", "bee", "cow"), ("ant", "cat", "cow", "dog")
KNOWN = {0: 0, 2: 2}  # place here -> there
GREY = ImageShape(1, 32, 32)
# Tensors with an axis of classes: that axis, and where the classes begin along it
CLASS_AXES: dict[str, dict[str, tuple[int, int]]] = {
    "dsvae": {
        "mixture_prior.mean": (0, 0),
        "mixture_prior.log_variance": (0, 0),
        "latent_classifier.head.weight": (0, 0),
        "latent_classifier.head.bias": (0, 0),
        "discriminator.embedding.parametrizations.weight.original": (0, 0),
    },
    "cvae": {"encoder_u.trunk.layers.0.0.weight": (1, 1), "decoder.layers.0.0.weight": (1, 0)},
    "cgan": {
        "decoder.layers.0.0.weight": (1, 0),
        "discriminator.embedding.parametrizations.weight.original": (0, 0),
    },
    "cvae_gan": {
        "encoder_u.trunk.layers.0.0.weight": (1, 1),
        "decoder.layers.0.0.weight": (1, 0),
        "discriminator.embedding.parametrizations.weight.original": (0, 0),
    },
    "classifier": {"network.head.weight": (0, 0), "network.head.bias": (0, 0)},
}
EMBEDDING = "discriminator.embedding.parametrizations.weight"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Path]:
    """Classes -> a split of them."""
    folder = tmp_path_factory.mktemp("shards")
    splits = {classes: folder / "-".join(classes) for classes in (THERE, HERE, ("ant", "cow"), ("x", "y"))}
    for classes, path in splits.items():
        write_images(path, classes, 12, GREY)
    return splits


def config_of(folder: Path, method: str, data: Path, iterations: int, **sections: Any) -> Path:
    batches = 4 if method == "dsvae" else 1
    num_samples = 12 * len(json.loads((data / "manifest.json").read_text())["classes"])
    averages = {"ema_half_life_updates": 2.0, "ema_networks": "all"}
    return write_config(
        folder / f"{method}-{data.name}-{iterations}.json",
        **{
            "data": {"train": str(data), "batch_size": 6},
            "train": {"epochs": iterations * batches * 6 / num_samples, "evaluate_at_end": False} | averages,
            **{section: value for section, value in METHODS[method].items() if section != "data"},
            **sections,
        },
    )


def begun(config: Path, run_dir: Path, *overrides: str) -> Trainer:
    """A run that is about to make its first update."""
    read = load_config(config, list(overrides))
    return Trainer(read, run_dir, "auto", Runtime(read.train))


@pytest.fixture(scope="module")
def former(shards: dict[tuple[str, ...], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Method -> a run of two iterations."""
    folder = tmp_path_factory.mktemp("former")
    runs = {}
    for method in CLASS_AXES:
        runs[method] = folder / method
        trainer = begun(config_of(folder, method, shards[THERE], 2), runs[method])
        trainer.train()
    return runs


def tensors_of(trainer: Trainer) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in trainer.method.state_dict().items()}


def check_taken(
    axes: dict[str, tuple[int, int]],
    got: dict[str, Tensor],
    there: dict[str, Tensor],
    fresh: dict[str, Tensor],
) -> None:
    """Everything equals ``there``, but what belongs to classes that it does not know equals ``fresh``."""
    assert got.keys() == there.keys() == fresh.keys()
    for name, tensor in got.items():
        if name.startswith(f"{EMBEDDING}.0."):
            continue  # of the spectral norm: below
        if name not in axes:
            assert torch.equal(tensor, there[name]), name
            continue
        axis, first = axes[name]
        rows, old, new = (t.movedim(axis, 0) for t in (tensor, there[name], fresh[name]))
        assert torch.equal(rows[:first], old[:first]), name
        assert torch.equal(rows[first + len(HERE) :], old[first + len(THERE) :]), name
        for place in range(len(HERE)):
            expected = old[first + KNOWN[place]] if place in KNOWN else new[first + place]
            assert torch.equal(rows[first + place], expected), (name, place)
    if f"{EMBEDDING}.original" in got:
        weight, u, v = (got[f"{EMBEDDING}.{end}"] for end in ("original", "0._u", "0._v"))
        assert u @ weight @ v == pytest.approx(torch.linalg.matrix_norm(weight, 2).item(), rel=0.02)


@pytest.mark.parametrize("method", CLASS_AXES)
def test_everything_is_taken_but_what_belongs_to_other_classes(
    method: str, former: dict[str, Path], shards: dict[tuple[str, ...], Path], tmp_path: Path
) -> None:
    config = config_of(tmp_path, method, shards[HERE], 1)
    there = begun(config_of(tmp_path, method, shards[THERE], 2), former[method])  # resumes at its end
    fresh = begun(config, tmp_path / "fresh")
    trainer = begun(config, tmp_path / "run", f"init_from={former[method]}")
    axes = CLASS_AXES[method]
    check_taken(axes, tensors_of(trainer), tensors_of(there), tensors_of(fresh))
    assert trainer.ema is not None
    assert there.ema is not None
    assert fresh.ema is not None
    prefix = "" if len(trainer.ema.networks) > 1 else f"{trainer.ema.networks[0]}."
    averages = [
        {f"{prefix}{name}": tensor for name, tensor in ema.averaged.items()}
        for ema in (trainer.ema, there.ema, fresh.ema)
    ]
    check_taken({name: axis for name, axis in axes.items() if name in averages[0]}, *averages)
    for trained in (there, trainer, fresh):
        trained.stop_requests.close()


def test_from_a_checkpoint_and_from_an_exported_model(
    former: dict[str, Path], shards: dict[tuple[str, ...], Path], entry: Entries, tmp_path: Path
) -> None:
    config = config_of(tmp_path, "dsvae", shards[HERE], 1)
    model = tmp_path / "model"
    status, printed = entry(export, "--run", str(former["dsvae"]), "--weights", "raw", "--out", str(model))
    assert status == 0, printed
    checkpoint = former["dsvae"] / "checkpoints/step-00000002"
    places = {"run": former["dsvae"], "checkpoint": checkpoint, "model": model}
    taken = {
        name: begun(config, tmp_path / f"of-{name}", f"init_from={place}", "train.ema_half_life_updates=0")
        for name, place in places.items()
    }
    tensors = {name: tensors_of(trainer) for name, trainer in taken.items()}
    parameters = {name for name, _ in taken["run"].method.named_parameters()}
    for name, tensor in tensors["run"].items():
        assert torch.equal(tensor, tensors["checkpoint"][name]), name
        if name in parameters:  # an export has batch norms' statistics measured anew
            assert torch.equal(tensor, tensors["model"][name]), name
    for trainer in taken.values():
        trainer.stop_requests.close()


def test_a_model_of_the_same_classes_is_taken_whole(
    former: dict[str, Path], shards: dict[tuple[str, ...], Path], entry: Entries, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    entry(export, "--run", str(former["dsvae"]), "--weights", "raw", "--out", str(model))
    there = begun(config_of(tmp_path, "dsvae", shards[THERE], 2), former["dsvae"])
    trainer = begun(config_of(tmp_path, "dsvae", shards[THERE], 1), tmp_path / "run", f"init_from={model}")
    assert trainer.initial is not None
    assert trainer.initial.sentence == f"Starts from the weights of {model}."
    expected = dict(there.method.named_parameters())
    for name, parameter in trainer.method.named_parameters():
        assert torch.equal(parameter, expected[name]), name
    assert trainer.ema is not None
    for name, average in trainer.ema.averaged.items():
        assert torch.equal(average, trainer.method.state_dict()[name]), name
    for trained in (there, trainer):
        trained.stop_requests.close()


TAKEN = "takes encoder_s, encoder_u, decoder, latent_classifier, discriminator"
OF_CLASSES = "latent_classifier.head, discriminator.embedding, mixture_prior"


@pytest.mark.parametrize(
    ("classes", "rest"),
    [
        (HERE, f"what belongs to classes ({OF_CLASSES}) by name for 2 of 4, anew for the others."),
        (("ant", "cow"), f"what belongs to classes ({OF_CLASSES}) by their names."),
        (("x", "y"), f"what belongs to classes begins anew: {OF_CLASSES}."),
    ],
)
def test_a_line_says_what_is_taken(
    classes: tuple[str, ...],
    rest: str,
    former: dict[str, Path],
    shards: dict[tuple[str, ...], Path],
    tmp_path: Path,
) -> None:
    config = config_of(tmp_path, "dsvae", shards[classes], 1)
    trainer = begun(config, tmp_path / "run", f"init_from={former['dsvae']}")
    trainer.stop_requests.close()
    checkpoint = former["dsvae"] / "checkpoints/step-00000002"
    assert trainer.initial == (checkpoint, f"Starts from the weights of {checkpoint}: {TAKEN}; {rest}")


def test_a_fine_tuned_run_resumes_exactly(
    former: dict[str, Path],
    shards: dict[tuple[str, ...], Path],
    entry: Entries,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    origin = ("--init-from", str(former["dsvae"]))
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    first, both = (config_of(tmp_path, "dsvae", shards[HERE], n) for n in (1, 2))
    status, printed = entry(train, "--config", str(both), "--run-dir", str(whole), *origin)
    assert status == 0, printed
    assert f"Starts from the weights of {former['dsvae']}/checkpoints/step-00000002: {TAKEN}; what" in printed
    for config in (first, both):
        status, printed = entry(train, "--config", str(config), "--run-dir", str(halves), *origin)
        assert status == 0, printed
    assert "Resumed" in printed
    assert "Starts from" not in printed
    assert differing_tensors(halves, whole, 2) == []
    (started,) = json.loads((whole / "environment.json").read_text())
    assert started["init_from"].endswith("step-00000002")

    again = ("--config", str(both), "--run-dir", str(halves))
    for other in (("--init-from", str(former["cvae"])), ()):
        status, printed = entry(train, *again, *other)
        assert status == 0, printed
        assert json.loads((halves / "config.json").read_text())["init_from"] == str(former["dsvae"])
        assert (f"it began from {former['dsvae']}" in caplog.text) == bool(other)
        caplog.clear()


def test_samples_of_another_size_are_refused(former: dict[str, Path], entry: Entries, tmp_path: Path) -> None:
    write_images(tmp_path / "large", HERE, 6, ImageShape(1, 64, 64))
    config = config_of(tmp_path, "dsvae", tmp_path / "large", 1, model={"architecture": "small64"})
    status, printed = entry(
        train,
        "--config",
        str(config),
        "--run-dir",
        str(tmp_path / "run"),
        "--init-from",
        str(former["dsvae"]),
    )
    assert status == 1
    assert "was trained on 1 x 32 x 32 samples, but data.train has 1 x 64 x 64 samples" in printed
