"""Devices as a roofline sees them: what their data sheets promise, and what operators reach of that.

``DEVICES`` are known by name, others are described in a file. What operators reach of a GPU is an assumption
(``assumed_efficiency``), for a CPU it is measured (``commands/benchmarks/this_cpu.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dist_dsvae.config.fields import between
from dist_dsvae.config.reading import ConfigError, from_tree
from dist_dsvae.core.paths import PathError, expanded
from dist_dsvae.core.text import clause, read_json

Arithmetic = Literal["float32", "tf32", "bf16"]
# what holds operators of one kind to a share of what the device could do
Pace = Literal["elementwise", "normalisation", "product", "convolution", "input gradient", "weight gradient"]
# the share of the bandwidth, or of the arithmetic, that an operator of some pace and size reaches
Efficiency = Callable[[Pace, float], float]

_LARGEST = 1e9


class DeviceError(ValueError):
    """A device that nobody described, or not so that it can be used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """What a data sheet says.

    name: as people call it.
    memory_gb: of the device, in 10^9 bytes; 0: not known.
    gb_per_second: to and from that memory, in 10^9 bytes.
    float32_tflops, tf32_tflops, bf16_tflops: of dense matrix products, in 10^12 operations per second.
    launch_gap_us: from one kernel to the next within a graph, in microseconds, beside what they do.
    """

    name: str
    memory_gb: float = between(0, _LARGEST, 0.0)
    gb_per_second: float = between(1e-3, _LARGEST, 1.0)
    float32_tflops: float = between(1e-6, _LARGEST, 1.0)
    tf32_tflops: float = between(1e-6, _LARGEST, 1.0)
    bf16_tflops: float = between(1e-6, _LARGEST, 1.0)
    launch_gap_us: float = between(0, 1e6, 2.0)

    def flops_per_second(self, arithmetic: Arithmetic) -> float:
        tflops = {"float32": self.float32_tflops, "tf32": self.tf32_tflops, "bf16": self.bf16_tflops}
        return tflops[arithmetic] * 1e12

    @property
    def bytes_per_second(self) -> float:
        return self.gb_per_second * 1e9

    @property
    def launch_gap_seconds(self) -> float:
        return self.launch_gap_us * 1e-6


# NVIDIA's data sheets of the SXM modules; their TF32 and BF16 figures "with sparsity" are halved here
DEVICES = {
    "a100": Device(
        name="NVIDIA A100 SXM 80 GB",
        memory_gb=80,
        gb_per_second=2039,
        float32_tflops=19.5,
        tf32_tflops=156,
        bf16_tflops=312,
    ),
    "h100": Device(
        name="NVIDIA H100 SXM",
        memory_gb=80,
        gb_per_second=3350,
        float32_tflops=67,
        tf32_tflops=494.5,
        bf16_tflops=989.5,
    ),
    "h200": Device(
        name="NVIDIA H200 SXM",
        memory_gb=141,
        gb_per_second=4800,
        float32_tflops=67,
        tf32_tflops=494.5,
        bf16_tflops=989.5,
    ),
}
# Assumptions; where they come from: docs/performance.md
_ASSUMED: Mapping[Pace, float] = {
    "elementwise": 0.8,
    "normalisation": 0.6,
    "product": 0.5,
    "convolution": 0.35,
    "input gradient": 0.35,
    "weight gradient": 0.35,
}


def assumed_efficiency(pace: Pace, size: float) -> float:
    """Of what the data sheet says, on any GPU, at any size."""
    return _ASSUMED[pace]


_NEEDED = ("name", "gb_per_second", "float32_tflops", "tf32_tflops", "bf16_tflops")


def device_called(name: str) -> Device:
    """A device of ``DEVICES``, or the one that a JSON file with ``Device``'s fields describes.

    Raises DeviceError for another name, and for a file that describes none.
    """
    if name in DEVICES:
        return DEVICES[name]
    known = ", ".join(DEVICES)
    if not name.endswith(".json"):
        raise DeviceError(
            f"{name!r} is no device that is known here. Choose one of {known}, or give a JSON file that "
            f"describes yours, with {', '.join(_NEEDED)}."
        )
    try:
        path = Path(expanded(name))
        tree = read_json(path)
    except FileNotFoundError:
        raise DeviceError(
            f"There is no file {name}. Give one that describes a device, or one of {known}."
        ) from None
    except (OSError, PathError, ValueError) as error:
        raise DeviceError(f"{name} cannot be read as JSON: {clause(error)}.") from None
    missing = [key for key in _NEEDED if isinstance(tree, dict) and key not in tree]
    if missing:
        raise DeviceError(
            f"{name} does not say {', '.join(missing)}. A device is described by {', '.join(_NEEDED)}, and "
            "if you like memory_gb and launch_gap_us."
        )
    try:
        return from_tree(Device, tree)
    except ConfigError as error:
        raise DeviceError(f"{name}: {error}") from None
