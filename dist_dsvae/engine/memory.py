"""What training with many classes takes in memory at the least, told before any of it is taken.

Weights, gradients, Adam's moments and the GM step's matrices, all of [C, d], are then nearly all of it. What
images and activations take depends on the libraries and is left out.
"""

from __future__ import annotations

import os

import psutil
import torch

from dist_dsvae.config import ExperimentConfig
from dist_dsvae.core import distributed
from dist_dsvae.core.types import ImageShape
from dist_dsvae.methods.choose import make_method
from dist_dsvae.models.mixture_prior import MixturePrior

_MANY_CLASSES = 10_000  # below, what is left out is most of it
_COPIES = 4  # of a parameter: itself, its gradient, Adam's two moments
# What a GM step holds beyond those at its peak: log-variances, what the densities keep for their
# derivatives, these, and all gradients once more in one piece
_GM_MATRICES = 12
_GM_DENSITIES = 4  # [B, C] matrices


class TooLargeError(ValueError):
    """A training that this machine has no memory for; the message says what to change."""


def check_memory(
    config: ExperimentConfig, shape: ImageShape, num_classes: int, batch_size: int, device: torch.device
) -> None:
    """Raise TooLargeError, on every rank, if training cannot fit the memory that is free on any.

    batch_size: of one process. Called by all ranks.
    """
    if num_classes < _MANY_CLASSES:
        return
    needed = needed_bytes(config, shape, num_classes, batch_size)
    if device.type == "cuda":
        place, available = "its GPU", torch.cuda.mem_get_info(device)[0]
    else:
        ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        place, available = "the machine", psutil.virtual_memory().available // ranks_here
    least = min(distributed.gather_objects(available))
    if needed > least:
        raise TooLargeError(
            f'Training "{config.method.name}" on {num_classes:,} classes takes at least '
            f"{needed / 2**30:.1f} GiB for each process, and {place} has {least / 2**30:.1f} GiB free for "
            "it. The memory grows with classes times code size: lower model.zs_dim and model.zu_dim, "
            "train on fewer classes, or take a machine with more memory."
        )


def needed_bytes(config: ExperimentConfig, shape: ImageShape, num_classes: int, batch_size: int) -> int:
    """Of each process, at the least. batch_size: of one process. Nothing is allocated."""
    with torch.device("meta"):
        method = make_method(config.method, config.model, shape, num_classes)
    values = _COPIES * sum(parameter.numel() for parameter in method.parameters())
    values += sum(buffer.numel() for buffer in method.buffers())
    for module in method.modules():
        if isinstance(module, MixturePrior) and module.fit == "gradient":
            values += _GM_MATRICES * module.mean.numel() + _GM_DENSITIES * batch_size * num_classes
    return values * (8 if config.train.double_precision else 4)
