"""Train an experiment:

accelerate launch launch/train.py --config configs/quickstart.json [--run-dir D] [--set key.key=value ...]
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from dist_dsvae.config_io import load_config
from dist_dsvae.engine.guard import NonFiniteLossError
from dist_dsvae.engine.runtime import Runtime
from dist_dsvae.engine.trainer import Trainer


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", type=Path, required=True, help="experiment file, e.g. configs/quickstart.json"
    )
    parser.add_argument("--run-dir", type=Path, help="where the run lives (default: the config's run_dir)")
    parser.add_argument(
        "--resume",
        default="auto",
        metavar="auto|never|PATH",
        help="auto continues the run directory's newest checkpoint, if there is one (default)",
    )
    parser.add_argument(
        "--mixed_precision",
        "--mixed-precision",
        choices=["auto", "no", "bf16", "fp16"],
        help="goes before the config",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY.KEY=VALUE",
        dest="overrides",
        help="change one value of the config; may be repeated",
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        config = load_config(args.config, args.overrides)
        runtime = Runtime(config.train, args.mixed_precision)
        Trainer(config, args.run_dir or Path(config.run_dir), args.resume, runtime).train()
        runtime.close()
    except (ValueError, NonFiniteLossError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
