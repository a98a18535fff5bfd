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
import sys
from collections.abc import Collection

from dist_dsvae.commands.starting import HelpFormatter, fail, fail_of_files

_BENCHMARKS = {
    "step": ("step_time", "seconds per training iteration"),
    "gm-loss": ("gm_loss_time", "milliseconds of the GM loss"),
    "data": ("decoding", "decoding from shards, images per second on one core"),
    "checkpoint": ("checkpoint_time", "seconds and bytes of a checkpoint"),
    "diversity": ("diversity_time", "seconds of the MS-SSIM of all pairs"),
    "operators": ("operator_counts", "operators of a training iteration by kind"),
    "roofline": ("prediction", "predicted seconds and memory of a training iteration on a GPU"),
    "scale": ("scaling", "predicted and measured step time by number of processes"),
    "scale-data": ("scale_data", "seconds to the first batch and peak memory of a large split"),
}


def make_parser(names: Collection[str] = tuple(_BENCHMARKS)) -> argparse.ArgumentParser:
    """names: of the benchmarks whose options are wanted, for which their modules are imported."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (module_name, purpose) in _BENCHMARKS.items():
        command = commands.add_parser(name, help=purpose)
        if name in names:
            module = importlib.import_module(f"dist_dsvae.commands.benchmarks.{module_name}")
            command.description = module.__doc__
            module.add_arguments(command)
            command.add_argument("--json", action="store_true", help="print one JSON object as the last line")
            command.set_defaults(run=module.run)
    return parser


def main() -> int:
    try:
        args = make_parser(sys.argv[1:2]).parse_args()
        result = args.run(args)
    except ModuleNotFoundError as error:
        return fail(f"This compares with {error.name}: pip install {error.name}")
    except ValueError as error:
        return fail(str(error))
    except OSError as error:
        return fail_of_files(error)
    if result is not None:  # only rank 0 has one
        from dist_dsvae.commands.benchmarks.timing import show

        show(result, as_json=args.json)
    return 0


if __name__ == "__main__":  # where a benchmark starts processes of its own
    sys.exit(main())
