"""Measure this machine:

dsvae benchmark step        one training iteration against a plain eager transcription
dsvae benchmark gm-loss     GM loss and gradients, by number of classes
dsvae benchmark data        our stream against the usual WebDataset pipeline, one core
dsvae benchmark checkpoint  saving and loading the whole state of a run
dsvae benchmark diversity   intra-class diversity against pytorch_msssim on every pair
dsvae benchmark operators   operators of an iteration, each a kernel on a GPU
dsvae benchmark roofline    what a GPU would need for an iteration: a model, without one
dsvae benchmark scale       step time against the number of GPUs, from measured parts
dsvae benchmark scale-data  opening shards: seconds and memory by shards, samples and classes

Every command runs its sides in turn in one process, quotes medians, and with --json prints one JSON
object as its last line; where there is a peer, its ``ratio`` is ours over the peer (higher is better).
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys

from dist_dsvae.commands.benchmarks import benchmark_options as options
from dist_dsvae.commands.starting import HelpFormatter, fail, leave

# of each its options, the module that measures, and what it gives
_BENCHMARKS = {
    "step": (options.step, "step_time", "seconds per training iteration"),
    "gm-loss": (options.gm_loss, "gm_loss_time", "milliseconds of the GM loss"),
    "data": (options.data, "decoding", "decoding from shards, images per second on one core"),
    "checkpoint": (options.checkpoint, "checkpoint_time", "seconds and bytes of a checkpoint"),
    "diversity": (options.diversity, "diversity_time", "seconds of the MS-SSIM of all pairs"),
    "operators": (options.operators, "operator_counts", "operators of a training iteration by kind"),
    "roofline": (options.roofline, "prediction", "predicted seconds and memory of a GPU's iteration"),
    "scale": (options.scale, "scaling", "predicted and measured step time by number of processes"),
    "scale-data": (options.scale_data, "scale_data", "seconds to the first batch and peak memory of a split"),
}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (add_options, module, purpose) in _BENCHMARKS.items():
        command = commands.add_parser(name, help=purpose, description=inspect.getdoc(add_options))
        add_options(command)
        command.add_argument("--json", action="store_true", help="print one JSON object as the last line")
        command.set_defaults(module=module)
    return parser


def main() -> int:
    args = make_parser().parse_args()
    try:
        result = importlib.import_module(f"dist_dsvae.commands.benchmarks.{args.module}").run(args)
    except ModuleNotFoundError as error:
        return fail(f"This compares with {error.name}: pip install {error.name}")
    except (ValueError, OSError) as error:
        return fail(error)
    if result is not None:  # only rank 0 has one
        from dist_dsvae.commands.benchmarks.timing import show

        show(result, as_json=args.json)
    return 0


if __name__ == "__main__":  # where a benchmark starts processes of its own
    sys.exit(leave(main()))
