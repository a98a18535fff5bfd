"""Evaluate a run on its test split:

accelerate launch launch/evaluate.py --run runs/quickstart [--step N] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dist_dsvae.engine.evaluate import evaluate, run_config
from dist_dsvae.engine.runtime import Runtime


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="run directory")
    parser.add_argument("--step", type=int, help="of the checkpoint (default: the newest)")
    parser.add_argument("--name", default="held-out", help="of the file in <run>/evaluation")
    parser.add_argument("--mixed_precision", "--mixed-precision", choices=["auto", "no", "bf16", "fp16"])
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    args = parser.parse_args()
    try:
        runtime = Runtime(run_config(args.run), args.mixed_precision)
        result = evaluate(args.run, args.step, args.name, runtime)
        if runtime.is_main:
            table = Table(title=f"{args.run}, {result['checkpoint']}", show_header=False)
            for key, value in result.items():
                table.add_row(key, f"{value:.4g}" if isinstance(value, float) else str(value))
            Console(stderr=args.json).print(table)
            if args.json:
                print(json.dumps(result))
        runtime.close()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
