"""Step time against the number of GPUs: a model from measured parts, checked against real processes."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from dist_dsvae.commands.benchmarks.prediction import predicted_seconds
from dist_dsvae.commands.benchmarks.scaling_model import Collective, Links, step_seconds
from dist_dsvae.commands.benchmarks.timing import Result, in_turn, rounded, seconds
from dist_dsvae.config import TrainConfig
from dist_dsvae.core import distributed
from dist_dsvae.engine.iteration.iteration import Iteration
from dist_dsvae.engine.iteration.updates import OverlappedUpdate
from dist_dsvae.engine.measuring.devices import device_called
from dist_dsvae.engine.measuring.synthetic import make_inputs, make_iteration, make_method
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.methods.update import Reduction

_LARGE_BYTES = 2**24
_SMALL_BYTES = 2**10


def run(args: argparse.Namespace) -> Result | None:
    if args.worker:
        measure_as_worker(args)
        return None
    if max(args.processes) < 2:
        raise ValueError(
            "--processes names no number above 1; the cost of talking is measured between processes."
        )
    gpu = device_called(args.device) if args.device else None
    measured = {n: launch_workers(args, n) for n in args.processes}
    pair = measured[min(n for n in args.processes if n > 1)]
    links_here = Links(
        latency_seconds=pair["latency_seconds"],
        inside=pair["bytes_per_second"],
        between=pair["bytes_per_second"],
        gpus_per_node=max(args.processes),
    )
    collectives = [Collective(**c) for c in pair["collectives"]]
    on_gpu = torch.cuda.is_available()
    check = {}
    for n, result in measured.items():
        compute = result["compute_seconds"]
        # on a CPU the collectives take the cores that compute, so nothing is hidden
        predicted = step_seconds(compute, compute / 3 if on_gpu else 0.0, collectives, links_here, n)
        check[n] = {"measured": result["seconds"], "compute": compute, "predicted": predicted}
    compute, source = pair["compute_seconds"], "measured here"
    if args.compute_seconds:
        compute, source = args.compute_seconds, "given"
    elif gpu is not None:
        networks = (args.architecture, args.classes, args.local_batch_size, args.mixed_precision)
        compute, source = predicted_seconds(gpu, *networks), f"a model's prediction for {gpu.name}"
    links = Links(
        latency_seconds=args.latency_us * 1e-6,
        inside=args.inside_gb * 1e9,
        between=args.between_gb * 1e9,
        gpus_per_node=args.gpus_per_node,
    )
    counts = [2**i for i in range(11)]
    without = [c for c in collectives if c.overlapped or c.num_bytes > 2**16]
    efficiency = {
        name: {n: compute / step_seconds(compute, compute / 3, chosen, links, n) for n in counts}
        for name, chosen in (("synchronised batch norm", collectives), ("each GPU's own", without))
    }
    if args.picture:
        draw(args.picture, check, efficiency, compute)
    return {
        "benchmark": "scale",
        "architecture": args.architecture,
        "local_batch_size": args.local_batch_size,
        "check_seconds": {f"{n} processes": rounded(c) for n, c in check.items()},
        "largest_error": round(max(abs(c["predicted"] / c["measured"] - 1) for c in check.values()), 3),
        "collectives_per_iteration": sum(c.count for c in collectives),
        "mib_all_reduced_per_iteration": round(sum(c.count * c.num_bytes for c in collectives) / 2**20, 1),
        "link_here": {
            "latency_us": round(links_here.latency_seconds * 1e6, 1),
            "gb_per_second": round(links_here.inside / 1e9, 2),
        },
        "compute_seconds": float(f"{compute:.3g}"),
        "compute_seconds_are": source,
        "efficiency": {name: {str(n): round(e, 3) for n, e in c.items()} for name, c in efficiency.items()},
    }


# Workers: one process per device


def launch_workers(args: argparse.Namespace, num_processes: int) -> dict[str, Any]:
    """Run this command as ``num_processes`` workers; what rank 0 measured."""
    passed = ["--architecture", args.architecture, "--classes", str(args.classes)]
    passed += ["--local-batch-size", str(args.local_batch_size), "--rounds", str(args.rounds)]
    passed += ["--mixed_precision", args.mixed_precision]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
    launcher += ["--module", "dist_dsvae.commands.benchmark"]
    search = [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]  # installed or not
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, search))}
    if not torch.cuda.is_available():
        environment["ACCELERATE_USE_CPU"] = "true"
    done = subprocess.run(
        [sys.executable, *launcher, "scale", "--worker", *passed],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{num_processes} processes failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def measure_as_worker(args: argparse.Namespace) -> None:
    runtime = Runtime(TrainConfig(cpu_threads=1), args.mixed_precision)
    batch_size = args.local_batch_size
    method = make_method(args.architecture, args.classes)
    iteration = make_iteration(method, runtime, batch_size * runtime.world_size)
    inputs = make_inputs(args.architecture, args.classes, batch_size, iteration.num_batches, runtime.device)
    collectives = collectives_of(lambda: iteration(*inputs))
    if runtime.world_size > 1:
        names = {n for s in method.updates if s.reduction is Reduction.OVERLAPPED for n in s.trains}
        size = sum(4 * p.numel() for name in names for p in method.get_submodule(name).parameters())
        collectives.append({"kind": "all_reduce", "num_bytes": size, "count": 1, "overlapped": True})
    sides = {
        "seconds": seconds(lambda: iteration(*inputs)),
        "compute_seconds": seconds(lambda: without_collectives(iteration, inputs)),
    }
    medians = in_turn(sides, args.rounds)
    result = {**medians, "collectives": collectives, **measure_link(runtime)}
    if runtime.is_main:
        print(json.dumps(result))
    runtime.close()


def without_collectives(iteration: Iteration, inputs: list[Tensor]) -> None:
    """The same arithmetic with every rank on its own: what its share of the machine computes in."""

    def gather(whole: Tensor, part: Tensor) -> None:
        whole.view(-1, len(part)).copy_(part)

    wrapped = [run.wrapped for run in iteration.run_update.values() if isinstance(run, OverlappedUpdate)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(dist, "all_reduce", return_value=None))
        stack.enter_context(mock.patch.object(distributed, "gather_into", gather))
        for module in wrapped:
            if isinstance(module, DistributedDataParallel):
                stack.enter_context(module.no_sync())
        iteration(*inputs)


def collectives_of(function: Callable[[], object]) -> list[dict[str, Any]]:
    """What goes through torch.distributed's functions (DistributedDataParallel's own do not)."""
    seen: Counter[tuple[str, int]] = Counter()
    all_reduce, gather_into = dist.all_reduce, distributed.gather_into

    def noted_reduce(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        seen["all_reduce", tensor.numel() * tensor.element_size()] += 1
        return all_reduce(tensor, *args, **kwargs)

    def noted_gather(whole: Tensor, part: Tensor) -> None:
        seen["all_gather", part.numel() * part.element_size()] += 1
        gather_into(whole, part)

    with (
        mock.patch.object(dist, "all_reduce", noted_reduce),
        mock.patch.object(distributed, "gather_into", noted_gather),
    ):
        function()
    return [{"kind": kind, "num_bytes": size, "count": count} for (kind, size), count in seen.items()]


def measure_link(runtime: Runtime) -> dict[str, float]:
    """Latency of a hop and bytes per second, from small and large all-reduces."""
    world_size = runtime.world_size
    if world_size == 1:
        return {}
    small, large = (torch.zeros(size // 4, device=runtime.device) for size in (_SMALL_BYTES, _LARGE_BYTES))
    for _ in range(3):
        dist.all_reduce(small)
    times = {
        "small": min(seconds(lambda: dist.all_reduce(small))() for _ in range(50)),
        "large": min(seconds(lambda: dist.all_reduce(large))() for _ in range(8)),
    }
    hops = 2 * (world_size - 1).bit_length()
    transferred = 2 * (world_size - 1) / world_size * _LARGE_BYTES
    return {
        "latency_seconds": times["small"] / hops,
        "bytes_per_second": transferred / (times["large"] - times["small"]),
    }


def draw(
    path: Path,
    check: dict[int, dict[str, float]],
    efficiency: dict[str, dict[int, float]],
    compute: float,
) -> None:
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for name, marker in (("measured", "o"), ("predicted", "x")):
        left.plot(list(check), [c[name] for c in check.values()], marker=marker, label=name)
    left.set(title="this machine", xlabel="processes", ylabel="seconds per iteration", ylim=(0, None))
    left.set_xticks(list(check))
    left.legend()
    for name, curve in efficiency.items():
        right.plot(list(curve), [100 * e for e in curve.values()], marker=".", label=name)
    right.set_xscale("log", base=2)
    right.set(
        title=f"predicted, {compute:.3g} s of compute per GPU",
        xlabel="GPUs",
        ylabel="% of linear scaling",
        ylim=(0, 105),
    )
    right.legend(title="batch norm")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
