"""Evaluate a run, or compare runs that were evaluated:

accelerate launch launch/evaluate.py --run runs/quickstart [--step N] [--classifier PLACE] [--json]
python launch/evaluate.py --compare runs/cifar10 runs/cvae_gan-cifar10 ... [--out comparison]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from dist_dsvae.engine.evaluate import evaluate, run_config, with_changes
from dist_dsvae.engine.preemption import Preempted
from dist_dsvae.engine.runtime import Runtime
from dist_dsvae.engine.watchdog import MissingRankError
from dist_dsvae.evaluation.report import Bars, table_of


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="run directory")
    parser.add_argument("--step", type=int, help="of the checkpoint (default: the newest)")
    parser.add_argument("--name", default="scores", help="of the file in <run>/evaluation (scores)")
    parser.add_argument("--mixed_precision", "--mixed-precision", choices=["auto", "no", "bf16", "fp16"])
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    settings = parser.add_argument_group("in place of the run's own section evaluation")
    settings.add_argument(
        "--classifier", metavar="PLACE", help="a published classifier, or a file of weights as [KIND=]PATH"
    )
    settings.add_argument(
        "--fid-network", metavar="PLACE", help="for FID, precision and recall (the classifier)"
    )
    settings.add_argument("--samples-per-class", type=int)
    settings.add_argument("--real-samples", type=int, help="0: as many as are generated")
    settings.add_argument("--real-split", choices=["train", "test"])
    settings.add_argument("--diversity-samples", type=int, help="per class, for all pairs of a class")
    settings.add_argument("--neighbour-samples", type=int, help="at most, for precision and recall")
    settings.add_argument("--splits", type=int, help="of the second Inception Score")
    settings.add_argument("--batch-size", type=int)
    settings.add_argument("--seed", type=int)
    settings.add_argument("--weights", choices=["auto", "ema", "raw"])
    settings.add_argument("--batch-norm", choices=["running", "batch"])
    return parser.parse_args()


def main() -> int:
    args = parse()
    given = vars(args)
    own = ("run", "step", "name", "mixed_precision", "json")
    changes = {key: value for key, value in given.items() if key not in own}
    console = Console(stderr=args.json, highlight=False)
    try:
        runtime = Runtime(run_config(args.run), args.mixed_precision)
        with Bars(console, enabled=runtime.is_main) as bars:
            result = evaluate(
                args.run, args.step, args.name, runtime, lambda c: with_changes(c, **changes), bars.update
            )
        if runtime.is_main:
            console.print(table_of(result))
            console.print(f"Wrote {args.run / 'evaluation' / args.name}.json", soft_wrap=True)
            if args.json:
                print(json.dumps(result))
        runtime.close()
    except Preempted as stop:
        print("Stopped; the same command goes on from there.", file=sys.stderr)
        return stop.exit_code
    except (ValueError, MissingRankError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.strerror}: {error.filename}. Mend that, then start again.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
