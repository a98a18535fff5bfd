"""This host alone, without a word to the others: processor, GPUs, limits, SLURM."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psutil
import torch

from dist_dsvae.core.process import available_cores
from dist_dsvae.engine.doctor.finding import Figure, Finding, failed, ok, skipped, warning
from dist_dsvae.engine.processes.launch_checks import gpu_lacking

_GIB = 2**30
_SCARCE_MEMORY_BYTES = 4 * _GIB
_SCARCE_SHARED_BYTES = 1 * _GIB
_FEW_DESCRIPTORS = 4096
_MUCH_USED = 0.1  # of a GPU's memory, by others


def host() -> Finding:
    """Processor, threads and memory."""
    cores = available_cores()
    free = psutil.virtual_memory().available
    figures: dict[str, Figure] = {"cores": cores, "free_memory_gib": round(free / _GIB, 1)}
    text = f"{platform.machine()}, cores: {cores}, memory free: {free / _GIB:.1f} GiB"
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if local > cores:
        remedy = "Start fewer processes here, or ask the scheduler for more cores."
        return warning("host", f"{local} processes, but only {cores} cores to run on", remedy, **figures)
    if free < _SCARCE_MEMORY_BYTES:
        remedy = "Close other programs; data.source=stream and fewer data.num_workers take the least."
        return warning("host", text, remedy, **figures)
    return ok("host", text, **figures)


def gpus() -> Finding:
    """Driver, CUDA and the GPUs; that of this process is looked into."""
    driver = _driver_version()
    if not torch.cuda.is_available():
        return no_gpu(driver, torch.version.cuda, os.environ.get("CUDA_VISIBLE_DEVICES"))
    count, local_rank = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", "0"))
    if (lacking := gpu_lacking(count)) is not None:
        return failed("gpus", *lacking)
    properties = torch.cuda.get_device_properties(local_rank)
    free, total = torch.cuda.mem_get_info(local_rank)
    version = f"{properties.major}.{properties.minor}"
    text = (
        f"{count} GPU{'s' if count > 1 else ''}, {local_rank} is {properties.name}, {total / _GIB:.0f} GiB, "
        f"compute capability {version}; driver {driver}, CUDA {torch.version.cuda}"
    )
    figures: dict[str, Figure] = {"count": count, "name": properties.name, "free_gib": round(free / _GIB, 1)}
    if free < (1 - _MUCH_USED) * total:
        remedy = "nvidia-smi shows who uses it: end that program, or choose another by CUDA_VISIBLE_DEVICES."
        return warning("gpus", f"{text}; only {free / _GIB:.0f} GiB are free", remedy, **figures)
    if not torch.cuda.is_bf16_supported(False):
        remedy = "Nothing to mend: train.mixed_precision auto takes float32 here."
        return warning("gpus", f"{text}; it does not multiply bf16", remedy, **figures)
    return ok("gpus", text, **figures)


def no_gpu(driver: str | None, built_for: str | None, visible: str | None) -> Finding:
    """torch sees no GPU: whether that is as it should be.

    driver: version of the machine's driver, None without one. built_for: torch's CUDA, None for none.
    visible: CUDA_VISIBLE_DEVICES.
    """
    if driver is None:
        return skipped("gpus", "no NVIDIA driver: training runs on the CPU")
    if visible is not None and visible.strip() in ("", "-1"):
        remedy = "unset CUDA_VISIBLE_DEVICES, unless the CPU is meant."
        return warning("gpus", "CUDA_VISIBLE_DEVICES hides all GPUs from this process", remedy)
    if built_for is None:
        remedy = "Install a torch with CUDA, as https://pytorch.org/get-started/locally says."
        return failed("gpus", f"the driver is {driver}, but this torch was built without CUDA", remedy)
    return failed(
        "gpus",
        f"the driver is {driver}, but torch (CUDA {built_for}) can use no GPU",
        "Update the driver, or install a torch for an older CUDA; in a container start it with --gpus all.",
    )


def _driver_version() -> str | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        return "unknown (nvidia-smi hangs)"
    return done.stdout.strip().partition("\n")[0] or "unknown"


def shared_memory(directory: Path = Path("/dev/shm")) -> Finding:
    """Through which data workers hand their batches over."""
    name = "shared-memory"
    if not directory.is_dir():
        return skipped(name, f"there is no {directory}")
    free = shutil.disk_usage(directory).free
    figures = {"free_gib": round(free / _GIB, 2)}
    if free < _SCARCE_SHARED_BYTES:
        return warning(
            name,
            f"{directory} has {free / 2**20:.0f} MiB free, and data workers pass their batches through it",
            "Start the container with --shm-size=8g (or --ipc=host), or train with data.source=resident or "
            "data.num_workers=0.",
            **figures,
        )
    return ok(name, f"{free / _GIB:.1f} GiB free in {directory}", **figures)


def file_descriptors(limit: int | None = None) -> Finding:
    """limit: of open files, where it is not this process's own."""
    name = "file-descriptors"
    if limit is None:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        limit = 2**31 - 1 if limit == resource.RLIM_INFINITY else limit
    if limit < _FEW_DESCRIPTORS:
        return warning(
            name,
            f"a process may open {limit} files, which many data workers and processes can use up",
            "ulimit -n 65536 before the start, or LimitNOFILE= of the service that starts it.",
            limit=limit,
        )
    return ok(name, f"a process may open {limit:,} files", limit=limit)


def slurm(variables: Mapping[str, str] = os.environ, num_gpus: int | None = None) -> Finding:
    """What SLURM gave, against what was started. num_gpus: those that torch sees, unless given."""
    if "SLURM_JOB_ID" not in variables:
        return skipped("slurm", "not inside a SLURM job")
    count = torch.cuda.device_count() if num_gpus is None else num_gpus
    names = ("JOB_NUM_NODES", "NTASKS", "CPUS_PER_TASK", "GPUS_ON_NODE")
    given = {name: variables[f"SLURM_{name}"] for name in names if f"SLURM_{name}" in variables}
    text = f"job {variables['SLURM_JOB_ID']}: " + ", ".join(f"{key} {value}" for key, value in given.items())
    several = int(variables.get("SLURM_NTASKS", "1")) > 1 and variables.get("SLURM_STEP_ID", "").isdigit()
    if several and "WORLD_SIZE" not in variables:  # srun started this, and no launcher
        return failed(
            "slurm",
            f"{text}; srun started several programs, each of which believes that it is alone",
            "Start through launch/slurm/train.sbatch: one launcher per node, which starts the processes.",
            **given,
        )
    granted = variables.get("SLURM_GPUS_ON_NODE", "0")
    if granted.isdigit() and int(granted) > count:
        remedy = "Look at nvidia-smi on that node; does the container pass its GPUs on (--nv, --gpus)?"
        return warning("slurm", f"{text}; SLURM granted {granted} GPUs, torch sees {count}", remedy, **given)
    if "SLURM_CPUS_PER_TASK" not in variables:
        remedy = "Add --cpus-per-task: data workers and threads share what is given."
        return warning("slurm", f"{text}; no --cpus-per-task, which most clusters take as 1", remedy, **given)
    return ok("slurm", text, **given)
