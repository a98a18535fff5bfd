"""What a run tells of itself: what it is, at its start; how it fares besides its losses, at log ticks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from dist_dsvae.config import MethodConfig, OptimizerConfig
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.engine.initial_weights import Taken
from dist_dsvae.engine.iteration.optimizer import learning_rates
from dist_dsvae.engine.iteration.zero import Optimizer
from dist_dsvae.engine.memory import peak_bytes
from dist_dsvae.methods.update import Method
from dist_dsvae.runs.auto_augmentation import is_augmented


def opening(
    method: MethodConfig,
    shards: Manifest,
    length: tuple[int, int],
    run_dir: Path,
    initial: Taken | None,
    resumed: tuple[Path | None, int],
) -> str:
    """Lines on the data, the length of the training, the place of the run, and where its weights are from.

    length: iterations, and samples of each. initial: where its weights are from. resumed: a checkpoint, and
    the samples seen.
    """
    lines = [
        f"{shards.num_samples:,} samples of {shards.num_classes} classes in {len(shards.shards)} shards; "
        f"{length[0]:,} iterations of {length[1]} samples; run in {run_dir}."
    ]
    if is_augmented(method):
        lines.append("The discriminator sees augmented images (method.augmentation).")
    if initial is not None:
        lines.append(initial.sentence)
    if resumed[0] is not None:
        lines.append(f"Resumed {resumed[0]} after {resumed[1]:,} samples.")
    return "\n".join(lines)


def vital_signs(
    method: nn.Module,
    config: OptimizerConfig,
    optimizers: Mapping[str, Optimizer],
    epoch: float,
    device: torch.device,
) -> dict[str, float]:
    """For trackers: learning rates, gradient norms where gradients are clipped, peak memory in GiB.

    Of the last iteration and of this rank, whose gradients are everybody's. Reads the device.
    """
    assert isinstance(method, Method)
    rates = learning_rates(config, epoch, method.updates)
    values = {f"learning_rate/{group}": rate for group, rate in rates.items()}
    for name, optimizer in optimizers.items():
        if optimizer.gradient_norm is not None:
            values[f"gradient_norm/{name}"] = optimizer.gradient_norm.item()
    values["peak_memory_gib"] = peak_bytes(device) / 2**30
    return values
