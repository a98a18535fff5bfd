"""Iterations of small networks, for the engine's tests."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from dist_dsvae.building.writer import Layout, Sample, write_split
from dist_dsvae.config import EvaluationConfig, OptimizerConfig, TrainConfig
from dist_dsvae.core.types import ImageShape
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.transforms import to_batch
from dist_dsvae.engine.iteration.ema import ExponentialMovingAverage, Pace
from dist_dsvae.engine.iteration.iteration import Iteration
from dist_dsvae.engine.processes.runtime import Runtime
from tests.unit.methods.making import SHAPES, make_method

BATCH_SIZE = 6


def make_iteration(
    optimizer: OptimizerConfig | None = None,
    *,
    flip: bool = True,
    averaged: tuple[str, ...] = ("decoder",),
    architecture: str = "small32",
    train: TrainConfig | None = None,
    mixed_precision: str | None = None,
    method: nn.Module | None = None,
    **settings: object,
) -> Iteration:
    """An iteration in float32 (float64 convolutions are slow), always from the same weights.

    averaged: networks, with a pace at which a few iterations show.
    method: another than ``dsvae`` with ``settings``; it is moved to the device.
    """
    train = train or TrainConfig()
    runtime = Runtime(train, mixed_precision)
    if method is None:
        method = make_method(architecture, **{"augmentation": "off", **settings})
    method = method.to(runtime.device, runtime.dtype)
    iteration = Iteration(
        method,
        runtime,
        optimizer or OptimizerConfig(),
        train,
        dict.fromkeys(
            ("train", "unlabelled"),
            lambda tensors, noise: to_batch(*tensors, flips=noise if flip else None, dtype=runtime.dtype),
        ),
        seed=0,
        global_batch_size=BATCH_SIZE,
    )
    iteration.ema = ExponentialMovingAverage(method, averaged, Pace(half_life=4.0, ramp_up=0.5))
    return iteration


def make_inputs(
    iteration: Iteration, first: int, size: int = BATCH_SIZE, architecture: str = "small32"
) -> list[Tensor]:
    """uint8 images, labels and positions of all batches of an iteration, starting at position ``first``."""
    generator = torch.Generator().manual_seed(first)
    shape = SHAPES[architecture]
    inputs: list[Tensor] = []
    for number in range(iteration.num_batches):
        positions = torch.arange(size) + first + number * size
        if shape.is_image:
            dims = (size, shape.height, shape.width, shape.channels)
            images = torch.randint(0, 256, dims, dtype=torch.uint8, generator=generator)
        else:
            images = torch.randn(size, shape.channels, generator=generator)
        labels = torch.randint(iteration.method.num_classes, (size,), generator=generator)
        inputs += [images, labels, positions]
    return [tensor.to(iteration.runtime.device) for tensor in inputs]


class StandInEvaluation:
    """An evaluation whose figures are those that ``figures`` makes of the method, and no real ones."""

    def __init__(self, figures: Callable[[nn.Module], dict[str, float]], weights: str = "auto") -> None:
        self._figures = figures
        self.inputs = SimpleNamespace(
            config=EvaluationConfig(weights=weights),  # type: ignore[arg-type]
            data=SimpleNamespace(train=""),
            train=SimpleNamespace(num_classes=2, samples_per_class=(1, 3)),
            test=SimpleNamespace(samples_per_class=(2, 2), num_samples=4),
        )

    def __call__(self, method: nn.Module, progress: object) -> tuple[dict[str, float], dict[str, float]]:
        return self._figures(method), {}

    def settings(self) -> dict[str, object]:
        return {}

    describe_judges = settings


def write_images(
    directory: Path,
    classes: Sequence[str],
    per_class: int,
    shape: ImageShape,
    extension: Literal["png", "jpg"] = "png",
) -> Manifest:
    """A split of grey pictures: each class has a pattern, each picture noise of its own."""
    rng = np.random.default_rng(len(classes) + per_class)
    patterns = rng.integers(0, 256, (len(classes), shape.height, shape.width))

    def encode(sample: Sample[int]) -> tuple[bytes, dict[str, object]]:
        noise = np.random.default_rng(sample.reference).integers(0, 256, patterns.shape[1:])
        stream = io.BytesIO()
        pixels = (0.7 * patterns[sample.label] + 0.3 * noise).astype(np.uint8)
        Image.fromarray(pixels).save(stream, format={"png": "PNG", "jpg": "JPEG"}[extension])
        return stream.getvalue(), {}

    samples = [Sample(i, i % len(classes), f"picture {i}") for i in range(len(classes) * per_class)]
    layout = Layout(shape=shape, extension=extension, samples_per_shard=50)
    written = write_split(
        directory, samples, encode, layout, classes=classes, command="a test", source="test"
    )
    return written.manifest
