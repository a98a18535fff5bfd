"""What the processes do together: their clocks, and the collectives of training. Called by all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from dist_dsvae.core import distributed
from dist_dsvae.engine.doctor.finding import Finding, failed, ok, skipped, warning
from dist_dsvae.engine.doctor.trial import seconds_of
from dist_dsvae.engine.processes.runtime import Runtime

_CLOCK_ROUNDS = 5
# A rank counts as silent if what it wrote 2.5 s ago by its clock is its last line
_SKEW_SECONDS = 1.0
_LATENCY_CALLS = 50
_BANDWIDTH_CALLS = 5
_LARGE = {"cuda": 64 * 2**20, "cpu": 4 * 2**20}  # bytes
# What suffices for networks of 100 MiB at some iterations per second
_SLOW_GB_PER_SECOND = {"nccl": 5.0, "gloo": 0.05}
_SLOW_LATENCY_SECONDS = {"nccl": 1e-3, "gloo": 2e-2}


def clocks(runtime: Runtime) -> Finding:
    """How far the processes' clocks are apart."""
    if runtime.world_size == 1:
        return skipped("clocks", "one process has no other clock to compare with")
    spreads = []
    for _ in range(_CLOCK_ROUNDS):
        distributed.barrier()
        now = distributed.all_gather(torch.tensor([time.time()], dtype=torch.float64, device=runtime.device))
        spreads.append((now.max() - now.min()).item())
    return judged_clocks(min(spreads))  # the barrier itself lets them go at slightly different times


def judged_clocks(seconds: float) -> Finding:
    """seconds: between the earliest and the latest clock. Only a warning: no result depends on it."""
    text = f"{1000 * seconds:.1f} ms between the earliest and the latest"
    if seconds > _SKEW_SECONDS:
        remedy = (
            "Start a time service (chronyd or ntpd) on every host: times in logs and files disagree, and a "
            "message about a missing rank can name the wrong one."
        )
        return warning("clocks", text, remedy, seconds=round(seconds, 3))
    return ok("clocks", text, seconds=round(seconds, 4))


def collectives(runtime: Runtime) -> Finding:
    """All-reduce and all-gather: right, and how fast."""
    name, size, rank = "collectives", runtime.world_size, runtime.rank
    if size == 1:
        return skipped(name, "one process needs none; accelerate launch or torchrun start several")
    mine = torch.full((1000,), float(rank + 1), device=runtime.device)
    total = distributed.all_reduce_sum(mine.clone())
    parts = distributed.all_gather(mine)
    runtime.fence.synchronize()
    expected = torch.arange(1, size + 1, dtype=torch.float32)
    if not bool((total == expected.sum().item()).all()) or parts[:, 0].cpu().tolist() != expected.tolist():
        remedy = "Do not train here. NCCL_P2P_DISABLE=1 tells whether the direct links are at fault."
        return failed(name, f"the ranks' numbers 1 to {size} added up or gathered wrongly", remedy)
    small, large = _zeros(4, runtime), _zeros(_LARGE[runtime.device.type], runtime)
    reduce_latency = _seconds(lambda: distributed.all_reduce_sum(small), _LATENCY_CALLS, runtime)
    gather_latency = _seconds(lambda: distributed.all_gather(small), _LATENCY_CALLS, runtime)
    whole = _seconds(lambda: distributed.all_reduce_sum(large), _BANDWIDTH_CALLS, runtime)
    moved = 2 * (size - 1) / size * large.numel() * large.element_size()  # by each rank, in a ring
    return judged_collectives(
        distributed.backend(), size, reduce_latency, gather_latency, moved / whole / 1e9
    )


def judged_collectives(backend: str, size: int, reduce: float, gather: float, gigabytes: float) -> Finding:
    """reduce, gather: seconds of 4 bytes. gigabytes: per second that each rank sends in a large one."""
    name = "collectives"
    backend = "nccl" if "nccl" in backend else "gloo"
    text = (
        f"{size} processes by {backend}: all-reduce of 4 bytes {1e6 * reduce:.0f} us, all-gather "
        f"{1e6 * gather:.0f} us, large all-reduce {gigabytes:.2f} GB/s"
    )
    figures = {
        "all_reduce_us": round(1e6 * reduce, 1),
        "all_gather_us": round(1e6 * gather, 1),
        "all_reduce_gb_per_second": round(gigabytes, 3),
    }
    if gigabytes < _SLOW_GB_PER_SECOND[backend] or reduce > _SLOW_LATENCY_SECONDS[backend]:
        variable = f"{backend.upper()}_SOCKET_IFNAME"
        remedy = (
            f"Name the fast interface in {variable} (ip -br addr lists them)"
            + ("; NCCL_DEBUG=INFO says which links it uses." if backend == "nccl" else ".")
            + " On one host: fewer processes than cores."
        )
        return warning(name, text, remedy, **figures)
    return ok(name, text, **figures)


def _zeros(num_bytes: int, runtime: Runtime) -> torch.Tensor:
    return torch.zeros(num_bytes // 4, device=runtime.device)


def _seconds(call: Callable[[], object], count: int, runtime: Runtime) -> float:
    """Median over the calls on this rank."""
    spent = [seconds_of(call, runtime) for _ in range(count + 1)]
    return statistics.median(spent[1:])
