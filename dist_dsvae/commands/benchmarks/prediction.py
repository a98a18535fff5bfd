"""What a GPU would need for a training iteration: a model from the operators' shapes, not a measurement."""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dist_dsvae.commands.benchmarks.this_cpu import calibrate, own_seconds
from dist_dsvae.commands.benchmarks.timing import Result, rounded
from dist_dsvae.config import (
    DataConfig,
    DSVAEConfig,
    ExperimentConfig,
    TrainConfig,
)
from dist_dsvae.config.reading import load_config
from dist_dsvae.core.types import ImageShape
from dist_dsvae.data.open_split import open_split
from dist_dsvae.engine.iteration.iteration import Iteration
from dist_dsvae.engine.measuring.devices import Device, Efficiency, assumed_efficiency, device_called
from dist_dsvae.engine.measuring.families import FAMILIES, model_of
from dist_dsvae.engine.measuring.planning import plan
from dist_dsvae.engine.measuring.roofline import Prediction, Work, predict
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.runs.auto_augmentation import without_auto

_COSTLIEST = 10


class DataSet(NamedTuple):
    """What an iteration needs to know of the training samples; of their number, whether there are few."""

    shape: ImageShape
    num_classes: int
    num_samples: int


# Where a config's shards are not built: the data sets of configs/, by the folder that they are built in
_DATA_SETS = {
    "cifar10": DataSet(ImageShape(3, 32, 32), 10, 50_000),
    "cifar100": DataSet(ImageShape(3, 32, 32), 100, 50_000),
    "cub200": DataSet(ImageShape(3, 64, 64), 200, 5_994),
    "facescrub": DataSet(ImageShape(3, 64, 64), 530, 100_000),
    "fashion-mnist": DataSet(ImageShape(1, 32, 32), 10, 60_000),
    "fashion-mnist-mini": DataSet(ImageShape(1, 32, 32), 10, 10_000),
    "lfw": DataSet(ImageShape(3, 64, 64), 62, 2_724),
    "toy": DataSet(ImageShape(2, 0, 0), 3, 60_000),
}


def run(args: argparse.Namespace) -> Result:
    on_cpu = args.device == "cpu"
    device = None if on_cpu else device_called(args.device)
    efficiency: Efficiency = assumed_efficiency
    config, data = _of_config(args) if args.config else of_architecture(args.architecture, args.classes)
    if args.batch_size:
        config = replace(config, data=replace(config.data, batch_size=args.batch_size))
    runtime = _runtime(config, args.mixed_precision, on_cpu=on_cpu)
    if device is None:
        device, efficiency = calibrate(runtime)
    planned = plan(config, data.shape, data.num_classes, runtime, fake=True)
    work = planned.work()
    prediction = predict(work, device, efficiency)
    _show_kinds(prediction, device)
    result = _result(args, config, device, planned.iteration, work, prediction)
    if on_cpu:
        real = plan(config, data.shape, data.num_classes, runtime, fake=False)
        for _ in range(2):
            real.run()
        measured = statistics.median(own_seconds(real.run, runtime) for _ in range(args.rounds))
        result["check"] = rounded(
            {
                "measured_seconds": measured,
                "predicted_seconds": prediction.seconds,
                "predicted_over_measured": prediction.seconds / measured,
            }
        )
    else:
        result["hardware"] = "none: a prediction"
    return result


def predicted_seconds(
    device: Device, architecture: str, num_classes: int, batch_size: int, precision: str
) -> float:
    """Of an iteration of the networks of ``FAMILIES`` on one process."""
    config, data = of_architecture(architecture, num_classes)
    config = replace(config, data=replace(config.data, batch_size=batch_size))
    runtime = _runtime(config, None if precision == "auto" else precision, on_cpu=False)
    return predict(plan(config, data.shape, num_classes, runtime, fake=True).work(), device).seconds


