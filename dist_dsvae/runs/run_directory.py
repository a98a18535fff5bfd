"""The run directory: config.json, environment.json, and which checkpoint to go on from.

runs/<name>/  config.json   the resolved configuration, defaults included
              dataset.json  what the models need to know of the data: shape, classes, how faces were cut
              environment.json   one entry per start: versions (null: not installed), git, hardware, processes
              lock.json     while a job trains (``run_lock``)
              checkpoints/  samples/  metrics.jsonl  evaluation/
              tensorboard/  wandb/  mlflow/  trackers.json   of trackers (``engine.reporting.trackers``)
              profile/      of train.profile
              statistics/   of batch norm, by whoever draws from a checkpoint (``statistics_file``)
"""

from __future__ import annotations

import json
import logging
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dist_dsvae.config import ExperimentConfig
from dist_dsvae.config.reading import ConfigError, differing_keys, from_tree, to_json
from dist_dsvae.core import distributed
from dist_dsvae.core.faces.crop_record import RECORD_KEY
from dist_dsvae.core.files import write_atomically
from dist_dsvae.core.text import read_json, read_text
from dist_dsvae.core.versions import version_of
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.runs.auto_augmentation import as_trained
from dist_dsvae.runs.checkpoint import verify
from dist_dsvae.runs.checkpoint_folder import complete_checkpoints, set_back
from dist_dsvae.runs.marker import MARKER, CheckpointError, UnreadableCheckpointError

logger = logging.getLogger(__name__)

# what a run writes besides its checkpoints; config.json comes first
_WRITTEN = (
    "dataset.json",
    "environment.json",
    "metrics.jsonl",
    "tensorboard",
    "wandb",
    "mlflow",
    "trackers.json",
    "profile",
    "samples",
    "evaluation",
    "statistics",
)
_RECORDED_PACKAGES = (
    "dist_dsvae",
    "torch",
    "torchvision",
    "accelerate",
    "webdataset",
    "numpy",
    "pillow",
    "simplejpeg",
)


def checkpoint_to_resume(run_dir: Path, resume: str) -> Path | None:
    """The checkpoint to go on from, the same on all ranks and sound; None for a fresh start.

    resume: "auto" (the newest undamaged one, if any), "never", or a path to a checkpoint or a run.
    Raises CheckpointError where the choice cannot be had, and where the newest one cannot be read: it may
    be sound. Called by all ranks.
    """
    candidates = distributed.from_main(lambda: _candidates(run_dir, resume))
    for candidate in candidates:
        try:
            verify(candidate)
        except CheckpointError as error:
            if resume != "auto" or isinstance(error, UnreadableCheckpointError):
                raise
            if distributed.is_main():
                logger.warning("%s Trying the checkpoint before it.", error)
        else:
            return candidate
    if candidates:
        raise CheckpointError(
            f"None of the {len(candidates)} checkpoints in {run_dir} is sound. Restore one from a copy, or "
            "remove them to start again."
        )
    return None


def _candidates(run_dir: Path, resume: str) -> list[Path]:
    """Checkpoints that would do, best first."""
    _check_ours(run_dir)
    existing = complete_checkpoints(run_dir / "checkpoints")
    # A cluster or launcher that starts a job again gives it the same words, which were for its first start
    if resume == "auto" or (existing and _is_started_again()):
        return existing[::-1]
    if resume == "never":
        if existing:
            raise CheckpointError(
                f"--resume never was given, but {run_dir} already holds checkpoints (up to "
                f"{existing[-1].name}). Choose another --run-dir, remove that one, or use --resume auto."
            )
        return []
    path = Path(resume)
    inside = complete_checkpoints(path / "checkpoints") or complete_checkpoints(path)
    chosen = [path] if (path / MARKER).is_file() else inside[-1:]
    if not chosen:
        raise CheckpointError(
            f"--resume {resume}: there is no complete checkpoint. Give a folder such as "
            "runs/NAME/checkpoints/step-00001000, a run directory, auto or never."
        )
    if existing and chosen[0].resolve() not in [checkpoint.resolve() for checkpoint in existing]:
        raise CheckpointError(
            f"{run_dir} already holds checkpoints of its own, and {chosen[0]} is another run's. Go on from "
            "its own with --resume auto, or choose another --run-dir to start from that one there."
        )
    return chosen


def _is_started_again() -> bool:
    """By SLURM, after a requeue, or by torchrun, after a failure."""
    counts = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
    return any(os.environ.get(name, "0") not in ("", "0") for name in counts)


