"""Runtime: the process group, the device and the precision that this process trains with.

Owns the Accelerator. What `accelerate launch` promised and what Accelerate found are compared at
the start, because the launcher's obvious CPU flags silently start one process, or several that
each believe they are alone.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, InitProcessGroupKwargs
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dist_dsvae.config import TrainConfig
from dist_dsvae.core import distributed
from dist_dsvae.engine.stopping.fence import Fence, Patience

_BUCKET_ELEMENTS = 2**23  # of gradients that DeepSpeed reduces at once; its default allocates 2 GB
_NCCL_WAITS_LONGER = timedelta(seconds=60)
_NEVER = 2**31 - 1  # as a number of forwards


class LaunchError(ValueError):
    """The processes were not started as this program needs them."""


class Runtime:
    """Device, precision and processes of a run.

    mixed_precision: "no", "bf16" or "fp16", resolved from the command line, launcher and config.
    patience, fence: how this process waits for the others, and for its device.
    zero_stage: 1 or 2 where the launcher asks for DeepSpeed, else 0: DistributedDataParallel.
    dtype: of images and noise: float32, or float64 with train.double_precision.
    """

    def __init__(self, config: TrainConfig, mixed_precision: str | None = None) -> None:
        use_cpu = not torch.cuda.is_available()
        self.timeout = timedelta(seconds=config.collective_timeout_seconds)
        self.patience = Patience(self.timeout)
        self.mixed_precision = _resolve_precision(config, mixed_precision, use_cpu=use_cpu)
        zero = _deepspeed_is_asked_for(config, self.mixed_precision)
        self.accelerator = Accelerator(
            cpu=use_cpu and not zero,  # told of the CPU, Accelerate would leave DeepSpeed out
            # DeepSpeed's own bf16 keeps bf16 weights; here they stay float32 and torch casts, as without it
            mixed_precision="no" if zero else self.mixed_precision,
            kwargs_handlers=[
                # Batch norm is synchronised (or each rank's own by choice), so buffers need no broadcast.
                DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
                InitProcessGroupKwargs(
                    init_method=distributed.rendezvous_by_attempt(),
                    # NCCL ends a process that waits too long; the fence before that, with a sentence
                    timeout=self.timeout if use_cpu else self.timeout + _NCCL_WAITS_LONGER,
                    backend="gloo" if zero and use_cpu else None,
                ),
            ],
        )
        self._engine: Any = None
        _check_launcher(self.accelerator.num_processes)
        _check_kind(self.accelerator.distributed_type, zero)
        self.zero_stage = _checked_stage(self._deepspeed_config) if zero else 0
        self.device: torch.device = self.accelerator.device
        self.fence = Fence(self.device, self.patience)
        self.world_size: int = self.accelerator.num_processes
        self.rank: int = self.accelerator.process_index
        self.dtype = torch.float64 if config.double_precision else torch.float32
        if self.scaler is not None:
            self.scaler.scale(
                torch.zeros((), device=self.device)
            )  # makes its tensors, before a graph needs them
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
        casting: AbstractContextManager[Any] = self.accelerator.autocast()
        if self.zero_stage:
            enabled = self.mixed_precision == "bf16"
            casting = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)
        with casting:
            yield

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
        """Move to the device and wrap into DistributedDataParallel where there are several processes.

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
            wrapped = cast(nn.Module, self.accelerator.prepare_model(method))
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
            self.accelerator.backward(loss)

    def describe(self) -> str:
        """One sentence for the log: what trains."""
        precision = {"no": "float32", "bf16": "bf16 autocast", "fp16": "fp16 autocast"}[self.mixed_precision]
        if self.dtype == torch.float64:
            precision = "float64"
        processes = "1 process" if self.world_size == 1 else f"{self.world_size} processes"
        device = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        threads = f", {self.num_threads} threads each" if self.device.type == "cpu" else ""
        zero = f", ZeRO stage {self.zero_stage}" if self.zero_stage else ""
        return f"Training with {processes} on {device}{threads}, {precision}{zero}."

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
        native = _multiplies_bf16(_cpu_flags()) if use_cpu else torch.cuda.is_bf16_supported(False)
        return "bf16" if native else "no"
    if chosen == "fp16" and use_cpu:
        raise LaunchError("Mixed precision fp16 needs a GPU; on a CPU choose no or bf16.")
    if chosen not in ("no", "bf16", "fp16"):
        raise LaunchError(f"Mixed precision {chosen!r} is not supported; allowed: no, bf16, fp16.")
    return chosen


