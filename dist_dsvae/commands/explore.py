"""Explore a model in the browser, or watch a run train:

dsvae explore                                the model that comes with the project
dsvae explore --model model
dsvae explore --run runs/quickstart
"""

from __future__ import annotations

import argparse

from dist_dsvae.commands.starting import HelpFormatter, fail, say_start
from dist_dsvae.config import option_types
from dist_dsvae.core.paths import path_argument, place_argument


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--model",
        type=place_argument,
        metavar="DIR_OR_ID",
        help="a directory of `dsvae export`, or a hub's repository",
    )
    what.add_argument(
        "--run",
        type=path_argument,
        help="a run directory, also while it trains: its newest model, grids and curves",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (this machine alone)")
    parser.add_argument(
        "--port", type=option_types.whole(0, 65535), default=7860, help="0: a free one (7860)"
    )
    parser.add_argument(
        "--max-upload-mib",
        type=option_types.number(0, 2**20, above=True),
        default=10,
        help="of an uploaded picture (10)",
    )
    return parser


def main() -> int:
    args = make_parser().parse_args()
    say_start()
    try:
        from dist_dsvae.explore.app import explore
        from dist_dsvae.runs.open_model import model_in_the_box
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        return fail('The page needs Gradio: pip install "dist_dsvae[explore]"')
    try:
        if args.run is None and args.model is None:
            args.model = model_in_the_box()
        explore(**vars(args))
    except (ValueError, OSError) as error:
        return fail(error)
    return 0
