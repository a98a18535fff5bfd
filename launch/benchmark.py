"""Measure this machine:

python launch/benchmark.py data   our stream against the usual WebDataset pipeline, one core
python launch/benchmark.py step   one training iteration against a plain eager transcription

Every command runs both sides in turn in one process, quotes medians, and with --json prints one JSON
object as its last line, whose ``ratio`` is ours over the peer (higher is better).
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
import webdataset
from PIL import Image
from rich.console import Console
from rich.table import Table

from dist_dsvae.config import DataConfig, DSVAEConfig, ModelConfig, OptimizerConfig, TrainConfig
from dist_dsvae.data.indexing import index
from dist_dsvae.data.manifest import Manifest
from dist_dsvae.data.stream import Slice, stream
from dist_dsvae.engine.gm_step import FlatStep
from dist_dsvae.engine.guard import Guard
from dist_dsvae.engine.joint_step import OverlappedStep
from dist_dsvae.engine.optimizer import StepOptimizer
from dist_dsvae.engine.runtime import Runtime
from dist_dsvae.methods.dsvae import DSVAE
from dist_dsvae.methods.step import Reduction
from dist_dsvae.models.architectures import ARCHITECTURES
from dist_dsvae.noise import Draw, Noise
from dist_dsvae.types import Batch, ImageShape

CODE_DIMS = {"vgg64": (512, 512), "conv32": (100, 200), "small32": (32, 16)}


def in_turn(sides: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Run the sides A B A B ... and return each one's median (of whatever it returns)."""
    results: dict[str, list[float]] = {name: [] for name in sides}
    for round_number in range(rounds + 1):
        for name, run in sides.items():
            value = run()
            if round_number:  # the first round warms up
                results[name].append(value)
    return {name: statistics.median(values) for name, values in results.items()}


# data


def write_jpeg_shards(directory: Path, count: int) -> list[bytes]:
    """64x64 RGB JPEGs as `shards/build.py folder` writes them (quality 95, 4:4:4, 3 kB as faces have)."""
    rng = np.random.default_rng(0)
    encoded = []
    for half in range(2):
        with webdataset.TarWriter(str(directory / f"{half:06d}.tar")) as writer:
            for i in range(count // 2):
                coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
                fine = rng.integers(-2, 3, (64, 64, 3))
                pixels = np.asarray(coarse.resize((64, 64), Image.Resampling.BICUBIC)) + fine
                out = io.BytesIO()
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
                    out, "JPEG", quality=95, subsampling=0
                )
                encoded.append(out.getvalue())
                writer.write({"__key__": f"{half}{i:06d}", "jpg": out.getvalue(), "cls": i % 10})
    return encoded


