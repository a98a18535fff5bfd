"""A model of step time against the number of GPUs, in closed form.

    step time(N) = compute + sum of the exposed collectives(N)

    all-reduce of b bytes   2 ceil(log2 N) latency + 2 (g-1)/g b / inside + 2 (n-1)/n (b/g) / between
                            (trees for latency, rings for bandwidth; g GPUs in each of n nodes)
    all-gather of b bytes   ceil(log2 N) latency + (N-1) b / the slower link

Collectives that DistributedDataParallel runs beside the backward pass count only beyond the time of
that pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Links:
    """What connects the processes.

    latency_seconds: of one hop. inside, between: bytes per second of one GPU within a node and between
    nodes. gpus_per_node: how many share the fast links.
    """

    latency_seconds: float
    inside: float
    between: float
    gpus_per_node: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Collective:
    """count collectives of num_bytes each (per rank) in an iteration.

    kind: "all_reduce" or "all_gather". overlapped: runs beside the backward pass.
    """

    kind: str
    num_bytes: float
    count: int = 1
    overlapped: bool = False


def collective_seconds(collective: Collective, links: Links, num_gpus: int) -> float:
    """All of ``collective.count`` of them, one after another."""
    if num_gpus == 1:
        return 0.0
    inside = min(num_gpus, links.gpus_per_node)
    nodes = math.ceil(num_gpus / links.gpus_per_node)
    hops = math.ceil(math.log2(num_gpus))
    size = collective.num_bytes
    if collective.kind == "all_reduce":
        transfer = 2 * (inside - 1) / inside * size / links.inside
        transfer += 2 * (nodes - 1) / nodes * size / inside / links.between
        return collective.count * (2 * hops * links.latency_seconds + transfer)
    slowest = links.inside if nodes == 1 else links.between
    return collective.count * (hops * links.latency_seconds + (num_gpus - 1) * size / slowest)


def step_seconds(
    compute: float, backward: float, collectives: Sequence[Collective], links: Links, num_gpus: int
) -> float:
    """One iteration on ``num_gpus``, each with the same local batch.

    compute: seconds of an iteration alone. backward: seconds of it that can hide collectives.
    """
    exposed = sum(collective_seconds(c, links, num_gpus) for c in collectives if not c.overlapped)
    hidden = sum(collective_seconds(c, links, num_gpus) for c in collectives if c.overlapped)
    return compute + exposed + max(0.0, hidden - backward)
