"""The weights that a new run takes over from another one, as fine-tuning does.

Networks with their buffers, and the moving average, come from there; optimisers, counters and the order of
the samples start afresh. An average with a ramp-up counts the new run's updates, so it soon follows these.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from dist_dsvae.config import ExperimentConfig
from dist_dsvae.core.types import ImageShape
from dist_dsvae.engine.iteration.ema import ExponentialMovingAverage
from dist_dsvae.methods.update import averaged_networks
from dist_dsvae.runs import checkpoint
from dist_dsvae.runs.checkpoint import CheckpointError
from dist_dsvae.runs.run import Run
from dist_dsvae.runs.run_directory import checkpoint_to_resume


def take_weights(
    source: str,
    config: ExperimentConfig,
    method: nn.Module,
    ema: ExponentialMovingAverage | None,
    shape: ImageShape,
    classes: tuple[str, ...],
) -> Path:
    """Load the weights of ``source``, a run or a checkpoint of one, in place; returns the checkpoint.

    config, shape, classes: of the new run.
    Called by all ranks. Raises CheckpointError if there is none, or if its networks are not these.
    """
    given = Path(source)
    is_checkpoint = (given / checkpoint.MARKER).is_file()
    run_dir = given.parent.parent if is_checkpoint else given
    run = Run.open(run_dir)
    trained, trained_shape, trained_classes = run.config, run.shape, run.classes
    chosen = checkpoint_to_resume(run_dir, str(given) if is_checkpoint else "auto")
    if chosen is None:
        raise CheckpointError(
            f"{run_dir} has no checkpoint yet, so its weights cannot be taken. Train it first."
        )
    if (trained_shape, trained_classes) != (shape, classes):
        raise CheckpointError(
            f"{run_dir} was trained on {len(trained_classes)} classes of {_text(trained_shape)} samples, but "
            f"data.train has {len(classes)} classes of {_text(shape)} samples"
            f"{'' if len(classes) != len(trained_classes) else ' (or others of that number)'}. Weights "
            "can be taken from a run with the same classes alone."
        )
    if (trained.model, trained.method.name) != (config.model, config.method.name):
        raise CheckpointError(
            f"{run_dir} trained the method {trained.method.name} with {trained.model}, but this config "
            f"has {config.method.name} with {config.model}. Set model.* and method.name as they are there."
        )
    tensors: dict[str, Any] = {"method": method.state_dict()}
    if ema is not None:
        same = trained.train.averages and averaged_networks(method, trained.train) == ema.networks
        if same:
            tensors["ema"] = ema.averaged
    checkpoint.load(chosen, tensors)
    if ema is not None and not same:
        ema.restart()
    return chosen


def _text(shape: ImageShape) -> str:
    return " x ".join(map(str, shape))
