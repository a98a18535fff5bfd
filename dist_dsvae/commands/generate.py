"""Draw from a trained model, given as --run RUN or --model DIRECTORY (of `dsvae export`); from the one that
comes with the project, where neither is given:

dsvae generate grid                                                            into grid.png
dsvae generate grid           --run runs/quickstart --out grid.png             Figures 3, 8, 9
dsvae generate interpolate zs --run runs/quickstart --out figure4a.png         Figure 4 (zs or zu)
dsvae generate vary           --run runs/quickstart --out figure5.png          Figure 5
dsvae generate swap           --run runs/quickstart --out figure6.png          Figure 6
dsvae generate inpaint        --run runs/quickstart --out figure7.png          Figure 7
dsvae generate interpolate zs --run runs/quickstart --out film.gif             or .webp, .mp4
dsvae generate swap           --run runs/mine --images anna.jpg ben.jpg --paste --out swapped.png
dsvae generate points         --run runs/toy runs/cvae_gan-toy --out figure2.png
accelerate launch --no_python dsvae generate many --run runs/quickstart --per-class 500 --out many [--shards]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dist_dsvae.commands.starting import HelpFormatter, fail, say_start, tell
from dist_dsvae.config import option_types
from dist_dsvae.core.paths import path_argument, place_argument
from dist_dsvae.sampling.holes import HOLES, NUM_STARTS, REFINE_STEPS


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    points = commands.add_parser("points", help="samples of runs on points beside the real ones (Figure 2)")
    points.add_argument("--run", type=path_argument, nargs="+", required=True, help="run directories")
    points.add_argument("--out", type=option_types.png_file, required=True, help="PNG file")
    points.add_argument("--num-points", type=option_types.whole(1, 10**7), default=3000, help="of each panel")
    points.add_argument("--seed", type=option_types.seed, default=0)

    grid = commands.add_parser("grid", help="a class per row, one zu per column (Figures 3, 8, 9)")
    grid.add_argument("--columns", type=option_types.panels, default=10)
    interpolate = commands.add_parser("interpolate", help="one code along a random path (Figure 4)")
    interpolate.add_argument("moving", choices=["zs", "zu"], help="the code that moves")
    interpolate.add_argument("--steps", type=option_types.panels, help="(10; of a film 50, a second for 25)")
    interpolate.add_argument("--path", choices=["linear", "spherical"], default="linear")
    vary = commands.add_parser("vary", help="single dimensions of zu (Figure 5)")
    _add_vary_options(vary)
    swap = commands.add_parser("swap", help="zs of the left with zu of the top, real pictures (Figure 6)")
    swap.add_argument("--rows", type=option_types.panels, help="pictures of a split (6)")
    swap.add_argument("--columns", type=option_types.panels, help="pictures of a split (8)")
    inpaint = commands.add_parser("inpaint", help="original, corrupted, painted (Figure 7)")
    _add_inpaint_options(inpaint)
    many = commands.add_parser("many", help="many samples per class, by all processes")
    many.add_argument("--per-class", type=option_types.positive, required=True)
    many.add_argument("--shards", action="store_true", help="WebDataset shards in OUT/train, for training")
    many.add_argument(
        "--overwrite", action="store_true", help="replace samples that this program wrote to OUT"
    )

    for command in (grid, interpolate, vary, swap, inpaint, many):
        add_common(command, is_directory=command is many, film=command is interpolate)
    for command in (grid, many):
        for code in ("zs", "zu"):
            command.add_argument(
                f"--temperature-{code}",
                type=option_types.temperature,
                default=1.0,
                help=f"of {code}, above 0, up to 10: below 1 more typical samples, above 1 more diverse",
            )
    for command in (swap, inpaint):
        command.add_argument(
            "--images", type=path_argument, nargs="+", help="picture files in place of a split's"
        )
        command.add_argument(
            "--data", type=place_argument, help="split of shards to take pictures from (the run's test split)"
        )
        add_photograph_options(command)
    return parser


def _add_vary_options(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--dims", type=option_types.whole(0), nargs="+", help="dimensions (default: those that change most)"
    )
    which.add_argument(
        "--num-dims", type=option_types.panels, default=3, help="how many of those that change most"
    )
    parser.add_argument("--steps", type=option_types.panels, default=7)
    parser.add_argument(
        "--extent",
        type=option_types.number(0, 1000, above=True),
        default=3.0,
        help="deviations of the prior, on both sides",
    )


def _add_inpaint_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--masks", nargs="+", choices=list(HOLES), help="holes (default: those that suit)")
    parser.add_argument(
        "--mask-image",
        type=path_argument,
        help="a hole of your own: a picture, white (above 127 of 255) there",
    )
    parser.add_argument(
        "--refine-steps", type=option_types.whole(0), default=REFINE_STEPS, help="of the codes; 0: none"
    )
    parser.add_argument(
        "--starts",
        type=option_types.whole(0, 1000),
        default=NUM_STARTS,
        help="draws of the prior to refine besides",
    )
    parser.add_argument("--no-blend", action="store_true", help="leave the step at the hole's border")
    parser.add_argument("--pictures", type=option_types.panels, help="of a split (4)")


def add_photograph_options(parser: argparse.ArgumentParser) -> None:
    """For models of aligned faces, of which a photograph has to be brought to the same form."""
    group = parser.add_argument_group("photographs, for a model of aligned faces (extra: faces)")
    group.add_argument(
        "--align",
        choices=["auto", "yes", "no"],
        default="auto",
        help="find and align the faces of --images: unless they have the model's size; always; never",
    )
    group.add_argument(
        "--face",
        type=option_types.whole(0),
        nargs="+",
        default=[0],
        metavar="N",
        help="which face, from the left from 1; one for all or one for each of --images (0: the largest)",
    )
    group.add_argument(
        "--paste",
        action="store_true",
        help="put the result back into the photographs: F-1.png, F-2.png, ... for --out F.png",
    )


def add_common(parser: argparse.ArgumentParser, *, is_directory: bool, film: bool) -> None:
    parser.add_argument("--run", type=path_argument, help="run directory")
    parser.add_argument(
        "--model", type=place_argument, help="directory that `dsvae export` wrote, or an id on the hub"
    )
    parser.add_argument(
        "--step", type=option_types.step, help="of the run's checkpoint (default: the newest)"
    )
    parser.add_argument("--weights", choices=["auto", "ema", "raw"], default="auto", help="of the run")
    if is_directory:
        parser.add_argument("--out", type=path_argument, required=True, help="directory")
    else:
        name = Path(f"{parser.prog.rpartition(' ')[2]}.png")
        kind = option_types.png_or_film_file if film else option_types.png_file
        what = "PNG file, or a film: .gif, .webp, .mp4 (extra: film)" if film else "PNG file"
        parser.add_argument("--out", type=kind, default=name, help=f"{what} ({name})")
    parser.add_argument("--classes", nargs="+", help="names or numbers (default: spread over all)")
    parser.add_argument("--seed", type=option_types.seed, default=0)
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: a GPU if there is one)")
    parser.add_argument("--mixed_precision", "--mixed-precision", choices=["no", "bf16"], default="no")
    parser.add_argument("--batch-size", type=option_types.batch_size, default=256)


def main() -> int:
    args = make_parser().parse_args()
    say_start()
    from dist_dsvae.commands.drawing import drawn
    from dist_dsvae.engine.memory import out_of_memory_while
    from dist_dsvae.pretrained.requests import device_from

    smaller = "Draw fewer rows, columns, pictures or steps at a time, or lower --batch-size."
    try:
        device = device_from(getattr(args, "device", None))
        with out_of_memory_while(f"{args.command} was drawn", device, smaller):
            sentence = drawn(args, device)
    except (ValueError, OSError) as error:
        return fail(error)
    if sentence:
        tell(sentence)
    return 0
