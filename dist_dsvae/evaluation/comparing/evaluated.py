"""Evaluations of runs, read back: <run>/evaluation/<name>.json with the run's configuration and classes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dist_dsvae.config import ExperimentConfig
from dist_dsvae.config.reading import ConfigError, from_tree
from dist_dsvae.core.text import clause, read_json

FORMAT = "dist_dsvae-evaluation/1"


class ComparisonError(ValueError):
    """Runs that cannot be compared; the message names them, says why, and what to do."""


@dataclass(frozen=True)
class RecordedJudge:
    """A network that scored images: ``name`` for people, ``sha256`` of its weights."""

    name: str
    sha256: str

    @property
    def digest(self) -> str:
        """The first 12 digits of the hash."""
        return self.sha256[:12]


@dataclass(frozen=True)
class EvaluatedRun:
    """One run with one evaluation of it.

    path: as given. data: where its shards are. settings: what the figures depend on beside the weights.
    judges: by role, "classifier" and "feature_network"; empty where nothing judged images.
    figures, real: by name; those of the method, and those of real samples under the same judges.
    commonest_class: the share of the test split that guessing that class gets right; None if it is unknown.
    """

    path: Path
    method: str
    data: str
    checkpoint: str
    samples_seen: int
    train_seconds: float
    training_seed: int
    weights: str
    settings: Mapping[str, Any]
    judges: Mapping[str, RecordedJudge]
    figures: Mapping[str, float]
    real: Mapping[str, float]
    config: ExperimentConfig
    classes: tuple[str, ...]
    commonest_class: float | None = None

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def of_points(self) -> bool:
        """Whether the samples are points in the plane, not images."""
        return "coverage" in self.figures


def read_runs(paths: Sequence[Path], name: str) -> list[EvaluatedRun]:
    """Evaluation ``name`` of every run, in the order given.

    Raises ComparisonError if there is no run, one is given twice, or one has no such evaluation or a
    damaged one.
    """
    if not paths:
        raise ComparisonError(
            "There is no run to compare. Give one run directory or more, such as "
            "--compare runs/cifar10 runs/cvae_gan-cifar10."
        )
    seen: dict[Path, Path] = {}
    for path in paths:
        place = path.resolve()
        if place in seen:
            also = "" if seen[place] == path else f", also as {seen[place]}"
            raise ComparisonError(f"{path} is given twice{also}. Give every run once.")
        seen[place] = path
    return [read_run(path, name) for path in paths]


def read_run(path: Path, name: str) -> EvaluatedRun:
    """Evaluation ``name`` of the run at ``path``. Raises ComparisonError as ``read_runs`` does."""
    if not path.is_dir():
        raise ComparisonError(f"There is no run directory {path}. Give one such as runs/quickstart.")
    place = path / "evaluation" / f"{name}.json"
    if not place.is_file():
        raise ComparisonError(_missing(path, name))
    found = _read_json(place, _again(path, name))
    if found.get("format") != FORMAT:
        raise ComparisonError(
            f"{place} is of the format {found.get('format')!r}, but only {FORMAT!r} can be compared. "
            f"{_again(path, name)}"
        )
    dataset = _read_json(path / "dataset.json", "Give a whole run directory.")
    config = _read_config(path / "config.json")
    try:
        run = EvaluatedRun(
            path=path,
            **{key: str(found[key]) for key in ("method", "data", "checkpoint", "weights")},
            samples_seen=int(found["samples_seen"]),
            train_seconds=float(found["train_seconds"]),
            training_seed=int(found["training_seed"]),
            settings=dict(found["settings"]),
            judges={
                role: RecordedJudge(judge["name"], judge["sha256"])
                for role, judge in (found["judges"] or {}).items()
            },
            figures={key: float(value) for key, value in found["figures"].items()},
            real={key: float(value) for key, value in found["real"].items()},
            config=config,
            classes=tuple(dataset["classes"]),
            commonest_class=found.get("commonest_class"),
        )
        int(run.settings["samples"]), int(run.settings["real_samples"]), str(run.settings["data_fingerprint"])
    except KeyError as error:
        raise ComparisonError(f"{place} lacks the key {error}. {_again(path, name)}") from None
    except (AttributeError, TypeError, ValueError) as error:
        raise ComparisonError(f"{place} cannot be used: {clause(error)}. {_again(path, name)}") from None
    return run


def _read_json(place: Path, remedy: str) -> dict[str, Any]:
    try:
        found = read_json(place)
    except OSError as error:
        raise ComparisonError(f"{place} cannot be read: {error.strerror}. {remedy}") from None
    except ValueError as error:
        raise ComparisonError(f"{place} is not valid JSON: {clause(error)}. {remedy}") from None
    if not isinstance(found, dict):
        raise ComparisonError(f"{place} holds no object of keys. {remedy}")
    return found


def _read_config(place: Path) -> ExperimentConfig:
    try:
        return from_tree(ExperimentConfig, _read_json(place, "Give a whole run directory."))
    except ConfigError as error:
        raise ComparisonError(f"{place}, the run's own record, cannot be used: {error}") from None


def _command(path: Path, name: str) -> str:
    return f"dsvae evaluate --run {shlex.quote(str(path))}" + (f" --name {name}" if name != "scores" else "")


def _again(path: Path, name: str) -> str:
    return f"Evaluate the run again:\n    {_command(path, name)}"


def _missing(path: Path, name: str) -> str:
    if not any((path / part).is_dir() for part in ("evaluation", "checkpoints")):
        return (
            f"{path} is not a run directory, so there are no scores of it. Give one such as runs/quickstart."
        )
    others = []
    for place in sorted((path / "evaluation").glob("*.json")):
        try:
            if _read_json(place, "").get("format") == FORMAT:
                others.append(place.stem)
        except ComparisonError:
            continue
    text = f"{path} has no evaluation/{name}.json. Make it with\n    {_command(path, name)}"
    if others:
        text += f"\nor choose with --name what it has: {', '.join(others)}."
    return text
