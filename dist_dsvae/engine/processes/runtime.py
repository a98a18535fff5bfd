"""Runtime: the process group, the device and the precision that this process trains with.

Owns the Accelerator.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, cast

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dist_dsvae.config import TrainConfig
from dist_dsvae.core import distributed
from dist_dsvae.core.process import available_cores, cpu_name
from dist_dsvae.engine.processes.fence import Fence, Patience
from dist_dsvae.engine.processes.launch_checks import (
    check_accumulation,
    check_compiler,
    check_devices,
    check_kind,
    check_launcher,
    check_precisions,
    checked_stage,
    deepspeed_is_asked_for,
    joining_explained,
    resolved_precision,
)
from dist_dsvae.methods.update import seed_gradient

_BUCKET_ELEMENTS = 2**23  # of gradients that DeepSpeed reduces at once; its default allocates 2 GB
NCCL_WAITS_LONGER = timedelta(seconds=60)
_NEVER = 2**31 - 1  # as a number of forwards


class Runtime:
    """Device, precision and processes of a run.

    mixed_precision: "no", "bf16" or "fp16", resolved from the command line, launcher and config.
    patience, fence: how this process waits for the others, and for its device.
    zero_stage: 1 or 2 where the launcher asks for DeepSpeed, else 0: DistributedDataParallel.
    dtype: of images and noise: float32, or float64 with train.double_precision.
    """

    def __init__(self, config: TrainConfig, mixed_precision: str | None = None) -> None:
        # An environment may switch TF32 on; log-densities need all of float32, and a graph keeps what it met
        torch.set_float32_matmul_precision("highest")
        use_cpu = not torch.cuda.is_available()
        self.timeout = timedelta(seconds=config.collective_timeout_seconds)
        self.patience = Patience(self.timeout)
        self.mixed_precision = resolved_precision(config, mixed_precision, use_cpu=use_cpu)
        check_compiler()
        zero = deepspeed_is_asked_for(config, self.mixed_precision)
        if not zero:
            check_accumulation()
        if not use_cpu:
            check_devices(torch.cuda.device_count())
        with joining_explained():
            self.accelerator = Accelerator(
                cpu=use_cpu and not zero,  # told of the CPU, Accelerate would leave DeepSpeed out
                # DeepSpeed's own bf16 keeps bf16 weights; here they stay float32 and torch casts
                mixed_precision="no" if zero else self.mixed_precision,
                kwargs_handlers=[
                    # Batch norm is synchronised (or each rank's own by choice): buffers need no broadcast.
                    DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
                    InitProcessGroupKwargs(
                        init_method=distributed.rendezvous_by_attempt(),
                        # NCCL ends a process that waits too long; the fence before that, with a sentence
                        timeout=self.timeout if use_cpu else self.timeout + NCCL_WAITS_LONGER,
                        backend="gloo" if zero and use_cpu else None,
                    ),
                ],
            )
            # NCCL's processes meet at their first collective
            precisions = distributed.gather_objects(self.mixed_precision)
        self._engine: Any = None
        check_launcher(self.accelerator.num_processes)
        check_precisions(precisions)
        check_kind(self.accelerator.distributed_type, zero)
        self.zero_stage = checked_stage(self._deepspeed_config) if zero else 0
        self.device: torch.device = self.accelerator.device
        self.fence = Fence(self.device, self.patience)
        self.world_size: int = self.accelerator.num_processes
        self.rank: int = self.accelerator.process_index
        self.dtype = torch.float64 if config.double_precision else torch.float32
        if self.scaler is not None:
            # makes its tensors, before a graph needs them
            self.scaler.scale(torch.zeros((), device=self.device))
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

    def autocast(self) -> AbstractContextManager[Any]:
        if self.zero_stage:
            enabled = self.mixed_precision == "bf16"
            return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)
        return cast("AbstractContextManager[Any]", self.accelerator.autocast())

    @property
    def half(self) -> torch.dtype | None:
        """What autocast casts to, None without it and under DeepSpeed, which holds on to the weights."""
        casts = {"bf16": torch.bfloat16, "fp16": torch.float16}
        return None if self.zero_stage else casts.get(self.mixed_precision)

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """The loss scaler of fp16, None in other precisions."""
        return cast("torch.amp.GradScaler | None", self.accelerator.scaler)

    def scale_state(self) -> Iterator[Tensor]:
        """The tensors of ``scaler``, live: the scale, and the updates since it changed."""
        if self.scaler is not None:
            # private names of torch, whose state_dict has copies on the host alone
            yield cast(Tensor, self.scaler._scale)
            yield cast(Tensor, self.scaler._growth_tracker)

    def wrap(self, method: nn.Module, ignored_parameters: list[str]) -> nn.Module:
        """Wrap into DistributedDataParallel where there are several processes.

        method: on the device already.
        ignored_parameters: names that the wrapped forward does not train (their step reduces its
        own gradients). Under DeepSpeed: the engine that ``shard`` made.
        """
        if self.zero_stage:
            assert self._engine is not None, "shard comes before wrap"
            return cast(nn.Module, self._engine)
        method._ddp_params_and_buffers_to_ignore = ignored_parameters  # type: ignore[assignment]
        with warnings.catch_warnings():
            # Accelerate has no other name for it; torch from 2.15 on prefers forward_sync_buffers.
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
            wrapped = cast(nn.Module, self.accelerator.prepare_model(method, device_placement=False))
        if isinstance(wrapped, DistributedDataParallel):
            # Its timers, by default every 100th forward, record events, which a graph capture may not meet.
            wrapped._set_ddp_runtime_logging_sample_rate(_NEVER)  # type: ignore[no-untyped-call]
        return wrapped

    @property
    def _deepspeed_config(self) -> dict[str, Any]:
        return cast("dict[str, Any]", self.accelerator.state.deepspeed_plugin.deepspeed_config)

    def shard(self, method: nn.Module, optimizer: torch.optim.Optimizer, settings: Mapping[str, Any]) -> Any:
        """Hand method and optimiser to DeepSpeed; returns its engine, which ``wrap`` gives from then on.

        settings: of DeepSpeed's configuration, beyond what the launcher's file says.
        """
        self._deepspeed_config.update(settings)
        self._deepspeed_config["zero_optimization"].setdefault("reduce_bucket_size", _BUCKET_ELEMENTS)
        self._deepspeed_config.setdefault("timers", {"throughput": {"enabled": False}})
        self._engine, _ = self.accelerator.prepare(method, optimizer)
        return self._engine

    def backward(self, loss: Tensor) -> None:
        """Gradients of a loss of the wrapped method, reduced over the processes."""
        if self.zero_stage:
            self._engine.backward(loss)  # accelerate's own would apply the update as well
        else:
            self.accelerator.backward(loss, gradient=seed_gradient(loss))

    def record(self) -> dict[str, Any]:
        """What trains, for environment.json."""
        cuda = self.device.type == "cuda"
        return {
            "world_size": self.world_size,
            "mixed_precision": self.mixed_precision,
            "device_type": self.device.type,
            "device": torch.cuda.get_device_name(self.device) if cuda else cpu_name(),
            "threads": self.num_threads,
        }

    def describe(self) -> str:
        """One sentence for the log: what trains."""
        # torch's default, which many an Ampere or later GPU is slow without
        tf32 = self.device.type == "cuda" and torch.backends.cudnn.allow_tf32
        float32 = "float32 (convolutions in TF32, if the GPU has it)" if tf32 else "float32"
        precision = {"no": float32, "bf16": "bf16 autocast", "fp16": "fp16 autocast"}[self.mixed_precision]
        if self.dtype == torch.float64:
            precision = "float64"
        processes = "1 process" if self.world_size == 1 else f"{self.world_size} processes"
        device = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        threads = f", {self.num_threads} threads each" if self.device.type == "cpu" else ""
        zero = f", ZeRO stage {self.zero_stage}" if self.zero_stage else ""
        return f"Training with {processes} on {device}{threads}, {precision}{zero}."

    def close(self) -> None:
        self.accelerator.end_training()


def _set_threads(configured: int) -> int:
    """`accelerate launch` sets OMP_NUM_THREADS=1 by default, which would leave all other cores idle."""
    local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    available = available_cores()
    cores = min(available, psutil.cpu_count(logical=False) or available)
    threads = configured or max(1, cores // local_processes)
    torch.set_num_threads(threads)
    return threads