def _check_ours(run_dir: Path) -> None:
    """Raise CheckpointError if training in ``run_dir`` would replace files that no run wrote."""
    if run_dir.exists() and not run_dir.is_dir():
        raise CheckpointError(f"{run_dir} is a file, so no run can live there. Choose another --run-dir.")
    try:
        if read_record(run_dir) is not None:
            if _is_written_by_a_run(run_dir):
                return
            raise CheckpointError(
                f"{run_dir} holds a config.json that no run wrote, and a run would replace it. Choose "
                "another --run-dir, or move that file away."
            )
    except ConfigError as error:
        raise CheckpointError(f"{error} Choose another --run-dir.") from None
    taken = [name for name in _WRITTEN if (run_dir / name).exists()]
    if taken:
        raise CheckpointError(
            f"{run_dir} is no run's directory (it has no config.json), but holds {', '.join(taken)}, which a "
            "run would replace. Choose another --run-dir, or move them away."
        )


def _is_written_by_a_run(run_dir: Path) -> bool:
    """Whether config.json is a run's: with others beside it, or complete as a killed start leaves it."""
    path = run_dir / "config.json"
    if any((run_dir / name).exists() for name in ("checkpoints", "dataset.json", "environment.json")):
        return True
    return read_text(path) == to_json(from_tree(ExperimentConfig, read_json(path)))


def take_over(run_dir: Path, chosen: Path, step: int) -> None:
    """Make ``run_dir`` the run that goes on from checkpoint ``chosen``. Rank 0 only.

    An older checkpoint of the same run sets it back: later ones are moved aside.
    """
    checkpoints = run_dir / "checkpoints"
    if chosen.parent.resolve() == checkpoints.resolve():
        set_back(checkpoints, step)


def read_record(run_dir: Path) -> ExperimentConfig | None:
    """The configuration that a run recorded, as it trained; None if there is no record.

    Raises ConfigError if there is one that cannot be used.
    """
    path = run_dir / "config.json"
    if not path.is_file():
        return None
    try:
        return as_trained(from_tree(ExperimentConfig, read_json(path)))
    except ValueError as error:
        raise ConfigError(f"{path}, the run's own record, cannot be used: {error}") from None


def check_same_experiment(
    run_dir: Path, config: ExperimentConfig, elsewhere: str = "another --run-dir"
) -> None:
    """Raise ConfigError if the run directory's config differs in what is computed.

    elsewhere: how the command that asks names another place for a run.
    """
    record = read_record(run_dir)
    differing = [] if record is None else differing_keys(record, config)
    if differing:
        raise ConfigError(
            f"{run_dir} was started with another configuration: {'; '.join(differing)}. "
            f"Resume with the same values, or start a new run with {elsewhere}."
        )


def record_start(
    run_dir: Path,
    config: ExperimentConfig,
    train: Manifest,
    machine: Mapping[str, Any],
    samples_seen: int,
    initial: Path | None,
) -> None:
    """Write config.json and dataset.json, and append to environment.json. Rank 0 only.

    machine: what trains (``Runtime.record``). initial: the checkpoint whose weights the run starts from,
    if any.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    write_atomically(run_dir / "config.json", to_json(config).encode())
    dataset: dict[str, Any] = {
        "shape": train.shape._asdict(),
        "num_samples": train.num_samples,
        "fingerprint": train.fingerprint,
        "classes": train.classes,
    }
    if train.face_crops is not None:
        dataset[RECORD_KEY] = train.face_crops.to_tree()
    write_atomically(run_dir / "dataset.json", (json.dumps(dataset, indent=1) + "\n").encode())
    path = run_dir / "environment.json"
    try:
        found = read_json(path)
    except (OSError, ValueError):
        found = None
    starts: list[Any] = found if isinstance(found, list) else []
    origin = {"init_from": str(initial)} if initial else {}
    starts.append(
        {
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "samples_seen": samples_seen,
            "command": sys.argv,
            **machine,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": {name: version_of(name) for name in _RECORDED_PACKAGES},
            "git": _git_revision(),
        }
        | origin
    )
    write_atomically(path, (json.dumps(starts, indent=1) + "\n").encode())


def last_command(run_dir: Path) -> str | None:
    """How the run was started the last time, to be typed again; None where no start is recorded."""
    try:
        start = read_json(run_dir / "environment.json")[-1]
        program, *arguments = (str(word) for word in start["command"])
        num_processes = int(start["world_size"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    several = f"--num_processes {num_processes} " if num_processes > 1 else ""
    if program.endswith(".py"):
        return f"accelerate launch {several}{shlex.join([program, *arguments])}"
    launcher = f"accelerate launch {several}--no_python " if several else ""
    return f"{launcher}{program} {shlex.join(arguments)}"


def _git_revision() -> str | None:
    """The source tree's commit, with "+" if there are changes; None outside a checkout.

    A checkout tracks this file: an installation may lie in the ignored files of another project.
    """
    here = Path(__file__)

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=here.parent, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)
        return git("describe", "--always", "--dirty=+", "--abbrev=12")
    except (OSError, subprocess.CalledProcessError):
        return None
