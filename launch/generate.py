"""Draw from trained runs:

python launch/generate.py points --run runs/toy runs/cvae_gan-toy --out figure2.png
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dist_dsvae.engine.drawing import draw_points


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    points = commands.add_parser("points", help="samples of runs on points beside the real ones (Figure 2)")
    points.add_argument("--run", type=Path, nargs="+", required=True, help="run directories")
    points.add_argument("--out", type=Path, required=True, help="PNG file")
    points.add_argument("--num-points", type=int, default=3000, help="of each panel")
    points.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.num_points < 1:
        parser.error(f"--num-points is {args.num_points}; it must be at least 1")
    try:
        draw_points(args.run, args.out, args.num_points, args.seed)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.strerror}: {error.filename}", file=sys.stderr)
        return 1
    print(f"Wrote {args.out}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
