"""Make a model that others can load safely from a run, with its card:

dsvae export --run runs/quickstart --out model [--torch-export] [--onnx]
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from dist_dsvae.commands.starting import HelpFormatter, fail, say, say_start, tell
from dist_dsvae.config import option_types
from dist_dsvae.core.paths import path_argument

if TYPE_CHECKING:
    from dist_dsvae.pretrained.programs import ProgramKind


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--run", type=path_argument, required=True, help="run directory")
    parser.add_argument("--out", type=path_argument, required=True, help="directory to write")
    parser.add_argument("--step", type=option_types.step, help="of the checkpoint (default: the newest)")
    parser.add_argument(
        "--weights",
        choices=["auto", "ema", "raw"],
        default="auto",
        help="the moving average, or the last weights (default: the average, if there is one)",
    )
    parser.add_argument(
        "--license",
        "--licence",  # as it was called
        default="other",
        help="for the card, as the hub names it: mit, cc-by-nc-4.0, ... (other)",
    )
    parser.add_argument(
        "--torch-export",
        action="store_true",
        help="also encoder.pt2, decoder.pt2 and sampler.pt2, which torch.export.load reads, checked against "
        "the model",
    )
    parser.add_argument(
        "--onnx",
        action="store_true",
        help="also encoder.onnx, decoder.onnx and sampler.onnx, checked against the model in ONNX Runtime "
        '(pip install "dist_dsvae[onnx]")',
    )
    parser.add_argument(
        "--half",
        action="store_true",
        help="store the weights as float16: half the bytes, pictures all but equal",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export in OUT")
    return parser


def main() -> int:
    args = make_parser().parse_args()
    say_start()
    from dist_dsvae.runs.export import export

    kinds: list[ProgramKind] = []
    kinds += ["pt2"] if args.torch_export else []
    kinds += ["onnx"] if args.onnx else []
    try:
        sentence = export(
            args.run,
            args.out,
            args.step,
            args.weights,
            license=args.license,
            programs=kinds,
            half=args.half,
            overwrite=args.overwrite,
            say=say,
        )
    except (ValueError, OSError) as error:
        return fail(error)
    tell(sentence)
    return 0
