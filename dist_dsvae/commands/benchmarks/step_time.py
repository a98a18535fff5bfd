"""One training iteration against a plain eager transcription, and where its time goes."""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib
import itertools
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from dist_dsvae.commands.benchmarks.timing import Result, in_turn, rounded, seconds, wait_for_gpu
from dist_dsvae.config import DataConfig, TrainConfig
from dist_dsvae.core import distributed
from dist_dsvae.data.feed import Feed
from dist_dsvae.data.open_split import open_split
from dist_dsvae.data.stream import Slice
from dist_dsvae.data.transforms import to_batch
from dist_dsvae.engine.iteration.cuda_graph import Graphed
from dist_dsvae.engine.iteration.iteration import Iteration
from dist_dsvae.engine.iteration.optimizer import UpdateOptimizer
from dist_dsvae.engine.iteration.updates import FlatUpdate, OverlappedUpdate
from dist_dsvae.engine.measuring import synthetic
from dist_dsvae.engine.measuring.roofline import work_of
from dist_dsvae.engine.measuring.synthetic import make_inputs, make_iteration, make_method
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.methods.dsvae import DSVAE

Run = Callable[[], object]


def run(args: argparse.Namespace) -> Result:
    runtime = Runtime(TrainConfig(mixed_precision="auto"), args.mixed_precision)
    method = make_method(args.architecture, args.classes)
    plain_method = copy.deepcopy(method)
    iteration = make_iteration(method, runtime, args.batch_size)
    inputs = make_inputs(
        args.architecture, args.classes, args.batch_size, iteration.num_batches, runtime.device
    )
    flops = work_of(lambda: iteration(*inputs)).flops
    split = split_of_time(iteration, inputs, args.rounds)
    sides: dict[str, Run] = {"plain eager": plain_iteration(plain_method, runtime.device, inputs)}
    on_gpu = runtime.device.type == "cuda"
    if on_gpu:
        sides["ours, eager"] = lambda: iteration(*inputs)
        graphed = Graphed(iteration, iteration.state)
        sides["ours"] = lambda: graphed(*inputs)
    else:
        sides["ours"] = lambda: iteration(*inputs)
    if args.shards:
        sides |= fed_from_shards(args, runtime)
    medians = in_turn({name: seconds(side) for name, side in sides.items()}, args.rounds)
    ceiling = matrix_ceiling(runtime)
    precision = "float32" if runtime.mixed_precision == "no" else runtime.mixed_precision
    result: Result = {
        "benchmark": "step",
        "architecture": args.architecture,
        "batch_size": args.batch_size,
        "precision": f"{precision} (plain eager: float32{', TF32' if on_gpu else ''})",
        "seconds_per_iteration": rounded(medians),
        "seconds_by_part_eager": rounded(split),
        "gflop_per_iteration": round(flops / 1e9, 2),
        "gflop_per_second": rounded({"ours": flops / medians["ours"] / 1e9, "matrix ceiling": ceiling / 1e9}),
        "share_of_matrix_ceiling": round(flops / medians["ours"] / ceiling, 3),
        "ratio": round(medians["plain eager"] / medians["ours"], 2),
    }
    if on_gpu:
        result["launches_per_iteration"] = {name: num_launches(side) for name, side in sides.items()}
        result["peak_memory_mib"] = {name: peak_memory_mib(side) for name, side in sides.items()}
    if args.profile:
        result["share_by_kind"] = draw_profile(sides["ours"], args.profile, result, runtime)
    return result


def plain_iteration(method: DSVAE, device: torch.device, inputs: list[Tensor]) -> Run:
    """The peer: the tests' literal transcription of Algorithm 1, float32, one Adam per network."""
    clone = Path(__file__).parents[3]
    if not (clone / "tests/algorithm1.py").is_file():
        raise ValueError("The plain transcription is among the tests of a clone. Start this in one.")
    sys.path.insert(0, str(clone))
    plain_trainer: Any = importlib.import_module("tests.algorithm1").PlainTrainer

    plain = plain_trainer(copy.deepcopy(method).to(device))
    batches = [to_batch(*inputs[i : i + 3], flips=None) for i in range(0, len(inputs), 3)]
    batches = [batch._replace(images=batch.images.contiguous()) for batch in batches]

    def normal(_: str, size: int) -> Tensor:
        return torch.randn(len(batches[0].labels), size, device=device)

    def iterate() -> None:
        with tf32_products():  # what a competent researcher switches on
            for batch in batches[:-1]:
                plain.gm_step(batch, normal)
            plain.joint_step(batches[-1], normal)

    return iterate