def _multiplies_bf16(flags: Collection[str]) -> bool:
    """Whether a CPU with these flags multiplies bf16 natively: by vectors (AVX512-BF16) or tiles (AMX)."""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Those of this machine's CPU that matter to bf16, by their names in ``cpuinfo``."""
    # private names of torch, which knows more systems than Linux; where they are gone, the file tells
    names = {"avx512_bf16": "_is_avx512_bf16_supported", "amx_bf16": "_is_amx_tile_supported"}
    if all(hasattr(torch.cpu, name) for name in names.values()):
        return {flag for flag, name in names.items() if getattr(torch.cpu, name)()}
    listed = cpuinfo.read_text(encoding="utf-8").split() if cpuinfo.is_file() else []
    return names.keys() & set(listed)


def _check_launcher(num_processes: int) -> None:
    promised = int(os.environ.get("WORLD_SIZE", "1"))
    if promised != num_processes:
        raise LaunchError(
            f"The launcher started {promised} processes (WORLD_SIZE), but Accelerate sees "
            f"{num_processes}: each would train a model of its own. On a CPU start with `accelerate launch "
            "--config_file configs/accelerate/cpu.yaml --num_processes N`; on GPUs with "
            "`--multi_gpu --num_processes N`, N at most the number of GPUs."
        )


def _deepspeed_is_asked_for(config: TrainConfig, mixed_precision: str) -> bool:
    """Whether the launcher asks for DeepSpeed. Raises LaunchError where it cannot be had."""
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() != "true":
        return False
    for package in ("deepspeed", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise LaunchError(
                f"The launcher asks for DeepSpeed, but the package {package} is missing. Install it with "
                'pip install "dist_dsvae[deepspeed]", or launch with configs/accelerate/multi_gpu.yaml.'
            )
    if config.double_precision or mixed_precision == "fp16":
        asked = "train.double_precision" if config.double_precision else "Mixed precision fp16"
        raise LaunchError(
            f"{asked} is not supported together with DeepSpeed, which keeps float32 weights here and no loss "
            "scale. Choose --mixed_precision no or bf16, or launch without DeepSpeed."
        )
    return True


def _checked_stage(config: Mapping[str, Any]) -> int:
    """The stage of ZeRO in DeepSpeed's configuration. Raises LaunchError for what is not supported."""
    zero = config["zero_optimization"]
    stage = zero["stage"]
    if stage not in (1, 2):
        raise LaunchError(
            f"DeepSpeed is asked for ZeRO stage {stage}; supported are 1 (optimiser state divided over the "
            "processes) and 2 (gradients as well): configs/accelerate/zero1.yaml and zero2.yaml. Without "
            "ZeRO launch with configs/accelerate/multi_gpu.yaml."
        )
    for key in ("offload_optimizer", "offload_param"):
        device = (zero.get(key) or {}).get("device", "none")
        if device != "none":
            raise LaunchError(
                f"DeepSpeed is asked to keep state elsewhere ({key}: {device}), which is not supported. "
                "Leave that out of the launcher's file."
            )
    for key, allowed in (("gradient_accumulation_steps", (1, "auto")), ("gradient_clipping", ("auto",))):
        given = config.get(key, allowed[0])
        if given not in allowed:
            raise LaunchError(
                f"The launcher sets DeepSpeed's {key} to {given}. Leave it out: an update is made from one "
                "batch (data.batch_size), its gradients clipped by optimizer.clip_gradient_norm."
            )
    for key in ("fp16", "bf16"):
        if config.get(key, {}).get("enabled") is True:
            raise LaunchError(
                f"DeepSpeed's own {key} is switched on, which would train half-precision weights. Leave it "
                "out and choose --mixed_precision bf16: float32 weights under autocast."
            )
    return int(stage)


def _check_kind(kind: DistributedType, zero: bool) -> None:
    if zero and kind is not DistributedType.DEEPSPEED:
        raise LaunchError(
            "The launcher asks for DeepSpeed, but Accelerate left it out. Launch with --config_file "
            "configs/accelerate/zero1.yaml and without ACCELERATE_USE_CPU: where there is no GPU (or "
            "CUDA_VISIBLE_DEVICES is empty) ZeRO trains on the CPU by itself."
        )
    supported = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)
    if kind not in supported and not zero:
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
