"""Which evaluations of runs are missing, and the judge that they need."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dist_dsvae.commands.reproduce.jobs import Job
from dist_dsvae.commands.reproduce.planned_runs import PlannedRun
from dist_dsvae.config import DSVAEConfig, EvaluationConfig, ExperimentConfig
from dist_dsvae.config.reading import ConfigError, differing_keys, load_config
from dist_dsvae.core.files import sha256_of
from dist_dsvae.core.shipped import at_hand, config_names
from dist_dsvae.core.text import read_json
from dist_dsvae.evaluation.identity import IDENTITY_MEANS
from dist_dsvae.evaluation.judging.own_classifier import judge_file
from dist_dsvae.evaluation.probes import PROBE_NOISE
from dist_dsvae.methods.published import WEIGHTS_FILE
from dist_dsvae.runs.checkpoint import is_described_by
from dist_dsvae.runs.checkpoint_folder import step_of
from dist_dsvae.runs.run_directory import read_record

SCORES = "scores"
_ROLES = {  # of the judges, by the keys that place them
    "classifier": "classifier",
    "fid_network": "feature_network",
    "identity_network": "identity_network",
}


@dataclass(frozen=True)
class WantedEvaluation:
    """An evaluation of a run: its name, and its settings."""

    run: PlannedRun
    name: str
    settings: EvaluationConfig

    @property
    def temperature_zs(self) -> float | None:
        """None where the method has no zs."""
        return self.settings.temperature_zs if has_zs(self.run) else None

    @property
    def temperature_zu(self) -> float:
        """Of zu, or of the one code."""
        return self.settings.temperature_zu

    def is_there(self) -> bool:
        """Whether the newest checkpoint was evaluated with these settings and these judges."""
        wanted = asdict(self.settings)
        try:
            found = read_json(self.run.directory / "evaluation" / f"{self.name}.json")
            judges = found["judges"] or {}
            newest = self.run.newest()
            if newest is None or not is_described_by(newest, found) or found["asked"] != wanted:
                return False
            if not self._means_the_same(found["settings"]):
                return False
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return all(_is_judge(wanted[key], judges.get(role)) for key, role in _ROLES.items())

    def _means_the_same(self, settings: Mapping[str, Any]) -> bool:
        """Whether an evaluation's figures are what this version calls so, and of these shards."""
        wanted = {"data_fingerprint": self.run.train.fingerprint, "probe_noise": PROBE_NOISE}
        if self.run.test is not None:
            wanted["test_fingerprint"] = self.run.test.fingerprint
        if self.settings.identity_network:
            wanted["identity_means"] = IDENTITY_MEANS
        return all(settings.get(key) == value for key, value in wanted.items())

    def job(self) -> Job:
        """What makes it, unless another command has by then."""
        name = self.run.directory.name if self.name == SCORES else f"{self.run.directory.name}-{self.name}"
        log = self.run.directory.with_name(f"{name}.log")
        title = f"{self.run.title}: evaluating ({self.name})"
        return Job(title, self.arguments(), log, lambda: None if self.is_there() else self.arguments())

    def arguments(self, *, by_step: bool = True) -> tuple[str, ...]:
        """Of ``dsvae evaluate``: with what the run recorded otherwise. by_step: names the checkpoint."""
        record = read_record(self.run.directory)
        assert record is not None, f"{self.run.directory} has not been trained"
        recorded = asdict(record.evaluation)
        changes = [
            f"evaluation.{name}={json.dumps(value)}"
            for name, value in asdict(self.settings).items()
            if recorded[name] != value
        ]
        options = [word for change in changes for word in ("--set", change)]
        newest = self.run.newest()
        # By its name: without, one before it would do for a damaged one
        step = ("--step", str(step_of(newest))) if newest is not None and by_step else ()
        return ("evaluate", "--run", str(self.run.directory), "--name", self.name, *step, *options)


def _is_judge(place: str | None, found: Any) -> bool:
    """Whether the network that is at ``place`` now made an evaluation that tells ``found`` of its judge."""
    if place is None or found is None:
        return True  # the same was asked for, so nothing was, or data that it does not judge
    _, path = judge_file(place)
    path = path / WEIGHTS_FILE if path.is_dir() else path
    # one that has gone since says nothing against what it judged
    return not path.is_file() or sha256_of(path) == found.get("sha256")