@contextlib.contextmanager
def tf32_products() -> Iterator[None]:
    """Matrix products in TF32 on a GPU, as cuDNN's convolutions are by default; training leaves it off."""
    before = torch.get_float32_matmul_precision()
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def fed_from_shards(args: argparse.Namespace, runtime: Runtime) -> dict[str, Run]:
    """Our iteration with batches from shards, as the trainer gets them, by source."""
    manifest = open_split(args.shards, DataConfig(train=args.shards))
    sides: dict[str, Run] = {}
    for source in ("stream", "resident"):
        config = DataConfig(train=args.shards, source=source, num_workers=0 if runtime.reads_are_free else 4)
        part = Slice(global_batch_size=args.batch_size, rank=0, world_size=1)
        feed = Feed(manifest, config, 0, part, runtime.device)
        method = make_method(args.architecture, manifest.num_classes)
        iteration = make_iteration(method, runtime, args.batch_size, feed.to_batch)
        run = iteration if runtime.device.type == "cpu" else Graphed(iteration, iteration.state)
        batches = feed.batches(0, copies_ahead=iteration.num_batches)
        sides[f"ours, {source}"] = _fed(run, batches, iteration.num_batches)
    return sides


def _fed(run: Callable[..., None], batches: Iterator[Any], num_batches: int) -> Run:
    def iterate() -> None:
        taken = itertools.islice(batches, num_batches)
        run(*(tensor for batch in taken for tensor in batch.tensors))

    return iterate


# What an iteration costs


def matrix_ceiling(runtime: Runtime) -> float:
    """Operations per second of a large square matrix product in the precision that trains."""
    size = 8192 if runtime.device.type == "cuda" else 2048
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(runtime.mixed_precision, torch.float32)
    a, b = (torch.randn(size, size, device=runtime.device).to(dtype) for _ in range(2))
    with tf32_products():  # as most of an iteration is convolutions
        best = min(seconds(lambda: a @ b)() for _ in range(10))
    return 2 * size**3 / best


def split_of_time(iteration: Iteration, inputs: list[Tensor], rounds: int) -> dict[str, float]:
    """Median seconds of an eager iteration by part; the GPU is waited for between the parts."""
    spent: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def timed(owner: Any, attribute: str, part: str) -> Iterator[None]:
        original = getattr(owner, attribute)

        def call(*args: Any, **kwargs: Any) -> Any:
            results: list[Any] = []
            spent[part] += seconds(lambda: results.append(original(*args, **kwargs)))()
            return results[0]

        with mock.patch.object(owner, attribute, call):
            yield

    totals: dict[str, list[float]] = defaultdict(list)
    with (
        timed(FlatUpdate, "__call__", "stage 1"),
        timed(OverlappedUpdate, "__call__", "joint update"),
        timed(UpdateOptimizer, "step", "optimiser"),
        timed(distributed, "all_reduce_flat", "all-reduce"),
        timed(synthetic, "to_batch", "data: scale and flip"),
    ):
        for _ in range(rounds):
            spent.clear()
            whole = seconds(lambda: iteration(*inputs))()
            for part, value in spent.items():
                totals[part].append(value)
            totals["whole"].append(whole)
    # the optimiser and the all-reduce run inside the updates
    return {part: statistics.median(values) for part, values in totals.items()}


def num_launches(side: Run) -> int:
    """Kernels and graphs that the host launches per call."""
    side()
    wait_for_gpu()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        side()
        wait_for_gpu()
    launching = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")
    return sum(event.name.startswith(launching) for event in profiler.events())


def peak_memory_mib(side: Run) -> int:
    torch.cuda.reset_peak_memory_stats()
    side()
    wait_for_gpu()
    return round(torch.cuda.max_memory_allocated() / 2**20)


# Where the time goes

_KINDS = {
    "convolution": ("conv", "xmma", "implicit_gemm", "dgrad", "wgrad", "cutlass"),
    "batch norm": ("batch_norm", "bn_", "norm"),
    "matrix product": ("addmm", "mm", "gemm", "linear"),
    "optimiser": ("adam",),
    "collective": ("nccl", "all_reduce", "allreduce", "gloo"),
    "copies and layout": ("copy", "contiguous", "memcpy", "cat", "fill", "zero", "memset"),
    "activations": ("relu", "threshold", "tanh", "leaky", "pool"),
}


def draw_profile(side: Run, path: Path, result: Result, runtime: Runtime) -> dict[str, float]:
    """Share of the device's busy time by kind of kernel, as a picture and as numbers."""
    on_gpu = runtime.device.type == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    for _ in range(3):
        side()
    with profile(activities=activities) as profiler:
        for _ in range(5):
            side()
        wait_for_gpu()
    busy: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        time = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        name = event.key.lower()
        kind = next((k for k, parts in _KINDS.items() if any(p in name for p in parts)), "elementwise, rest")
        busy[kind] += time
    total = sum(busy.values())
    shares = {kind: round(time / total, 3) for kind, time in sorted(busy.items(), key=lambda kv: -kv[1])}

    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 0.45 * len(shares) + 1.2), layout="constrained")
    axes.barh(list(shares)[::-1], [100 * share for share in list(shares.values())[::-1]], color="#3b6ea5")
    axes.set_xlabel("% of busy time")
    axes.set_title(
        f"{result['architecture']}, batch {result['batch_size']}, {result['precision'].split()[0]}: "
        f"{result['seconds_per_iteration']['ours']:.3g} s per iteration"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return shares
