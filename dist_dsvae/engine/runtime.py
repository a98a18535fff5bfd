"""Runtime: the process group, the device and the precision that this process trains with.

Owns the Accelerator. What `accelerate launch` promised and what Accelerate found are compared at
the start, because the launcher's obvious CPU flags silently start one process, or several that
each believe they are alone.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import cast

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, InitProcessGroupKwargs
from torch import nn

from dist_dsvae import distributed
from dist_dsvae.config import TrainConfig


class LaunchError(ValueError):
    """The processes were not started as this program needs them."""


class Runtime:
    """Device, precision and processes of a run.

    mixed_precision: "no", "bf16" or "fp16", resolved from the command line, launcher and config.
    dtype: of images and noise: float32, or float64 with train.double_precision.
    """

    def __init__(self, config: TrainConfig, mixed_precision: str | None = None) -> None:
        use_cpu = not torch.cuda.is_available()
        self.timeout = timedelta(seconds=config.collective_timeout_seconds)
        self.mixed_precision = _resolve_precision(config, mixed_precision, use_cpu=use_cpu)
        self.accelerator = Accelerator(
            cpu=use_cpu,
            mixed_precision=self.mixed_precision,
            kwargs_handlers=[
                # Batch norm is synchronised (or each rank's own by choice), so buffers need no broadcast.
                DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
                InitProcessGroupKwargs(init_method=distributed.rendezvous_by_attempt(), timeout=self.timeout),
            ],
        )
        _check_launcher(self.accelerator.num_processes)
        _check_kind(self.accelerator.distributed_type)
        self.device: torch.device = self.accelerator.device
        self.world_size: int = self.accelerator.num_processes
        self.rank: int = self.accelerator.process_index
        self.dtype = torch.float64 if config.double_precision else torch.float32
        if self.device.type == "cuda":
            # Graph capture forbids the default stream, and autograd binds parameters to the first it sees.
            own = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            own.wait_stream(torch.cuda.current_stream(self.device))
            torch.cuda.set_stream(own)
        self.num_threads = _set_threads(config.cpu_threads) if use_cpu else torch.get_num_threads()

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def reads_are_free(self) -> bool:
        """Whether reading a tensor on the host costs nothing: on a CPU."""
        return self.device.type == "cpu"

    @contextmanager
    def autocast(self) -> Iterator[None]:
        with self.accelerator.autocast():
            yield

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """The loss scaler of fp16, None in other precisions."""
        return cast("torch.amp.GradScaler | None", self.accelerator.scaler)

    def wrap(self, method: nn.Module, ignored_parameters: list[str]) -> nn.Module:
        """Move to the device and wrap into DistributedDataParallel where there are several processes.

        ignored_parameters: names that the wrapped forward does not train (their step reduces its
        own gradients).
        """
        method._ddp_params_and_buffers_to_ignore = ignored_parameters  # type: ignore[assignment]
        with warnings.catch_warnings():
            # Accelerate has no other name for it; torch from 2.15 on prefers forward_sync_buffers.
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
            return cast(nn.Module, self.accelerator.prepare_model(method))

    def describe(self) -> str:
        """One sentence for the log: what trains."""
        precision = {"no": "float32", "bf16": "bf16 autocast", "fp16": "fp16 autocast"}[self.mixed_precision]
        if self.dtype == torch.float64:
            precision = "float64"
        processes = "1 process" if self.world_size == 1 else f"{self.world_size} processes"
        device = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        threads = f", {self.num_threads} threads each" if self.device.type == "cpu" else ""
        return f"Training with {processes} on {device}{threads}, {precision}."

    def close(self) -> None:
        self.accelerator.end_training()


def _resolve_precision(config: TrainConfig, argument: str | None, *, use_cpu: bool) -> str:
    """train.py's own flag, else what the launcher was told (if not "no"), else the config."""
    launcher = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    chosen = argument or (launcher if launcher != "no" else config.mixed_precision)
    if config.double_precision:
        if chosen not in ("no", "auto"):
            raise LaunchError(
                f"train.double_precision is set, but mixed precision {chosen!r} was asked for. "
                "Leave one of them out."
            )
        return "no"
    if chosen == "auto":
        # a private name of torch: where it is gone, float32 is the safe answer
        has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        native = has_amx() if use_cpu else torch.cuda.is_bf16_supported(False)
        return "bf16" if native else "no"
    if chosen == "fp16" and use_cpu:
        raise LaunchError("Mixed precision fp16 needs a GPU; on a CPU choose no or bf16.")
    if chosen not in ("no", "bf16", "fp16"):
        raise LaunchError(f"Mixed precision {chosen!r} is not supported; allowed: no, bf16, fp16.")
    return chosen


def _check_launcher(num_processes: int) -> None:
    promised = int(os.environ.get("WORLD_SIZE", "1"))
    if promised != num_processes:
        raise LaunchError(
            f"The launcher started {promised} processes (WORLD_SIZE), but Accelerate sees "
            f"{num_processes}: each would train a model of its own. On a CPU start with `accelerate launch "
            "--config_file configs/accelerate/cpu.yaml --num_processes N`; on GPUs with "
            "`--multi_gpu --num_processes N`, N at most the number of GPUs."
        )


def _check_kind(kind: DistributedType) -> None:
    supported = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)
    if kind not in supported:
        raise LaunchError(
            f"The launcher asks for {kind.value}, which is not supported; use plain data parallelism: "
            "`accelerate launch --multi_gpu`, or one of the files in configs/accelerate/."
        )


def _set_threads(configured: int) -> int:
    """`accelerate launch` sets OMP_NUM_THREADS=1 by default, which would leave all other cores idle."""
    local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(available, psutil.cpu_count(logical=False) or available)
    threads = configured or max(1, cores // local_processes)
    torch.set_num_threads(threads)
    return threads