def has_zs(run: PlannedRun) -> bool:
    """Whether the method has a code of the label, with a temperature of its own."""
    return isinstance(run.config.method, DSVAEConfig)


def scores_of(run: PlannedRun) -> WantedEvaluation:
    """The evaluation that tables show."""
    return WantedEvaluation(run, SCORES, run.config.evaluation)


def at_temperatures(run: PlannedRun, temperatures: Sequence[tuple[float, float]]) -> list[WantedEvaluation]:
    """Those of the trade-off curve, at (zs, zu) each; of pairs a method with one code has none.

    The first is the one that tables show.
    """
    own = run.config.evaluation.temperature_zs, run.config.evaluation.temperature_zu
    found = {}
    for asked_zs, zu in [own, *temperatures]:
        zs = asked_zs
        if not has_zs(run) and (asked_zs, zu) != own:
            if asked_zs != zu:
                continue
            zs = own[0] if zu == own[1] else zu  # of no account: that of the same evaluation
        name = SCORES if (zs, zu) == own else f"temperature-{_short(zs)}-{_short(zu)}"
        settings = replace(run.config.evaluation, temperature_zs=zs, temperature_zu=zu)
        found[name] = WantedEvaluation(run, name, settings)
    return list(found.values())


def _short(temperature: float) -> str:
    """With all of its digits: two that are not equal have evaluations of their own."""
    return repr(float(temperature)).removesuffix(".0")


# The judge


def judge_jobs(runs: Sequence[PlannedRun], overrides: Sequence[str], *, also_made: bool = False) -> list[Job]:
    """Training, then exporting, of each classifier that runs name, that a config here makes, and is missing.

    overrides: of its configuration. also_made: those that are there as well. Raises ConfigError, also where
    one that is there was trained otherwise: the commands beside the table would tell of another judge.
    """
    jobs = []
    for place in dict.fromkeys(run.config.evaluation.classifier for run in runs):
        if place is None or (at_hand(place).exists() and not also_made):
            continue
        directory = Path(place).parent
        for name in config_names():
            if name.startswith("classifier/") and load_config(Path(name)).run_dir == str(directory):
                # what is wrong with them is said before anything starts
                asked = load_config(Path(name), overrides)
                if at_hand(place).exists():
                    _check_trained_so(directory, asked)
                changes = [word for change in overrides for word in ("--set", change)]
                log = directory.with_name(f"{directory.name}.log")
                train = ("train", name, "--run-dir", str(directory), *changes)
                export = ("export", "--run", str(directory), "--out", place)
                jobs += [Job(f"The judge of {name}: training", train, log)]
                jobs += [Job(f"The judge of {name}: exporting", export, log)]
    return jobs


def check_judges(runs: Sequence[PlannedRun], jobs: Sequence[Job]) -> None:
    """Raise ConfigError for a judge that is not there and that none of ``jobs`` makes."""
    made = {job.arguments[-1] for job in jobs}
    for run in runs:
        for key in _ROLES:
            place = getattr(run.config.evaluation, key)
            if place is None or place in made or judge_file(place)[1].exists():
                continue
            if not scores_of(run).is_there():
                raise ConfigError(
                    f"evaluation.{key} is {place}, and there is no such file or folder. Give one that is "
                    "there, or train it first."
                )


def _check_trained_so(directory: Path, asked: ExperimentConfig) -> None:
    """Raises ConfigError if the run in ``directory`` has a record, and trained otherwise than ``asked``."""
    record = read_record(directory)
    if record is None:
        return
    chosen = replace(asked.data, shuffle_window_shards=record.data.shuffle_window_shards)  # by the data
    differing = differing_keys(record, replace(asked, data=chosen))
    if record.train.epochs != asked.train.epochs:  # free, as a run may be made longer
        differing.append(f"train.epochs ({record.train.epochs:g} -> {asked.train.epochs:g})")
    if differing:
        raise ConfigError(
            f"{directory} holds the judge already, trained otherwise: {'; '.join(differing)}. Say with "
            "--judge-set how it was trained, or move that folder away to have it trained anew."
        )
