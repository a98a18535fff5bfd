"""What the launcher promised against what is there: processes, precision, DeepSpeed.

What `accelerate launch` promised and what Accelerate found are compared at the start, because the launcher's
obvious CPU flags silently start one process, or several that each believe they are alone.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType

from dist_dsvae.config import TrainConfig

_SIGNS_OF_A_NETWORK = ("gloo", "nccl", "address", "connect", "timed out", "timeout")


class LaunchError(ValueError):
    """The processes were not started as this program needs them."""


@contextmanager
def joining_explained() -> Iterator[None]:
    """Several processes that do not come together in the block, as a LaunchError."""
    try:
        yield
    except RuntimeError as error:
        alone = os.environ.get("WORLD_SIZE", "1") in ("", "1")
        if alone or not any(sign in str(error).lower() for sign in _SIGNS_OF_A_NETWORK):
            raise
        first_line = str(error).strip().partition("\n")[0]
        interfaces = {name: os.environ.get(name) for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")}
        named = ", ".join(f"{name}={value}" for name, value in interfaces.items() if value)
        raise LaunchError(
            f"The processes cannot reach each other: {first_line}. Name the network interface between the "
            f"hosts in GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME (now {named or 'not set'}), and see that "
            "the launcher's --main_process_ip and --main_process_port are right."
        ) from None


def resolved_precision(config: TrainConfig, argument: str | None, *, use_cpu: bool) -> str:
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
        native = _multiplies_bf16(cpu_flags()) if use_cpu else torch.cuda.is_bf16_supported(False)
        return "bf16" if native else "no"
    if chosen == "fp16" and use_cpu:
        raise LaunchError("Mixed precision fp16 needs a GPU; on a CPU choose no or bf16.")
    if chosen not in ("no", "bf16", "fp16"):
        raise LaunchError(f"Mixed precision {chosen!r} is not supported; allowed: no, bf16, fp16.")
    return chosen


def _multiplies_bf16(flags: Collection[str]) -> bool:
    """Whether a CPU with these flags multiplies bf16 natively: by vectors (AVX512-BF16) or tiles (AMX)."""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Those of this machine's CPU that matter to bf16, by their names in ``cpuinfo``."""
    # private names of torch, which knows more systems than Linux; where they are gone, the file tells
    names = {"avx512_bf16": "_is_avx512_bf16_supported", "amx_bf16": "_is_amx_tile_supported"}
    if all(hasattr(torch.cpu, name) for name in names.values()):
        return {flag for flag, name in names.items() if getattr(torch.cpu, name)()}
    listed = cpuinfo.read_text(encoding="utf-8").split() if cpuinfo.is_file() else []
    return names.keys() & set(listed)


def check_launcher(num_processes: int) -> None:
    promised = int(os.environ.get("WORLD_SIZE", "1"))
    if promised != num_processes:
        raise LaunchError(
            f"The launcher started {promised} processes (WORLD_SIZE), but Accelerate sees "
            f"{num_processes}: each would train a model of its own. On a CPU start with `accelerate launch "
            "--config_file configs/accelerate/cpu.yaml --num_processes N`; on GPUs with "
            "`--multi_gpu --num_processes N`, N at most the number of GPUs."
        )


def gpu_lacking(num_gpus: int) -> tuple[str, str] | None:
    """What is wrong where this process, by its number here, has no GPU of its own, and what to do."""
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if local_rank < num_gpus:
        return None
    return (
        f"process {local_rank} of this machine has no GPU of its own: there are {num_gpus}",
        f"Start at most {num_gpus} processes here (--num_processes), or look why the others are hidden "
        "(nvidia-smi, CUDA_VISIBLE_DEVICES): every process has to see all of the job's GPUs. Of MIG's "
        "instances a process sees one.",
    )


def check_devices(num_gpus: int) -> None:
    """Before the processes meet: two on one GPU would be refused by NCCL, with a traceback."""
    if (lacking := gpu_lacking(num_gpus)) is not None:
        what, remedy = lacking
        raise LaunchError(f"{what[0].upper()}{what[1:]}. {remedy}")


def check_accumulation() -> None:
    """Accelerate would divide the losses of the updates that it knows of, and of no others."""
    asked = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if asked != "1":
        raise LaunchError(
            f"The launcher asks for {asked} steps of gradient accumulation "
            "(ACCELERATE_GRADIENT_ACCUMULATION_STEPS). Leave it out: an update is made from one batch "
            "(data.batch_size)."
        )


def check_compiler() -> None:
    """Accelerate would compile each method's forward, under a CUDA graph that is captured besides."""
    asked = os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no")
    if asked.lower() != "no":
        raise LaunchError(
            f"The launcher asks for torch.compile with {asked} (--dynamo_backend, or dynamo_config in its "
            "file). Leave it out: on a GPU whole iterations are captured as a CUDA graph instead "
            "(train.cuda_graph)."
        )


def check_precisions(of_processes: Sequence[str]) -> None:
    """Of all processes: each decides alone, by its own machine, what "auto" is."""
    if len(set(of_processes)) > 1:
        found = ", ".join(f"process {rank}: {name}" for rank, name in enumerate(of_processes))
        raise LaunchError(
            f"The processes would train in different precision ({found}), since not all machines multiply "
            "bf16. Choose one for all: --mixed_precision no, or train.mixed_precision."
        )


def deepspeed_is_asked_for(config: TrainConfig, mixed_precision: str) -> bool:
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


def checked_stage(config: Mapping[str, Any]) -> int:
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


def check_kind(kind: DistributedType, zero: bool) -> None:
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
