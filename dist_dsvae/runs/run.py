"""What a run has trained: its record, its checkpoints, the method with their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from dist_dsvae.config import ExperimentConfig
from dist_dsvae.config.reading import from_tree
from dist_dsvae.core.text import read_json
from dist_dsvae.core.types import ImageShape
from dist_dsvae.methods.choose import make_method
from dist_dsvae.methods.update import Method, averaged_networks, put_weights, weights_of
from dist_dsvae.runs import checkpoint
from dist_dsvae.runs.checkpoint import CheckpointError
from dist_dsvae.runs.run_directory import checkpoint_to_resume


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
        config = from_tree(ExperimentConfig, read_json(run_dir / "config.json"))
        dataset = read_json(run_dir / "dataset.json")
        return config, ImageShape(**dataset["shape"]), tuple(dataset["classes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{run_dir} is not a run directory, or a damaged one: {error}. Give one such as runs/quickstart."
        ) from None


def load_method(
    config: ExperimentConfig,
    shape: ImageShape,
    num_classes: int,
    chosen: Path,
    wanted: Literal["auto", "ema", "raw"],
    device: torch.device,
) -> tuple[nn.Module, str]:
    """The method with a checkpoint's weights, and which: "ema" or "raw".

    wanted: "auto" takes the moving average (of the networks that train.ema_networks says) if the run
    keeps one. In the run's own precision. Called by all ranks.
    Raises CheckpointError if an average is wanted and the run keeps none.
    """
    method = make_method(config.method, config.model, shape, num_classes)
    assert isinstance(method, Method)
    method.to(device, torch.float64 if config.train.double_precision else torch.float32)
    has_average = config.train.averages
    if wanted == "ema" and not has_average:
        raise CheckpointError(
            f"{chosen.parent.parent} keeps no moving average (train.ema_half_life_updates is 0). Take its "
            "last weights with --weights raw."
        )
    networks = averaged_networks(method, config.train)
    state: dict[str, Any] = {"method": method.state_dict()}
    use_average = has_average and wanted != "raw"
    if use_average:
        state["ema"] = {name: t.detach().clone() for name, t in weights_of(method, networks).items()}
    checkpoint.load(chosen, state)
    if use_average:
        put_weights(method, networks, state["ema"])
    return method, "ema" if use_average else "raw"
