"""Draw from a trained model, given as --run RUN or --model DIRECTORY (of launch/export.py):

python launch/generate.py grid        --run runs/quickstart --out grid.png             Figures 3, 8, 9
python launch/generate.py interpolate zs --run runs/quickstart --out figure4a.png      Figure 4 (zs or zu)
python launch/generate.py vary        --run runs/quickstart --out figure5.png          Figure 5
python launch/generate.py swap        --run runs/quickstart --out figure6.png          Figure 6
python launch/generate.py inpaint     --run runs/quickstart --out figure7.png          Figure 7
python launch/generate.py points      --run runs/toy runs/cvae_gan-toy --out figure2.png
accelerate launch launch/generate.py many --run runs/quickstart --per-class 500 --out generated [--shards]
"""

from __future__ import annotations

import argparse
import shlex
import sys

import starting  # noqa: F401 - for its effect
import torch

from dist_dsvae.config import TrainConfig, option_types
from dist_dsvae.config.fields import MAX_TEMPERATURE
from dist_dsvae.core.paths import path_argument, place_argument
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.pretrained import figures
from dist_dsvae.pretrained.model import PretrainedModel
from dist_dsvae.pretrained.pictures import read_picture
from dist_dsvae.pretrained.requests import Mask, class_ids
from dist_dsvae.runs.bulk_samples import write_many
from dist_dsvae.runs.open_model import open_model, shown_files, shown_of_split, split_to_show
from dist_dsvae.runs.scatter import draw_points
from dist_dsvae.sampling.generate import spread
from dist_dsvae.sampling.inpaint import NUM_STARTS, REFINE_STEPS
from dist_dsvae.sampling.masks import HOLES
from dist_dsvae.sampling.picture_file import check_replaceable
from dist_dsvae.sampling.temperature import Temperatures


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    interpolate.add_argument("--steps", type=option_types.panels, default=10)
    interpolate.add_argument("--path", choices=["linear", "spherical"], default="linear")
    vary = commands.add_parser("vary", help="single dimensions of zu (Figure 5)")
    vary.add_argument(
        "--dims", type=option_types.whole(0), nargs="+", help="dimensions (default: those that change most)"
    )
    vary.add_argument(
        "--num-dims", type=option_types.panels, default=3, help="how many of those that change most"
    )
    vary.add_argument("--steps", type=option_types.panels, default=7)
    vary.add_argument(
        "--extent",
        type=option_types.number(0, 1000, above=True),
        default=3.0,
        help="deviations of the prior, on both sides",
    )
    swap = commands.add_parser("swap", help="zs of the left with zu of the top, real pictures (Figure 6)")
    swap.add_argument("--rows", type=option_types.panels, default=6)
    swap.add_argument("--columns", type=option_types.panels, default=8)
    inpaint = commands.add_parser("inpaint", help="original, corrupted, painted (Figure 7)")
    inpaint.add_argument("--masks", nargs="+", choices=list(HOLES), help="holes (default: all)")
    inpaint.add_argument(
        "--mask-image", type=path_argument, help="a hole of your own: a picture, white in the hole"
    )
    inpaint.add_argument(
        "--refine-steps", type=option_types.whole(0), default=REFINE_STEPS, help="of the codes; 0: none"
    )
    inpaint.add_argument(
        "--starts",
        type=option_types.whole(0, 1000),
        default=NUM_STARTS,
        help="draws of the prior to refine besides",
    )
    inpaint.add_argument("--no-blend", action="store_true", help="leave the step at the hole's border")
    inpaint.add_argument("--pictures", type=option_types.panels, default=4)
    many = commands.add_parser("many", help="many samples per class, by all processes")
    many.add_argument("--per-class", type=option_types.positive, required=True)
    many.add_argument("--shards", action="store_true", help="WebDataset shards in OUT/train, for training")
    many.add_argument(
        "--overwrite", action="store_true", help="replace samples that this program wrote to OUT"
    )

    for command in (grid, interpolate, vary, swap, inpaint, many):
        add_common(command, is_directory=command is many)
    for command in (grid, many):
        for code in ("zs", "zu"):
            command.add_argument(
                f"--temperature-{code}",
                type=option_types.number(0, MAX_TEMPERATURE, above=True),
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
    return parser.parse_args()


def add_common(parser: argparse.ArgumentParser, *, is_directory: bool) -> None:
    parser.add_argument("--run", type=path_argument, help="run directory")
    parser.add_argument(
        "--model", type=place_argument, help="directory that launch/export.py wrote, or an id on the hub"
    )
    parser.add_argument(
        "--step", type=option_types.step, help="of the run's checkpoint (default: the newest)"
    )
    parser.add_argument("--weights", choices=["auto", "ema", "raw"], default="auto", help="of the run")
    what, kind = ("directory", path_argument) if is_directory else ("PNG file", option_types.png_file)
    parser.add_argument("--out", type=kind, required=True, help=what)
    parser.add_argument("--classes", nargs="+", help="names or numbers (default: spread over all)")
    parser.add_argument("--seed", type=option_types.seed, default=0)
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: a GPU if there is one)")
    parser.add_argument("--mixed_precision", "--mixed-precision", choices=["no", "bf16"], default="no")
    parser.add_argument("--batch-size", type=option_types.batch_size, default=256)


