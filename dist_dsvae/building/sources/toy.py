"""Three half-moons, the toy set of the paper's appendix B.1: every point is a function of a hash."""

from __future__ import annotations

import io
import math

import numpy as np
import numpy.typing as npt
import torch

from dist_dsvae.building.sources.source import Source
from dist_dsvae.building.writer import Sample
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.noise import Draw, Noise
from dist_dsvae.core.types import ImageShape

NUM_MOONS = 3
INTERVAL = 2.2  # between the centres of neighbouring half circles
NOISE_STD = 0.15
SHIFT_Y = -0.5
_FIRST_POSITION = {"train": 0, "test": 2**40}


def toy(*, num_train: int, num_test: int, seed: int = 0) -> Source:
    """Points of ``num_train`` and ``num_test`` positions; more points keep the ones before."""
    if num_train < 1 or num_test < 1:
        raise DataError(
            f"{num_train:,} training and {num_test:,} test points were asked for; take at least 1 of each."
        )
    splits = {}
    for split, count in (("train", num_train), ("test", num_test)):
        points, labels = half_moons(count, _FIRST_POSITION[split], seed)
        splits[split] = [
            Sample(point, label, f"{split}-point[{place}]")
            for place, (point, label) in enumerate(zip(points, labels.tolist(), strict=True))
        ]
    return Source(
        name="toy",
        classes=tuple(f"half-moon-{number}" for number in range(NUM_MOONS)),
        splits=splits,
        encode=encode_point,
        shape=ImageShape(2, 0, 0),
        extension="npy",
    )


def half_moons(
    count: int, first_position: int, seed: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Points float32 [count, 2] and labels int64 [count] of consecutive positions.

    The position decides the class in turn. Class k is the upper half of the unit circle around
    (2.2 (k - 1), -0.5), uniform in its angle, plus a normal number of std 0.15 per coordinate.
    """
    positions = torch.arange(first_position, first_position + count, dtype=torch.int64)
    labels = positions % NUM_MOONS
    noise = Noise(seed, positions, dtype=torch.float64)
    # normal() takes the elements 0 and 1 of the draw, so the angle takes element 2.
    angles = math.pi * noise.uniform(Draw.TOY_POINT, 3)[:, 2]
    circle = torch.stack([INTERVAL * (labels - 1) + torch.cos(angles), SHIFT_Y + torch.sin(angles)], dim=1)
    points = circle + NOISE_STD * noise.normal(Draw.TOY_POINT, 2)
    return points.to(torch.float32).numpy(), labels.numpy()


def encode_point(sample: Sample[npt.NDArray[np.float32]]) -> tuple[bytes, dict[str, object]]:
    """The .npy file of a float32 [2] point."""
    stream = io.BytesIO()
    np.save(stream, sample.reference)
    return stream.getvalue(), {}
