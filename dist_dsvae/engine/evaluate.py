"""Evaluation of a run's checkpoint by all ranks: held-out figures, written into the run directory."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from dist_dsvae import distributed
from dist_dsvae.config import TrainConfig
from dist_dsvae.data.manifest import DataError
from dist_dsvae.data.splits import open_splits
from dist_dsvae.engine import checkpoint
from dist_dsvae.engine.export import choose_checkpoint, read_run
from dist_dsvae.engine.held_out import held_out_figures, write_figures
from dist_dsvae.engine.runtime import Runtime
from dist_dsvae.methods.choose import make_method


def run_config(run_dir: Path) -> TrainConfig:
    """How the run trained: precision and processes are set up alike to evaluate it."""
    return read_run(run_dir)[0].train


def evaluate(run_dir: Path, step: int | None, name: str, runtime: Runtime) -> dict[str, Any]:
    """Figures of one checkpoint (default: the newest), on every rank; called by all.

    Written to <run>/evaluation/<name>.json. The same for any number of ranks up to rounding.
    Raises CheckpointError or DataError where run, checkpoint or test split cannot be had.
    """
    begin = time.perf_counter()
    config, shape, classes = read_run(run_dir)
    chosen = choose_checkpoint(run_dir, step)
    train, test = open_splits(config.data)
    if test is None:
        raise DataError(
            f"{run_dir} has no test split (data.test is not set), so there is nothing to evaluate on."
        )
    method = make_method(config.method, config.model, shape, len(classes)).to(runtime.device, runtime.dtype)
    checkpoint.load(chosen, {"method": method.state_dict()})
    values = checkpoint.read_marker(chosen)
    result: dict[str, Any] = {
        "checkpoint": chosen.name,
        "samples_seen": values["samples_seen"],
        **held_out_figures(method, train, test, runtime, config.data.corrupt_sample),
        "precision": runtime.mixed_precision,
        "processes": runtime.world_size,
        "seconds": round(time.perf_counter() - begin, 1),
    }
    if runtime.is_main:
        write_figures(run_dir / "evaluation" / f"{name}.json", result)
    distributed.barrier()
    return result
