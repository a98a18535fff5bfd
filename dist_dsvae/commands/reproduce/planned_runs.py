"""Which runs an experiment needs: a data set's methods and seeds under one budget, and what each still lacks.

configs/NAME.json, configs/paper/NAME.json, configs/baselines/METHOD-NAME.json  --budget--> PlannedRun
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from dist_dsvae.config import ExperimentConfig
from dist_dsvae.config.reading import ConfigError, load_config
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.shipped import config_names
from dist_dsvae.core.text import read_json
from dist_dsvae.data.open_split import open_split
from dist_dsvae.data.open_splits import Splits, open_splits
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.engine.choices import with_choices_made
from dist_dsvae.engine.iteration.streams import Drawn
from dist_dsvae.methods.choose import sketch_method
from dist_dsvae.runs.auto_augmentation import without_auto
from dist_dsvae.runs.checkpoint import read_marker
from dist_dsvae.runs.checkpoint_folder import complete_checkpoints
from dist_dsvae.runs.marker import CheckpointError
from dist_dsvae.runs.run_directory import check_same_experiment, read_record

# The configuration of each method, by the data set's name, and what tables call it
CONFIGS = {
    "dsvae": "{}",
    "paper": "paper/{}",
    "cvae": "baselines/cvae-{}",
    "cgan": "baselines/cgan-{}",
    "cvae_gan": "baselines/cvae_gan-{}",
}
LABELS = {
    "dsvae": "dsvae",
    "paper": "dsvae, Algorithm 1",
    "cvae": "cVAE",
    "cgan": "cGAN",
    "cvae_gan": "cVAE-GAN",
}
_OF_THE_BUDGET = ("data.", "train.")  # keys, which decide how many iterations a config asks for
_NO_END_EPOCHS = 1e9  # where the clock ends a run
# A run that has ended by the clock has trained at least this share of its seconds: what it did after its last
# iteration was not counted
_SHARE_OF_SECONDS = 0.95
_ITERATIONS_LATE = 3  # at most that a run goes on after its seconds: the clock is looked at after each


@dataclass(frozen=True)
class Budget:
    """What each run is given. iterations: None takes the fewest that a config of the data set asks for."""

    kind: Literal["updates", "minutes", "paper"]
    iterations: int | None = None
    minutes: float | None = None

    def changes(self, epochs: float) -> tuple[str, ...]:
        """Of a config by ``--set``. epochs: in which the method makes the iterations."""
        if self.kind == "minutes":
            assert self.minutes is not None, "a budget of minutes says how many"
            return (f"train.epochs={_NO_END_EPOCHS!r}", f"train.max_seconds={60 * self.minutes!r}")
        return (f"train.epochs={epochs!r}", "train.max_seconds=0") if self.kind == "updates" else ()

    def words(self, iterations: int) -> str:
        """For the table. iterations: of the runs, where that is their budget."""
        if self.kind == "updates":
            return f"{iterations:,} iterations, with an update of the decoder each"
        return f"{self.minutes:g} minutes of training" if self.kind == "minutes" else "as the configs stand"


@dataclass(frozen=True)
class PlannedRun:
    """A method with a seed.

    config_name: as ``dsvae train`` takes it. config: as the run would record it. changes: of the config by
    ``--set``, those of the person first, then the seed's and the budget's. samples_per_iteration: drawn in
    all its batches. iterations: after which it ends. train, test: its data. fingerprint: of what it draws.
    """

    data: str
    method: str
    seed: int
    directory: Path
    config_name: str
    config: ExperimentConfig
    changes: tuple[str, ...]
    samples_per_iteration: int
    iterations: int
    train: Manifest
    test: Manifest | None
    fingerprint: str

    @property
    def title(self) -> str:
        return f"{self.data}: {LABELS[self.method]}, seed {self.seed}"

    @property
    def log(self) -> Path:
        return self.directory.with_name(f"{self.directory.name}.log")

    def newest(self) -> Path | None:
        """Its newest checkpoint whose record can be read: training would go on from there, too."""
        for path in reversed(complete_checkpoints(self.directory / "checkpoints")):
            try:
                read_marker(path)
            except CheckpointError:
                continue
            return path
        return None

    def progress(self) -> tuple[int, float]:
        """Iterations and seconds that it has trained, by its newest checkpoint."""
        newest = self.newest()
        if newest is None:
            return 0, 0.0
        values = read_marker(newest)
        return values["samples_seen"] // self.samples_per_iteration, float(values["train_seconds"])

    def has_ended(self) -> bool:
        """Whether the budget is used up.

        Raises ConfigError if the run there went beyond it, or is of another configuration or other data.
        """
        check_same_experiment(self.directory, self.config, "another --runs")
        newest = self.newest()
        if newest is None:
            return False
        if read_marker(newest)["data_fingerprint"] != self.fingerprint:
            raise ConfigError(
                f"{self.directory} was trained on other shards than those that are in "
                f"{self.config.data.train} now. Give those, or another folder with --runs."
            )
        iterations, seconds = self.progress()
        limit = self.config.train.max_seconds
        late = _ITERATIONS_LATE * seconds / max(1, iterations)
        if iterations > self.iterations or 0 < limit < seconds * _SHARE_OF_SECONDS - late:
            asked = f"{limit:,.0f} seconds" if limit else f"{self.iterations:,} iterations"
            raise ConfigError(
                f"{self.directory} was trained for {iterations:,} iterations in {seconds:,.0f} seconds; now "
                f"{asked} are asked for. Give a budget as large, or another folder with --runs."
            )
        by_the_clock = 0 < limit * _SHARE_OF_SECONDS <= seconds and self._ended_itself(newest)
        if iterations < self.iterations and not by_the_clock:
            return False
        self._check_as_asked()
        return True

    def _check_as_asked(self) -> None:
        """Raise ConfigError where a table would tell of another test split or precision than the run has."""
        record = read_record(self.directory)
        assert record is not None, f"{self.directory} has checkpoints and no record"
        had, asked = record.data.test, self.config.data.test
        if had != asked and (None in (had, asked) or not self._is_the_test_split(str(had))):
            raise ConfigError(
                f"{self.directory} is evaluated on data.test {had}; now {asked} is asked for. Leave that "
                "out, or give another folder with --runs."
            )
        precision = self.config.train.mixed_precision
        if precision != "auto" and (others := sorted(self._precisions() - {precision})):
            raise ConfigError(
                f"{self.directory} was trained with train.mixed_precision {' and '.join(others)}; now "
                f"{precision} is asked for. Leave that out, or give another folder with --runs."
            )

    def _is_the_test_split(self, place: str) -> bool:
        """One that is not there any more is missed by the evaluation."""
        try:
            there = open_split(place, self.config.data)
        except DataError:
            return True
        return self.test is not None and there.fingerprint == self.test.fingerprint

    def _precisions(self) -> set[str]:
        """In which it was trained, as far as that is on record."""
        try:
            return {str(start["mixed_precision"]) for start in self.starts()}
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return set()

    def starts(self) -> list[Mapping[str, Any]]:
        """Records of its starts, but for those that only found it at its end; as the file has them."""
        starts: list[Mapping[str, Any]] = read_json(self.directory / "environment.json")
        seen = self.progress()[0] * self.samples_per_iteration
        return [start for start in starts if start.get("samples_seen", 0) < seen] or starts[-1:]

    def _ended_itself(self, newest: Path) -> bool:
        """Whether training went on to the figures that it leaves at its end."""
        try:
            summary = read_json(self.directory / "evaluation" / "summary.json")
        except (OSError, ValueError):
            return False
        seen = summary.get("samples_seen") if isinstance(summary, dict) else None
        return bool(seen == read_marker(newest)["samples_seen"])

    def arguments(self, *, go_on: bool = True) -> tuple[str, ...]:
        """Of ``dsvae train``. go_on: what the run has trained counts towards the seconds of its budget."""
        changes = list(self.changes)
        seconds = self.progress()[1] if go_on else 0.0
        if self.config.train.max_seconds and seconds:
            left = max(1.0, self.config.train.max_seconds - seconds)
            changes.append(f"train.max_seconds={left:.1f}")
        options = [word for change in changes for word in ("--set", change)]
        return ("train", self.config_name, "--run-dir", str(self.directory), *options)


def plan_runs(
    data: str,
    methods: Sequence[str] | None,
    seeds: Sequence[int],
    budget: Budget,
    runs: Path,
    overrides: Iterable[str],
) -> list[PlannedRun]:
    """All runs of a data set, by method, then by seed.

    methods: None takes all that have a configuration, ``paper`` only where it is another training than dsvae.
    runs: the folder for them.
    Raises ConfigError or DataError with a sentence for what is unknown or missing.
    """
    available = configs_of(data)
    for method in methods or ():
        if method not in available:
            raise ConfigError(
                f"{data} has no configuration of the method {method} (configs/{CONFIGS[method].format(data)}"
                f".json). It has {', '.join(available)}."
            )
    overrides = tuple(overrides)
    for_all = tuple(change for change in overrides if change.startswith(_OF_THE_BUDGET))
    configs = {  # of all methods, as the budget is that of the shortest; others may lack what else is changed
        method: load_config(Path(name), overrides if method in (methods or available) else for_all)
        for method, name in available.items()
    }
    opened = {each: open_splits(each) for each in {config.data for config in configs.values()}}
    splits = {method: opened[config.data] for method, config in configs.items()}
    drawn = {method: _drawn(config, splits[method]) for method, config in configs.items()}
    at_once = {method: len(drawn[method].order) * configs[method].data.batch_size for method in configs}
    asked = {
        method: math.ceil(config.train.epochs * drawn[method].num_samples / at_once[method])
        for method, config in configs.items()
    }
    fewest = budget.iterations or min(asked.values())
    planned = []
    for method in methods or _without_repetition(configs, splits):
        train, test = splits[method][:2]
        epoch = drawn[method].num_samples
        by_budget = budget.changes(_epochs(fewest, at_once[method], epoch))
        for seed in seeds:
            changes = (*overrides, f"seed={seed}", *by_budget)
            directory = runs / data / f"{method}-seed{seed}"
            config = load_config(Path(available[method]), changes)
            iterations = math.ceil(config.train.epochs * epoch / at_once[method])
            planned.append(
                PlannedRun(
                    data,
                    method,
                    seed,
                    directory,
                    available[method],
                    with_choices_made(config, train, _record_of_trained(directory)),
                    changes,
                    at_once[method],
                    iterations,
                    train,
                    test,
                    drawn[method].fingerprint,
                )
            )
    return planned


def _without_repetition(
    configs: Mapping[str, ExperimentConfig], splits: Mapping[str, Splits]
) -> Sequence[str]:
    """The methods; without ``paper`` where its keys are dsvae's once "auto" is resolved."""
    resolved = {}
    for method, config in configs.items():
        train = splits[method].train
        resolved[method] = replace(  # only the name of a configuration tells its command and directory apart
            without_auto(config, train.shape, train.num_samples, None), command="", run_dir=""
        )
    is_repeated = resolved.get("paper") == resolved["dsvae"]
    return [method for method in configs if method != "paper" or not is_repeated]


def _record_of_trained(directory: Path) -> ExperimentConfig | None:
    """Of a run that there is something to resume of."""
    return read_record(directory) if complete_checkpoints(directory / "checkpoints") else None


def configs_of(data: str) -> dict[str, str]:
    """The configurations of a data set by method. Raises ConfigError for one that has none."""
    names = config_names()
    found = {method: name.format(data) for method, name in CONFIGS.items() if name.format(data) in names}
    known = [name for name in names if "/" not in name]
    if data not in known:
        near = difflib.get_close_matches(data, known, 1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"There is no experiment {data!r}. {hint}There are {', '.join(known)}.")
    return found


def _drawn(config: ExperimentConfig, splits: Splits) -> Drawn:
    shape, num_classes = splits.train.shape, splits.train.num_classes
    return Drawn(sketch_method(config.method, config.model, shape, num_classes), splits)


def _epochs(iterations: int, samples_per_iteration: int, num_samples: int) -> float:
    """After which training has made just so many iterations: it rounds up what is left of one."""
    epochs = iterations * samples_per_iteration / num_samples
    while math.ceil(epochs * num_samples / samples_per_iteration) > iterations:
        epochs = math.nextafter(epochs, 0)
    return epochs
