"""Memory: what training takes at the least, told before any of it is taken, and what to do when it ran out.

With many classes, weights, gradients, Adam's moments and the GM step's matrices, all of [C, d], are nearly
all of it. What images and activations take depends on the libraries and is left out.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import psutil
import torch

from dist_dsvae.config import DataConfig, DSVAEConfig, MethodConfig, ModelConfig
from dist_dsvae.core import distributed
from dist_dsvae.core.types import ImageShape
from dist_dsvae.methods.choose import sketch_method
from dist_dsvae.models.mixture_prior import MixturePrior
from dist_dsvae.models.sampled_classes import is_sampled

_MANY_CLASSES = 10_000  # below, what is left out is most of it
_MOMENTS = 2  # Adam's, of a trained parameter, which has a gradient besides
# What a GM step holds beyond those at its peak, in matrices [C, d], or of the rows of sampled classes:
# log-variances, what the densities keep for their derivatives, these, and all gradients once more in one
# piece. Measured with one thread; with two, three more are held in passing
_GM_MATRICES = 7
_GM_DENSITIES = 4  # [B, C] matrices
# How allocators and libraries say it where they have no type for it
_SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory", "alloc_failed")


class TooLargeError(ValueError):
    """What this machine has no memory for; the message says what to change."""


def check_memory(
    method: MethodConfig,
    model: ModelConfig,
    shape: ImageShape,
    num_classes: int,
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    zero_stage: int = 0,
) -> None:
    """Raise TooLargeError, on every rank, if training cannot fit the memory that is free on any.

    batch_size: of one process. dtype: of the weights. zero_stage: of DeepSpeed, 0 without. Called by all.
    """
    if num_classes < _MANY_CLASSES:
        return
    divided = (zero_stage, distributed.world_size())
    needed = needed_bytes(method, model, shape, num_classes, batch_size, dtype, *divided)
    if device.type == "cuda":
        place, available = "its GPU", torch.cuda.mem_get_info(device)[0]
    else:
        ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        place, available = "the machine", psutil.virtual_memory().available // ranks_here
    least = min(distributed.gather_objects(available))
    if needed > least:
        divide = "" if zero_stage else "divide the state among processes (configs/accelerate/zero2.yaml), "
        fewer = f"{_fewer_compared(method, num_classes)}lower model.zs_dim and model.zu_dim"
        raise TooLargeError(
            f'Training "{method.name}" on {num_classes:,} classes takes at least '
            f"{needed / 2**30:.1f} GiB for each process, and {place} has {least / 2**30:.1f} GiB free for "
            f"it. The memory grows with classes times code size: {fewer}, train on fewer classes, {divide}or "
            "take a machine with more memory."
        )


def needed_bytes(
    method: MethodConfig,
    model: ModelConfig,
    shape: ImageShape,
    num_classes: int,
    batch_size: int,
    dtype: torch.dtype = torch.float32,
    zero_stage: int = 0,
    world_size: int = 1,
) -> int:
    """Of each process, at the least. batch_size: of one process. Nothing is allocated.

    zero_stage: 1 divides Adam's moments over the processes, 2 the gradients, too.
    """
    networks = sketch_method(method, model, shape, num_classes)
    trained = sum(p.numel() for p in networks.parameters() if p.requires_grad)
    values = sum(p.numel() for p in networks.parameters())
    values += trained // (world_size if zero_stage >= 2 else 1)
    values += _MOMENTS * trained // (world_size if zero_stage else 1)
    values += sum(buffer.numel() for buffer in networks.buffers())
    compared = _compared_classes(method, num_classes)
    for module in networks.modules():
        if isinstance(module, MixturePrior) and module.fit == "gradient":
            rows = compared + (batch_size + 1 if compared < num_classes else 0)
            values += _GM_MATRICES * rows * module.mean.shape[1] + _GM_DENSITIES * batch_size * compared
    return values * dtype.itemsize


def _compared_classes(method: MethodConfig, num_classes: int) -> int:
    """How many classes L_cls computes densities of, at a time."""
    others = method.sampled_classes if isinstance(method, DSVAEConfig) else 0
    return others + 1 if is_sampled(others, num_classes) else num_classes


def _fewer_compared(method: MethodConfig, num_classes: int) -> str:
    """What to do, where it has not been done."""
    helps = isinstance(method, DSVAEConfig) and method.mixture_fit == "gradient"
    if not helps or _compared_classes(method, num_classes) < num_classes:
        return ""
    return "set method.sampled_classes to some thousands, which takes half of it; "


def peak_bytes(device: torch.device) -> int:
    """The most that this process has held at a time: of its GPU's memory, or of the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory, of whatever kind: CUDA's, PyTorch's on the CPU, NumPy's, Python's."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, RuntimeError):
        return isinstance(error, torch.OutOfMemoryError) or any(s in str(error).lower() for s in _SIGNS)
    return isinstance(error, MemoryError)


def out_of_memory_explained(
    config: DataConfig, device: torch.device, rank: int, world_size: int
) -> AbstractContextManager[None]:
    """Raise TooLargeError in place of an error for want of memory: what training tried, what takes less."""
    return _explained(lambda reason: _sentence(config, device, rank, world_size, reason))


def out_of_memory_while(doing: str, device: torch.device, remedy: str) -> AbstractContextManager[None]:
    """The same for what is no training. remedy: a sentence."""

    def sentence(reason: str) -> str:
        place, total = _place(device)
        return (
            f"The memory ran out while {doing}, after a peak of {peak_bytes(device) / 2**30:.2f} GiB of the "
            f"{total / 2**30:.2f} GiB of {place} ({reason}). {remedy}"
        )

    return _explained(sentence)


@contextmanager
def _explained(sentence: Callable[[str], str]) -> Iterator[None]:
    """sentence: of what the failed allocation said of itself."""
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise TooLargeError(sentence(reason)) from error


def _place(device: torch.device) -> tuple[str, int]:
    """Whose memory it is, and how many bytes that has."""
    if device.type == "cuda":
        return "its GPU", torch.cuda.mem_get_info(device)[1]
    return "the machine", psutil.virtual_memory().total


def _sentence(config: DataConfig, device: torch.device, rank: int, world_size: int, reason: str) -> str:
    batch = config.batch_size
    place, total = _place(device)
    more = "start fewer processes per machine, or take more machines"
    if device.type == "cuda":
        more = "spread the batch over more processes, each with a GPU"
    resident = ', set data.source to "stream"' if config.source == "resident" else ""
    share, peak = -(-batch // world_size), peak_bytes(device) / 2**30
    return (
        f"Rank {rank} ran out of memory with {share:,} samples of every batch of {batch:,}, after a peak of "
        f"{peak:.2f} GiB of the {total / 2**30:.2f} GiB of {place} ({reason}). Lower data.batch_size, choose "
        f"a smaller model.architecture, model.zs_dim or model.zu_dim{resident}, or {more}. What was saved is "
        "intact: with more memory or processes the same command goes on from it; another batch size or model "
        "needs another --run-dir."
    )
