"""Export: a checkpoint of a run as a published model (``methods.published``)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from dist_dsvae.engine.trained import choose_checkpoint, load_method, read_run
from dist_dsvae.methods.published import save_published


def export(
    run_dir: Path, out: Path, step: int | None = None, weights: Literal["auto", "ema", "raw"] = "auto"
) -> str:
    """Write the model of a run's checkpoint into ``out``; returns a sentence on what was written.

    step: of the checkpoint (default: the newest). weights: see ``trained.load_method``. Single process.
    Raises CheckpointError if the run has no such checkpoint, or no average that was asked for.
    """
    config, shape, classes = read_run(run_dir)
    chosen = choose_checkpoint(run_dir, step)
    method, which = load_method(config, shape, len(classes), chosen, weights, torch.device("cpu"))
    save_published(method.float(), out, config.method, config.model, shape, classes)
    described = "moving average" if which == "ema" else "last weights"
    return f"Wrote {out} from {chosen} ({described})."