def of_architecture(architecture: str, num_classes: int | None) -> tuple[ExperimentConfig, DataSet]:
    """The other benchmarks' networks; batches of 96, flipped."""
    shape = FAMILIES[architecture].shape
    config = ExperimentConfig(
        data=DataConfig(train=""),
        model=model_of(architecture),
        method=DSVAEConfig(augmentation="off"),
        train=TrainConfig(mixed_precision="auto"),
    )
    return config, DataSet(shape, num_classes or 10, 0)


def _of_config(args: argparse.Namespace) -> tuple[ExperimentConfig, DataSet]:
    """Raises ValueError where neither the shards nor the name of their folder tell what is in them."""
    config = load_config(args.config)
    folder = Path(config.data.train)
    if (folder / "manifest.json").is_file():
        manifest = open_split(config.data.train, config.data)
        data = DataSet(manifest.shape, manifest.num_classes, manifest.num_samples)
    elif folder.parent.name in _DATA_SETS:
        data = _DATA_SETS[folder.parent.name]
    else:
        raise ValueError(
            f"{config.data.train} of {args.config} is not built, and is none of configs/: what is in it is "
            "not known. Build the shards first, or give --architecture, --classes and --batch-size."
        )
    config = without_auto(config, data.shape, data.num_samples, None)
    return config, data._replace(num_classes=args.classes or data.num_classes)


def _runtime(config: ExperimentConfig, asked: str | None, *, on_cpu: bool) -> Runtime:
    """In the precision that the device would train in: "auto" looks at this machine, which a GPU is not."""
    automatic = config.train.mixed_precision == "auto" and not config.train.double_precision
    if asked is None and automatic and not on_cpu:
        asked = "bf16"
    return Runtime(config.train, asked)


def _result(
    args: argparse.Namespace,
    config: ExperimentConfig,
    device: Device,
    iteration: Iteration,
    work: Work,
    prediction: Prediction,
) -> Result:
    precision, mib = iteration.runtime.mixed_precision, 2.0**20
    result: Result = {
        "benchmark": "roofline",
        "kind": "a model, not a measurement",
        "device": device.name,
        "config": str(args.config) if args.config else None,
        "architecture": config.model.architecture,
        "batch_size": config.data.batch_size,
        "batches": iteration.num_batches,
        "precision": "float32" if precision == "no" else precision,
        "launches": len(work.operators),
        "gflop_per_iteration": round(work.flops / 1e9, 2),
        **rounded(
            {
                "predicted_seconds_per_iteration": prediction.seconds,
                "predicted_images_per_second": iteration.num_samples / prediction.seconds,
                "predicted_share_of_ceiling": prediction.share_of_ceiling,
            }
        ),
        "predicted_seconds_by_limit": rounded(prediction.limited_by),
        "predicted_memory_mib": {
            "weights, moments, average, inputs": round(work.held_bytes / mib),
            "gradients, activations at the peak": round((work.peak_bytes - work.held_bytes) / mib),
            "peak": round(work.peak_bytes / mib),
        },
        "predicted_costliest_kinds": {
            kind: {"count": cost.count, **rounded({"seconds": cost.seconds})}
            for kind, cost in list(prediction.kinds.items())[:_COSTLIEST]
        },
    }
    if device.memory_gb:
        result["predicted_share_of_memory"] = round(work.peak_bytes / device.memory_gb / 1e9, 4)
    return result


def _show_kinds(prediction: Prediction, device: Device) -> None:
    table = Table(title=f"Predicted, not measured: the costliest kinds of operators on {escape(device.name)}")
    for heading in ("operator", "count", "ms", "share"):
        table.add_column(heading, justify="left" if heading == "operator" else "right")
    for kind, cost in list(prediction.kinds.items())[:_COSTLIEST]:
        share = f"{cost.seconds / prediction.seconds:.0%}"
        table.add_row(escape(kind), str(cost.count), f"{cost.seconds * 1e3:.3f}", share)
    Console(stderr=True).print(table)
