"""The same iteration twice on the simulated device: launched by Python, and replayed from a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from dist_dsvae.engine.iteration.cuda_graph import Graphed
from dist_dsvae.engine.iteration.iteration import Iteration
from tests.simulated.device import Device, Wait
from tests.unit.engine.making import make_inputs


class Outcome(NamedTuple):
    """differing: tensors of the state, and logged losses, that differ in any bit. waits: in iterations after
    the first two, in which constants are put on the device.
    """

    differing: list[str]
    waits: list[Wait]
    num_replays: int
    captured: Iteration


def compare(
    device: Device,
    make: Callable[[], Iteration],
    architecture: str,
    *,
    num_iterations: int = 3,
    rank: int = 0,
    graph: Callable[[Iteration], Graphed] = lambda iteration: Graphed(iteration, iteration.state),
) -> Outcome:
    """Iterations with moving rates and other inputs each, and a log tick after the second."""
    eager, captured = make(), make()
    graphed = graph(captured)
    waits: list[Wait] = []
    differing: list[str] = []
    for number in range(num_iterations):
        inputs = make_inputs(eager, first=1000 * number + 100 * rank, architecture=architecture)
        device.log.clear()
        for iteration, run in ((eager, eager), (captured, graphed)):
            iteration.set_rates(float(number), number)
            run(*inputs)
            iteration.meter.num_iterations += 1
        if number >= 2:
            waits += device.log
        del inputs  # nobody promised a graph that they would stay
        if number == 1:
            means, expected = captured.meter.read(), eager.meter.read()
            differing += [f"loss {name}" for name in means if means[name] != expected[name]]
    for place, (ours, theirs) in enumerate(zip(captured.state(), eager.state(), strict=True)):
        if not torch.equal(ours, theirs):
            differing.append(f"tensor {place} {list(ours.shape)}")
    return Outcome(differing, waits, device.num_replays, captured)
