"""This CPU as a device of the roofline: its peaks, and what operators reach of them, measured one by one.

No network is run for it: square and flat matrix products, convolutions of images of several sizes with
channels as convolutional networks have them (fewer, the larger the image), sums and batch norms of tensors
that fit a cache or do not, and layers on almost nothing.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dist_dsvae.commands.benchmarks.timing import hardware
from dist_dsvae.engine.measuring.devices import Device, Efficiency, Pace
from dist_dsvae.engine.measuring.operators import operators_of
from dist_dsvae.engine.processes.runtime import Runtime

_SIDE = 1536  # of the largest matrix
_ROWS = (16, 64, 256, _SIDE)
_VALUES = (2**14, 2**17, 2**20, 2**23)  # of a tensor; the largest is more than a core's caches
_HEIGHTS = {2: 256, 4: 256, 8: 128, 16: 64, 32: 32, 64: 32}  # of images: their channels
_IMAGES, _KERNELS = 32, (3, 5)
_TRIES = 3

Clock = Callable[[Callable[[], object]], float]  # seconds of a call
_Rates = Mapping[float, float]  # bytes or flops per second by size


def own_seconds(function: Callable[[], object], runtime: Runtime) -> float:
    """Of one call. With one thread it is the CPU's time, which other programs do not lengthen."""
    clock = time.process_time if runtime.num_threads == 1 else time.perf_counter
    begin = clock()
    function()
    return clock() - begin


def calibrate(runtime: Runtime) -> tuple[Device, Efficiency]:
    """This machine, and what operators reach of it, with the threads and the precision of ``runtime``."""

    def typical(function: Callable[[], object]) -> float:
        function()
        return statistics.median(own_seconds(function, runtime) for _ in range(_TRIES))

    dtype = runtime.half or torch.float32
    rates: dict[Pace, _Rates] = {
        "elementwise": _elementwise(dtype, typical),
        "normalisation": _normalisation(dtype, typical),
        "product": _products(dtype, typical),
        **_convolutions(dtype, typical),
    }
    bandwidth, half = max(rates["elementwise"].values()), max(rates["product"].values())
    full = half if dtype == torch.float32 else max(_products(torch.float32, typical).values())
    peaks = {"elementwise": bandwidth, "normalisation": bandwidth}

    def efficiency(pace: Pace, size: float) -> float:
        return _between(rates[pace], size) / peaks.get(pace, half)

    device = Device(
        name=f"this CPU ({hardware()}, {runtime.num_threads} threads), as measured",
        gb_per_second=bandwidth / 1e9,
        float32_tflops=full / 1e12,
        tf32_tflops=full / 1e12,
        bf16_tflops=half / 1e12,
        launch_gap_us=_dispatch_seconds(typical) * 1e6,
    )
    return device, efficiency


def _between(rates: _Rates, size: float) -> float:
    """Interpolated in the logarithms; beyond the ends as at the ends."""
    sizes = sorted(rates)
    place = math.log(max(size, sizes[0]))  # of almost nothing, too
    return math.exp(np.interp(place, np.log(sizes), np.log([rates[each] for each in sizes])))


def _products(dtype: torch.dtype, clock: Clock) -> _Rates:
    """Of [rows, side] x [side, side], by the rows."""
    square = torch.randn(_SIDE, _SIDE).to(dtype)
    return {rows: 2 * rows * _SIDE**2 / clock(partial(torch.matmul, square[:rows], square)) for rows in _ROWS}


def _convolutions(dtype: torch.dtype, clock: Clock) -> dict[Pace, _Rates]:
    """Of the forward pass and each gradient, by the images' height."""
    rates: dict[Pace, dict[float, float]] = {
        "convolution": {},
        "input gradient": {},
        "weight gradient": {},
    }
    for height, channels in _HEIGHTS.items():
        flops, spent = 0, dict.fromkeys(rates, 0.0)
        for kernel in _KERNELS:
            images = torch.randn(_IMAGES, channels, height, height).to(
                dtype, memory_format=torch.channels_last
            )
            weight = torch.randn(channels, channels, kernel, kernel).to(
                dtype, memory_format=torch.channels_last
            )
            flops += 2 * _IMAGES * (height * channels * kernel) ** 2
            arguments = (None, [1, 1], [kernel // 2] * 2, [1, 1], False, [0, 0], 1)
            spent["convolution"] += clock(partial(functional.conv2d, images, weight, padding=kernel // 2))
            gradients: tuple[Pace, Pace] = ("input gradient", "weight gradient")
            for number, pace in enumerate(gradients):
                mask = [number == 0, number == 1, False]
                backward = torch.ops.aten.convolution_backward
                spent[pace] += clock(partial(backward, images, images, weight, *arguments, mask))
        for pace, seconds in spent.items():
            rates[pace][height] = flops / seconds
    return dict(rates)


def _elementwise(dtype: torch.dtype, clock: Clock) -> _Rates:
    """Of adding two tensors into a third, two read and one written, by the bytes."""
    rates: dict[float, float] = {}
    for count in _VALUES:
        a, b, out = (torch.ones(count, dtype=dtype) for _ in range(3))
        num_bytes = 3 * dtype.itemsize * count
        rates[num_bytes] = num_bytes / clock(partial(torch.add, a, b, out=out))
    return rates


def _normalisation(dtype: torch.dtype, clock: Clock) -> _Rates:
    """Of batch norm, forward and backward, by the bytes that ``roofline`` counts of one of them."""
    channels = 64
    weight, moments = torch.ones(channels, requires_grad=True), torch.ones(channels)
    rates: dict[float, float] = {}
    for count in _VALUES[:-1]:
        values = torch.randn(count // channels // 16, channels, 4, 4).to(
            dtype, memory_format=torch.channels_last
        )
        values.requires_grad_()

        def both_ways(values: Tensor = values) -> object:
            out = functional.batch_norm(values, moments, moments, weight, weight, training=True)
            return torch.autograd.grad(out, (values, weight), out.detach())

        num_bytes = (3 + 5) * values.element_size() * count  # forward 2 + 1, backward 2 x 2 + 1
        rates[num_bytes / 2] = num_bytes / clock(both_ways)
    return rates


def _dispatch_seconds(clock: Clock) -> float:
    """Of an operator of layers on almost nothing, forward or backward; modules and autograd included."""
    layers = [layer for _ in range(20) for layer in (nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU())]
    network = nn.Sequential(*layers)
    images, weights = torch.ones(2, 4, 1, 1), list(network.parameters())

    def both_ways() -> object:
        return torch.autograd.grad(network(images).sum(), weights)

    return clock(both_ways) / operators_of(both_ways).total()
