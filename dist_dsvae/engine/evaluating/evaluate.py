"""Evaluation of a run's checkpoint by all ranks, written into the run directory.

<run>/evaluation/<name>.json   figures, those of real images, judges with their hashes, settings
<run>/evaluation/.<name>/      what is done of it, while it is not finished
<run>/evaluation/stop-request  a file that asks it to stop, as SIGTERM does
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from dist_dsvae.config import DataConfig, EvaluationConfig, ExperimentConfig, TrainConfig
from dist_dsvae.config.checks import contradictions_in_evaluation
from dist_dsvae.config.reading import ConfigError, with_overrides
from dist_dsvae.core import distributed
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.files import write_atomically
from dist_dsvae.core.text import read_json
from dist_dsvae.data.open_splits import open_splits
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.engine.evaluating.evaluation import Evaluation
from dist_dsvae.engine.evaluating.evaluator import EvaluationInputs
from dist_dsvae.engine.evaluating.progress import OnProgress, Progress
from dist_dsvae.engine.evaluating.resemblance import open_held_out
from dist_dsvae.engine.iteration.batch_norm import mean_statistics
from dist_dsvae.engine.iteration.ema import ExponentialMovingAverage, weights_applied
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.engine.reporting.outputs import Tolerant
from dist_dsvae.engine.stopping.preemption import Preempted, StopRequests, forget_the_start_before
from dist_dsvae.engine.stopping.watchdog import Watchdog
from dist_dsvae.evaluation.comparing.evaluated import FORMAT
from dist_dsvae.evaluation.comparing.proven_files import own_sha256
from dist_dsvae.evaluation.metrics import Figures
from dist_dsvae.runs import checkpoint, checkpoint_folder
from dist_dsvae.runs.measure_statistics import Measured
from dist_dsvae.runs.run import Run
from dist_dsvae.runs.statistics_file import measured_for_evaluation

_PROOF = "sha256"  # of the file's other content; files of before have none


def run_config(run_dir: Path) -> TrainConfig:
    """How the run trained: precision and processes are set up alike to evaluate it."""
    return Run.open(run_dir).config.train


def evaluate(
    run_dir: Path,
    step: int | None,
    name: str,
    runtime: Runtime,
    changed: Callable[[EvaluationConfig], EvaluationConfig],
    on_progress: OnProgress,
) -> dict[str, Any]:
    """Evaluate one checkpoint (default: the newest); the result, on every rank. Called by all.

    changed: makes the settings out of the run's own. Generated images are the same for any number of
    ranks, and so are all figures up to rounding. What a killed or stopped evaluation has done is used.
    Raises CheckpointError, DataError, JudgeError or another ValueError with a sentence; Preempted.
    """
    begin = time.perf_counter()
    run, chosen = distributed.on_all_ranks(lambda: _opened(run_dir, step))
    config = run.config
    settings = changed(config.evaluation)
    on_progress(f"opening {chosen}, its data and its judges", 0, 1)
    train, test, _ = open_splits(config.data)
    if (tuple(train.classes), train.shape) != (run.classes, run.shape):
        raise DataError(
            f"{config.data.train} has other classes or another image size than {run_dir} was trained on. "
            "Restore those shards, or train anew."
        )
    if run.fingerprint not in (None, train.fingerprint):
        raise DataError(
            f"The shards in {config.data.train} are not those that {run_dir} was trained on: it may have "
            "seen what is in the test split now. Restore those shards, or train anew."
        )
    if test is None:
        raise DataError(
            f"{run_dir} has no test split (data.test is not set), so there is nothing to evaluate on."
        )
    folder = run_dir / "evaluation"
    forget_the_start_before(folder)
    _check_name(folder, name)
    evaluation = Evaluation(EvaluationInputs(settings, config.data, train, test, runtime))
    method, weights = run.load_method(chosen, settings.weights, runtime.device)
    marker = checkpoint.read_marker(chosen)
    moment = (chosen.name, marker["samples_seen"], marker["train_seconds"])
    result = record(run_dir, evaluation, config, moment, weights)
    folder.mkdir(parents=True, exist_ok=True)
    stop, watchdog = StopRequests(folder, runtime.patience), Watchdog()

    try:
        key = result | {"corrupt": config.data.corrupt_sample}
        progress = Progress(folder / f".{name}", key, stop.raise_if_asked, on_progress)
        method.eval()
        measured = Measured()
        if settings.measures_batch_norm:
            with progress.shown("measuring batch norm on training images, unless it is known"):
                skip = config.data.replaces_corrupt
                measured = measured_for_evaluation(chosen, method, weights, train, skip_corrupt=skip)
        figures, real = evaluation(method, progress, measured)
    except Preempted as asked:
        if runtime.is_main:
            stop.record(str(asked), checkpoint_folder.step_of(chosen), marker["samples_seen"])
        raise
    except RuntimeError as error:
        raise watchdog.explain(error) from error
    finally:
        watchdog.close()
        stop.close()
    result |= {
        "figures": figures,
        "real": real,
        "processes": runtime.world_size,
        "seconds": round(time.perf_counter() - begin, 1),
    }
    result[_PROOF] = own_sha256(result, without=(_PROOF,))
    if runtime.is_main:
        write_figures(folder / f"{name}.json", result)
    progress.finish()
    distributed.barrier()
    return result


def _opened(run_dir: Path, step: int | None) -> tuple[Run, Path]:
    run = Run.open(run_dir)
    return run, run.checkpoint(step)


def _check_name(folder: Path, name: str) -> None:
    """Raise DataError if ``folder``/NAME.json is no name for an evaluation, or somebody else's file."""
    if name in ("summary", "stopped-early"):
        writer = "training" if name == "summary" else "what is stopped"
        raise DataError(f"--name {name} is the file that {writer} writes; choose another name.")
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise DataError(
            f"--name {name!r} is no name of a file in {folder}: letters, digits, '_', '-' and '.' are "
            "allowed, and the first is a letter or a digit."
        )
    path = folder / f"{name}.json"
    try:
        there = read_json(path)
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        there = None
    if not isinstance(there, dict) or there.get("format") != FORMAT:
        raise DataError(
            f"{path} exists already, and is no evaluation's. Choose another --name, or move it away."
        )
    if there.get(_PROOF, own := own_sha256(there, without=(_PROOF,))) != own:
        raise DataError(
            f"{path} exists already, and somebody has changed it since. Choose another --name, or move it "
            "away."
        )


