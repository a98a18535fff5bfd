"""Evaluation of a run's checkpoint by all ranks, written into the run directory.

<run>/evaluation/<name>.json   figures, those of real images, judges with their hashes, settings
<run>/evaluation/.<name>/      what is done of it, while it is not finished
<run>/evaluation/stop-request  a file that asks it to stop, as SIGTERM does
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dist_dsvae import distributed
from dist_dsvae.config import DataConfig, EvaluationConfig, ExperimentConfig, TrainConfig
from dist_dsvae.config_io import from_tree, to_tree
from dist_dsvae.data.manifest import DataError, Manifest
from dist_dsvae.data.split import cache_root
from dist_dsvae.data.splits import open_splits
from dist_dsvae.engine import checkpoint
from dist_dsvae.engine.evaluating.evaluation import Evaluation
from dist_dsvae.engine.evaluating.held_out import write_figures
from dist_dsvae.engine.evaluating.progress import Progress
from dist_dsvae.engine.evaluating.scoring import OnProgress
from dist_dsvae.engine.preemption import Preempted, StopRequests
from dist_dsvae.engine.runtime import Runtime
from dist_dsvae.engine.statistics import Measured
from dist_dsvae.engine.statistics_file import measured_for_evaluation
from dist_dsvae.engine.trained import choose_checkpoint, load_method, read_run
from dist_dsvae.engine.watchdog import Watchdog
from dist_dsvae.evaluation.comparing.evaluated import FORMAT


def run_config(run_dir: Path) -> TrainConfig:
    """How the run trained: precision and processes are set up alike to evaluate it."""
    return read_run(run_dir)[0].train


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
    Raises CheckpointError, DataError, ScorerError or another ValueError with a sentence; Preempted.
    """
    begin = time.perf_counter()
    config, shape, classes = read_run(run_dir)
    settings = changed(config.evaluation)
    chosen = choose_checkpoint(run_dir, step)
    train, test, _ = open_splits(config.data)
    if (tuple(train.classes), train.shape) != (classes, shape):
        raise DataError(
            f"{config.data.train} has other classes or another image size than {run_dir} was trained on. "
            "Restore those shards, or train anew."
        )
    if test is None:
        raise DataError(
            f"{run_dir} has no test split (data.test is not set), so there is nothing to evaluate on."
        )
    if name == "summary":
        raise DataError("--name summary is the file that training writes; choose another name.")
    evaluation = Evaluation(settings, config.data, train, test, runtime, real_cache(config.data))
    method, weights = load_method(config, shape, len(classes), chosen, settings.weights, runtime.device)
    marker = checkpoint.read_marker(chosen)
    seen, seconds = marker["samples_seen"], marker["train_seconds"]
    result = record(run_dir, config, evaluation, chosen.name, seen, seconds, weights)
    folder = run_dir / "evaluation"
    folder.mkdir(parents=True, exist_ok=True)
    stop, watchdog = StopRequests(folder, runtime.patience), Watchdog()

    def pause() -> None:
        if (reason := stop.agreed()) is not None:
            if runtime.is_main:
                stop.record(reason, checkpoint.step_of(chosen), marker["samples_seen"])
            raise Preempted

    try:
        key = result | {"batch_size": settings.batch_size, "corrupt": config.data.corrupt_sample}
        progress = Progress(folder / f".{name}", key, pause)
        method.eval()
        measured = Measured()
        if settings.batch_norm == "precise":
            skip = config.data.corrupt_sample == "replace"
            measured = measured_for_evaluation(chosen, method, weights, train, skip_corrupt=skip)
        figures, real = evaluation(method, progress, on_progress, measured)
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
    if runtime.is_main:
        write_figures(folder / f"{name}.json", result)
    progress.finish()
    distributed.barrier()
    return result


def evaluation_of(
    config: ExperimentConfig, train: Manifest, test: Manifest | None, runtime: Runtime
) -> Evaluation | None:
    """The evaluation that is due during training, if any is; raises what ``Evaluation`` does."""
    if not config.evaluation.every_steps:
        return None
    if test is None:
        raise DataError(
            "evaluation.every_steps is set, but data.test is not: give a test split to evaluate on, or set "
            "evaluation.every_steps to 0."
        )
    if not config.train.averages and config.evaluation.weights == "ema":
        raise DataError(
            "evaluation.weights is 'ema', but train.ema_half_life_updates is 0: there is no moving average."
        )
    return Evaluation(config.evaluation, config.data, train, test, runtime, real_cache(config.data))


def record(
    run_dir: Path,
    config: ExperimentConfig,
    evaluation: Evaluation,
    name: str,
    samples_seen: int,
    train_seconds: float,
    weights: str,
) -> dict[str, Any]:
    """What is evaluated, and how: an evaluation's file without its figures. name: of the checkpoint."""
    return {
        "format": FORMAT,
        "run": run_dir.name,
        "method": config.method.name,
        "data": config.data.train,
        "classes": len(evaluation.train.classes),
        "checkpoint": name,
        "samples_seen": samples_seen,
        "train_seconds": train_seconds,
        "training_seed": config.seed,
        "weights": weights,
        "settings": evaluation.settings(),
        "judges": evaluation.describe_judges(),
    }


def real_cache(data: DataConfig) -> Path:
    """Where sums over real images wait for other evaluations of the same data by the same judges."""
    return cache_root(data.cache_dir) / "real-images"


def with_changes(config: EvaluationConfig, **given: Any) -> EvaluationConfig:
    """The settings with those replaced that are not None. Raises ConfigError for what is not allowed."""
    changes = {key: value for key, value in given.items() if value is not None}
    return from_tree(EvaluationConfig, to_tree(config) | changes, "evaluation.")
