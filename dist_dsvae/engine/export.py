"""Export: a checkpoint of a run as a published model (``methods.published``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dist_dsvae.config import ExperimentConfig
from dist_dsvae.config_io import from_tree
from dist_dsvae.engine import checkpoint
from dist_dsvae.engine.checkpoint import CheckpointError
from dist_dsvae.engine.run_directory import checkpoint_to_resume
from dist_dsvae.methods.choose import make_method
from dist_dsvae.methods.published import save_published
from dist_dsvae.methods.step import Method
from dist_dsvae.types import ImageShape


def export(run_dir: Path, out: Path, step: int | None = None, *, averaged: bool | None = None) -> str:
    """Write the model of a run's checkpoint into ``out``; returns a sentence on what was written.

    step: of the checkpoint (default: the newest). averaged: the moving average (of the decoder, or of
    the classifier's network) in place of the last weights (default: if the run keeps one). Single process.
    Raises CheckpointError if the run has no such checkpoint, or no average that was asked for.
    """
    config, shape, classes = read_run(run_dir)
    chosen = choose_checkpoint(run_dir, step)
    has_average = config.train.ema_half_life_samples > 0
    if averaged and not has_average:
        raise CheckpointError(
            f"{run_dir} keeps no moving average (train.ema_half_life_samples is 0). Export its last weights "
            "with --weights raw."
        )
    use_average = has_average if averaged is None else averaged
    method = make_method(config.method, config.model, shape, len(classes))
    assert isinstance(method, Method)
    if config.train.double_precision:
        method.double()
    state: dict[str, Any] = {"method": method.state_dict()}
    if use_average:
        averaged_network = method.get_submodule(method.averaged)
        state["ema"] = {name: t.detach().clone() for name, t in averaged_network.state_dict().items()}
    checkpoint.load(chosen, state)
    if use_average:
        averaged_network.load_state_dict(state["ema"])
    save_published(method.float(), out, config.method, config.model, shape, classes)
    which = "moving average" if use_average else "last weights"
    return f"Wrote {out} from {chosen} ({which} of the {method.averaged})."


def choose_checkpoint(run_dir: Path, step: int | None) -> Path:
    """The checkpoint of ``step``, or the newest undamaged one. Called by all ranks.

    Raises CheckpointError if there is none.
    """
    steps = [checkpoint.step_of(path) for path in checkpoint.complete_checkpoints(run_dir / "checkpoints")]
    if step is not None and step not in steps:
        raise CheckpointError(f"{run_dir} has no checkpoint of step {step}. It has those of {steps}.")
    named = run_dir / "checkpoints" / checkpoint.checkpoint_name(step or 0)
    chosen = checkpoint_to_resume(run_dir, "auto" if step is None else str(named))
    if chosen is None:
        raise CheckpointError(f"{run_dir} has no checkpoint yet. Train it first, or give another run.")
    return chosen


def read_run(run_dir: Path) -> tuple[ExperimentConfig, ImageShape, tuple[str, ...]]:
    """A run's configuration, the shape of its samples and the names of its classes.

    Raises CheckpointError if ``run_dir`` is not a run.
    """
    try:
        config = from_tree(ExperimentConfig, json.loads((run_dir / "config.json").read_text("utf-8")))
        dataset = json.loads((run_dir / "dataset.json").read_text("utf-8"))
        return config, ImageShape(**dataset["shape"]), tuple(dataset["classes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{run_dir} is not a run directory, or a damaged one: {error}. Give one such as runs/quickstart."
        ) from None