def evaluation_of(
    config: EvaluationConfig, data: DataConfig, train: Manifest, test: Manifest | None, runtime: Runtime
) -> Evaluation | None:
    """The evaluation that is due during training, if any is; raises what ``Evaluation`` does.

    Also where none is: what a run's evaluations are to measure is looked at before it trains.
    """
    if not config.every_steps:
        open_held_out(config.held_out, data, train)
        return None
    assert test is not None  # ``config.checks``
    return Evaluation(EvaluationInputs(config, data, train, test, runtime))


def evaluate_in_training(
    run_dir: Path,
    evaluation: Evaluation,
    method: nn.Module,
    ema: ExponentialMovingAverage | None,
    config: ExperimentConfig,
    moment: tuple[str, int, float],
    pause: Callable[[], None] = lambda: None,
) -> Figures:
    """Score the weights as they are, in <run>/evaluation/<name>.json; the figures. Called by all ranks.

    moment: the name of a checkpoint that would be made now, samples seen, and seconds trained. pause: called
    between pieces; what it raises ends the evaluation there.
    """
    with weights_applied(ema, evaluation.inputs.config.weights) as weights, mean_statistics(method):
        described = record(run_dir, evaluation, config, moment, weights)
        figures, real = evaluation(method, Progress(pause=pause))
    if distributed.is_main():
        path = run_dir / "evaluation" / f"{moment[0]}.json"
        Tolerant(str(path))(lambda: write_figures(path, described | {"figures": figures, "real": real}))
    return figures


def was_evaluated(run_dir: Path, name: str, samples_seen: int) -> bool:
    """Whether ``evaluate_in_training`` has left its file for this moment. The same on all ranks."""

    def look() -> bool:
        try:
            return bool(read_json(run_dir / "evaluation" / f"{name}.json")["samples_seen"] == samples_seen)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    return distributed.from_main(look)


def record(
    run_dir: Path,
    evaluation: Evaluation,
    config: ExperimentConfig,
    moment: tuple[str, int, float],
    weights: str,
) -> dict[str, Any]:
    """What is evaluated, and how: an evaluation's file without its figures.

    config: of the training. moment: as of ``evaluate_in_training``.
    """
    checkpoint_name, samples_seen, train_seconds = moment
    return {
        "format": FORMAT,
        "run": run_dir.name,
        "method": config.method.name,
        "data": evaluation.inputs.data.train,
        "classes": evaluation.inputs.train.num_classes,
        "commonest_class": _share_of_the_commonest(evaluation.inputs.train, evaluation.inputs.test),
        "checkpoint": checkpoint_name,
        "samples_seen": samples_seen,
        "train_seconds": train_seconds,
        "training_seed": config.seed,
        "weights": weights,
        "asked": asdict(evaluation.inputs.config),
        "settings": evaluation.settings(),
        "judges": evaluation.describe_judges(),
    }


def _share_of_the_commonest(train: Manifest, test: Manifest) -> float:
    """Of the test split, of the class that has most of the training pictures: what guessing it gets right."""
    commonest = max(range(train.num_classes), key=train.samples_per_class.__getitem__)
    return test.samples_per_class[commonest] / test.num_samples


def write_figures(path: Path, figures: Mapping[str, Any]) -> None:
    """A JSON file, whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(figures, indent=1) + "\n").encode())


def with_changes(config: EvaluationConfig, overrides: Iterable[str]) -> EvaluationConfig:
    """The settings with ``evaluation.key=value`` applied. Raises ConfigError for what is not allowed."""
    changed = with_overrides(config, "evaluation", overrides)
    for contradiction in contradictions_in_evaluation(changed):
        raise ConfigError(contradiction)
    return changed