def benchmark_data(args: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(1)
    batch_size = 96
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        encoded = write_jpeg_shards(directory, args.images)
        index(directory, command="benchmark")
        manifest = Manifest.load(directory)
        num_batches = args.images // batch_size

        def rate(batches: Iterator[Any]) -> float:
            begin = time.perf_counter()
            for _ in range(num_batches):
                next(batches)
            return num_batches * batch_size / (time.perf_counter() - begin)

        def usual() -> float:
            urls = [str(path) for path in sorted(directory.glob("*.tar"))]
            pipeline = webdataset.WebDataset(urls, shardshuffle=False)
            return rate(iter(pipeline.decode("pil").to_tuple("jpg", "cls").batched(batch_size)))

        part = Slice(global_batch_size=batch_size, rank=0, world_size=1)
        endless = stream(manifest, DataConfig(train="", num_workers=0), 0, part)

        def ours() -> float:
            return rate(endless)

        def libjpeg_turbo() -> float:
            begin = time.perf_counter()
            for data in encoded:
                simplejpeg.decode_jpeg(data)
            return len(encoded) / (time.perf_counter() - begin)

        sides = {"usual pipeline": usual, "ours": ours, "raw libjpeg-turbo": libjpeg_turbo}
        rates = in_turn(sides, args.rounds)
    return {
        "benchmark": "data",
        "images_per_second": {name: round(value) for name, value in rates.items()},
        "mean_bytes_per_image": round(statistics.mean(map(len, encoded))),
        "share_of_raw_decoder": round(rates["ours"] / rates["raw libjpeg-turbo"], 3),
        "ratio": round(rates["ours"] / rates["usual pipeline"], 2),
    }


# step


def random_batch(shape: ImageShape, size: int, num_classes: int, device: torch.device) -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(size, shape.channels, shape.height, shape.width, generator=generator) * 2 - 1
    labels = torch.randint(num_classes, (size,), generator=generator)
    return Batch(images.to(device), labels.to(device), torch.arange(size, device=device))


def our_iteration(method: DSVAE, runtime: Runtime, batch: Batch) -> Callable[[], None]:
    """One iteration as the trainer runs it: routed, one backward per step, fused Adam."""
    method = method.to(runtime.device)
    method.to(memory_format=torch.channels_last)
    batch = batch._replace(images=batch.images.to(memory_format=torch.channels_last))
    guard = Guard(runtime.device)
    wrapped = runtime.wrap(method, [])
    noise = Noise(0, batch.positions)
    steps: list[tuple[int, FlatStep | OverlappedStep]] = []
    for step in method.steps:
        optimizer = StepOptimizer(OptimizerConfig(), method.parameter_groups(step))
        common = (step, optimizer, guard, runtime)
        flat = step.reduction is Reduction.FLAT
        run = FlatStep(method, *common) if flat else OverlappedStep(method, wrapped, *common)
        steps.append((step.repeats, run))

    def iterate() -> None:
        for repeats, run in steps:
            for _ in range(repeats):
                run(batch, noise, 0.0)

    return iterate


def plain_iteration(method: DSVAE, device: torch.device, batch: Batch) -> Callable[[], None]:
    """The peer: the tests' literal transcription of Algorithm 1, float32, one Adam per network."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.algorithm1 import PlainTrainer

    plain = PlainTrainer(method.to(device))
    draws = {"posterior_zu": Draw.POSTERIOR_ZU, "prior_zs": Draw.PRIOR_ZS, "prior_zu": Draw.PRIOR_ZU}

    def normal(draw: str, size: int) -> torch.Tensor:
        assert draw in draws
        return torch.randn(len(batch.labels), size, device=device)

    def iterate() -> None:
        for _ in range(method.config.gm_steps):
            plain.gm_step(batch)
        plain.joint_step(batch, normal)

    return iterate


def benchmark_step(args: argparse.Namespace) -> dict[str, Any]:
    torch.manual_seed(0)
    size = ARCHITECTURES[args.architecture].image_size
    shape = ImageShape(3, size, size)
    zs_dim, zu_dim = CODE_DIMS[args.architecture]
    model = ModelConfig(architecture=args.architecture, zs_dim=zs_dim, zu_dim=zu_dim)
    runtime = Runtime(TrainConfig(mixed_precision="auto"), args.mixed_precision)
    batch = random_batch(shape, args.batch_size, args.classes, runtime.device)
    method = DSVAE(DSVAEConfig(), model, shape, args.classes)
    iterations = {
        "plain eager": plain_iteration(copy.deepcopy(method), runtime.device, batch),
        "ours": our_iteration(method, runtime, batch),
    }

    def timed(iterate: Callable[[], None]) -> Callable[[], float]:
        def run() -> float:
            begin = time.perf_counter()
            iterate()
            if runtime.device.type == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter() - begin

        return run

    seconds = in_turn({name: timed(iterate) for name, iterate in iterations.items()}, args.rounds)
    precision = "float32" if runtime.mixed_precision == "no" else runtime.mixed_precision
    return {
        "benchmark": "step",
        "architecture": args.architecture,
        "batch_size": args.batch_size,
        "ours_uses": f"{precision}, channels-last, shared passes, fused Adam",
        "seconds_per_iteration": {name: round(value, 4) for name, value in seconds.items()},
        "ratio": round(seconds["plain eager"] / seconds["ours"], 2),
    }


def show(result: dict[str, Any], as_json: bool) -> None:
    result["hardware"] = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else platform.processor() or platform.machine()
    )
    result["threads"] = torch.get_num_threads()
    table = Table(title=f"benchmark {result['benchmark']}", show_header=False)
    for key, value in result.items():
        if isinstance(value, dict):
            for name, entry in value.items():
                table.add_row(f"{key}: {name}", f"{entry:,}")
        elif key != "benchmark":
            table.add_row(key, str(value))
    Console(stderr=as_json).print(table)
    if as_json:
        print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    data = commands.add_parser("data", help="decoding from shards, images per second on one core")
    data.add_argument("--images", type=int, default=3840)
    data.add_argument("--rounds", type=int, default=5)
    data.set_defaults(run=benchmark_data)
    step = commands.add_parser("step", help="seconds per training iteration")
    step.add_argument("--architecture", choices=sorted(CODE_DIMS), default="conv32")
    step.add_argument("--batch-size", type=int, default=64)
    step.add_argument("--classes", type=int, default=10)
    step.add_argument("--mixed_precision", choices=["auto", "no", "bf16", "fp16"])
    step.add_argument("--rounds", type=int, default=10)
    step.set_defaults(run=benchmark_step)
    for command in (data, step):
        command.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    args = parser.parse_args()
    show(args.run(args), args.json)


if __name__ == "__main__":
    main()
