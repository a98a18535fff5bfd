"""Operators of one training iteration by kind: on a GPU each is at least one kernel, however small."""

from __future__ import annotations

import argparse

from dist_dsvae.commands.benchmarks.timing import Result
from dist_dsvae.config import TrainConfig
from dist_dsvae.engine.measuring.operators import operators_of
from dist_dsvae.engine.measuring.synthetic import make_inputs, make_iteration, make_method
from dist_dsvae.engine.processes.runtime import Runtime


def run(args: argparse.Namespace) -> Result:
    runtime = Runtime(TrainConfig(mixed_precision="auto"), args.mixed_precision)
    iteration = make_iteration(make_method(args.architecture, args.classes), runtime, args.batch_size)
    inputs = make_inputs(
        args.architecture, args.classes, args.batch_size, iteration.num_batches, runtime.device
    )
    kinds = operators_of(lambda: iteration(*inputs))
    return {
        "benchmark": "operators",
        "architecture": args.architecture,
        "precision": "float32" if runtime.mixed_precision == "no" else runtime.mixed_precision,
        "operators": kinds.total(),
        "kinds": dict(kinds.most_common()),
    }
