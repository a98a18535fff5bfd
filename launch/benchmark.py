"""Measure this machine:

python launch/benchmark.py step        one training iteration against a plain eager transcription
python launch/benchmark.py gm-loss     GM loss and gradients, by number of classes
python launch/benchmark.py data        our stream against the usual WebDataset pipeline, one core
python launch/benchmark.py checkpoint  saving and loading the whole state of a run
python launch/benchmark.py diversity   intra-class diversity against pytorch_msssim on every pair
python launch/benchmark.py operators   operators of an iteration, each a kernel on a GPU
python launch/benchmark.py scale       step time against the number of GPUs, from measured parts

Every command runs its sides in turn in one process, quotes medians, and with --json prints one JSON
object as its last line; where there is a peer, its ``ratio`` is ours over the peer (higher is better).
"""

from __future__ import annotations

import argparse
import sys

import starting  # noqa: F401 - for its effect
from benchmarks import checkpoint, data, diversity, gm_loss, operators, scale, step
from benchmarks.timing import show

_COMMANDS = {
    "step": (step, "seconds per training iteration"),
    "gm-loss": (gm_loss, "milliseconds of the GM loss"),
    "data": (data, "decoding from shards, images per second on one core"),
    "checkpoint": (checkpoint, "seconds and bytes of a checkpoint"),
    "diversity": (diversity, "seconds of the MS-SSIM of all pairs"),
    "operators": (operators, "operators of a training iteration by kind"),
    "scale": (scale, "predicted and measured step time by number of processes"),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (module, purpose) in _COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=module.__doc__)
        module.add_arguments(command)
        command.add_argument("--json", action="store_true", help="print one JSON object as the last line")
        command.set_defaults(run=module.run)
    args = parser.parse_args()
    try:
        result = args.run(args)
    except ModuleNotFoundError as error:
        print(f'error: This compares with {error.name}: pip install -e ".[evaluate]"', file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if result is not None:  # only rank 0 has one
        show(result, as_json=args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