def draw(args: argparse.Namespace) -> str:
    """Draw a figure of a model; what to tell about it."""
    check_replaceable(args.out)
    model = load(args, "cuda" if torch.cuda.is_available() else "cpu")
    wanted = class_ids(args.classes, model.classes) if args.classes else None
    if args.command in ("swap", "inpaint"):
        return draw_real(args, model, wanted)
    classes = wanted or spread(len(model.classes), 3 if args.command in ("interpolate", "vary") else 10)
    if args.command == "grid":
        temperatures = Temperatures(args.temperature_zs, args.temperature_zu)
        figures.grid(model, args.out, classes, args.columns, args.seed, temperatures)
    elif args.command == "interpolate":
        figures.interpolated(model, args.out, classes, args.steps, args.moving, args.path, args.seed)
    else:
        dims = args.dims or args.num_dims
        drawn = figures.varied(model, args.out, classes, dims, args.steps, args.extent, args.seed)
        changes = ", ".join(f"{dim} ({change:.3f})" for dim, change in drawn)
        return f"Dimensions of zu, and how much they change pictures: {changes}. Wrote {args.out}."
    return f"Wrote {args.out}."


def load(args: argparse.Namespace, device: str | torch.device) -> PretrainedModel:
    return open_model(
        args.run,
        args.model,
        args.step,
        args.weights,
        device=args.device or device,
        mixed_precision=args.mixed_precision,
        batch_size=args.batch_size,
    )


def draw_many(args: argparse.Namespace) -> str:
    """By all processes of the launcher; the main one has something to tell."""
    runtime = Runtime(TrainConfig(cpu_threads=1), "no")
    try:
        model = load(args, runtime.device)
        sentence = write_many(
            model,
            args.out,
            class_ids(args.classes, model.classes),
            args.per_class,
            args.seed,
            Temperatures(args.temperature_zs, args.temperature_zu),
            as_shards=args.shards,
            overwrite=args.overwrite,
            command=shlex.join(["launch/generate.py", *sys.argv[1:]]),
        )
        return sentence if runtime.is_main else ""
    finally:
        runtime.close()


def draw_real(args: argparse.Namespace, model: PretrainedModel, wanted: list[int] | None) -> str:
    """The figures that begin with real pictures."""
    counts = [args.rows, args.columns] if args.command == "swap" else [args.pictures]
    if args.images:
        shown = [shown_files(model, args.images, wanted)] * len(counts)
    else:
        split = split_to_show(args.run, args.data)
        shown = [
            shown_of_split(model, split, wanted, count, args.seed, draw=draw)
            for draw, count in enumerate(counts)
        ]
    left_out = "".join(
        f"{sentence}\n" for sentence in dict.fromkeys(one.left_out for one in shown) if sentence
    )
    if args.command == "swap":
        figures.swapped(model, args.out, *shown)
        return f"{left_out}Wrote {args.out}."
    masks: dict[str, Mask] = {name: name for name in args.masks or ([] if args.mask_image else HOLES)}
    if args.mask_image:
        masks[args.mask_image.stem] = read_picture(args.mask_image)
    scores = figures.inpainted(
        model,
        args.out,
        *shown,
        masks,
        refine_steps=args.refine_steps,
        num_starts=args.starts,
        blend=not args.no_blend,
    )
    errors = {name: [f"{score.error:.4f}" for score in of_mask[1:]] for name, of_mask in scores.items()}
    seams = {name: [f"{score.seam:.3f}" for score in of_mask] for name, of_mask in scores.items()}
    return (
        f"{left_out}Squared error in the hole: {_listed(errors)}.\n"
        f"Step across its border, of the originals first: {_listed(seams)}. Wrote {args.out}."
    )


def _listed(numbers: dict[str, list[str]]) -> str:
    return "; ".join(f"{name} " + ", then ".join(each) for name, each in numbers.items())


def main() -> int:
    args = parse()
    try:
        if args.command == "points":
            check_replaceable(args.out)
            draw_points(args.run, args.out, args.num_points, args.seed)
            sentence = f"Wrote {args.out}."
        else:
            sentence = draw_many(args) if args.command == "many" else draw(args)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.strerror or error}: {error.filename}", file=sys.stderr)
        return 1
    if sentence:
        print(sentence)
    return 0


if __name__ == "__main__":
    sys.exit(main())
