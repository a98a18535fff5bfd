"""Evaluate a run, compare runs that were evaluated, or score images that another program made:

accelerate launch --no_python dsvae evaluate --run runs/quickstart [--step N] [--classifier PLACE] [--json]
dsvae evaluate --compare runs/cifar10 runs/cvae_gan-cifar10 ... [--out comparison]
dsvae evaluate --images shards/theirs/train --real shards/cifar10/test --classifier PLACE [--out theirs]
"""

from __future__ import annotations

import argparse
import json
import sys

from rich.console import Console

from dist_dsvae.commands.starting import HelpFormatter, fail, say_start, tell
from dist_dsvae.config import option_types
from dist_dsvae.core.paths import path_argument, place_argument
from dist_dsvae.engine.reporting.steady_output import standard_output

_OF_IMAGES = ("real", "out", "mixed_precision", "overrides", "classifier")
_SHORT_FORMS = (
    "classifier",
    "samples_per_class",
    "identity_network",
    "held_out",
    "temperature_zs",
    "temperature_zu",
)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--run", type=path_argument, help="run directory")
    parser.add_argument(
        "--compare",
        type=path_argument,
        nargs="*",
        metavar="RUN",
        help="run directories, each with --name evaluated",
    )
    parser.add_argument(
        "--images", type=place_argument, metavar="SPLIT", help="shards of images, whoever made them"
    )
    parser.add_argument(
        "--real", type=place_argument, metavar="SPLIT", help="real images, to compare those of --images with"
    )
    parser.add_argument(
        "--out",
        type=place_argument,
        metavar="PREFIX",
        help="of the comparison's files, or a directory for them (comparison.*, beside the first run); "
        "of the scores of --images, PREFIX.json, or a directory for scores.json (none)",
    )
    parser.add_argument("--step", type=option_types.step, help="of the checkpoint (default: the newest)")
    parser.add_argument("--name", default="scores", help="of the file in <run>/evaluation (scores)")
    parser.add_argument("--mixed_precision", "--mixed-precision", choices=["auto", "no", "bf16", "fp16"])
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    settings = parser.add_argument_group("in place of the run's own section evaluation")
    settings.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="evaluation.KEY=VALUE",
        dest="overrides",
        help="change one value (`dsvae config evaluation` lists them); may be repeated",
    )
    settings.add_argument(
        "--classifier",
        type=place_argument,
        metavar="PLACE",
        help="a published classifier, or a file of weights as [KIND=]PATH",
    )
    settings.add_argument("--samples-per-class", type=option_types.positive)
    settings.add_argument(
        "--identity-network",
        type=place_argument,
        metavar="PLACE",
        help="a face network: whom swapped and generated faces resemble",
    )
    settings.add_argument(
        "--held-out",
        type=place_argument,
        metavar="SPLIT",
        help="persons that training never saw, to swap and reconstruct as well",
    )
    for code in ("zs", "zu"):
        settings.add_argument(
            f"--temperature-{code}",
            type=option_types.temperature,
            help=f"of the samples' {code}, above 0 and up to 10: below 1 nearer to the middle of the prior",
        )
    return parser


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Leave with a sentence where options of evaluating and of comparing do not go together."""
    if sum(given is not None for given in (args.run, args.compare, args.images)) != 1:
        parser.error(
            "give one of --run RUN, to evaluate it, --compare RUN RUN ..., to compare evaluated runs, and "
            "--images SPLIT, to score images."
        )
    if (args.images is None) != (args.real is None):
        parser.error("--images SPLIT and --real SPLIT go together: give both, or none of them.")
    if args.out is not None and args.run is not None:
        parser.error("--out says where a comparison or the scores of --images go; leave it out with --run.")
    for kind, allowed, reason in (
        ("compare", ("out", "name"), "says how a run is evaluated; with --compare, runs already are"),
        ("images", _OF_IMAGES, "says how a run is evaluated; the images of --images are there already"),
    ):
        others = {*vars(args)} - {kind, "json", *allowed}
        given = [key for key in vars(args) if key in others and vars(args)[key] != parser.get_default(key)]
        if getattr(args, kind) is not None and given:
            option = given[0].replace("overrides", "set").replace("_", "-")
            parser.error(f"--{option} {reason}. Leave it out.")


def overrides_of(args: argparse.Namespace) -> list[str]:
    """All changes of the section evaluation, the short forms last."""
    short = {key: getattr(args, key) for key in _SHORT_FORMS}
    given = [f"evaluation.{key}={json.dumps(value)}" for key, value in short.items() if value is not None]
    return [*args.overrides, *given]


def evaluate_run(args: argparse.Namespace, console: Console) -> None:
    from dist_dsvae.engine.evaluating.evaluate import evaluate, run_config, with_changes
    from dist_dsvae.engine.memory import out_of_memory_while
    from dist_dsvae.engine.processes.runtime import Runtime
    from dist_dsvae.evaluation.printed_figures import Bars, table_of

    runtime = Runtime(run_config(args.run), args.mixed_precision)
    smaller = (
        "Lower --set evaluation.batch_size=N and evaluation.neighbour_samples=N, or start fewer processes "
        "per machine. What is done is kept: the same command goes on from there."
    )
    explained = out_of_memory_while(f"{args.run} was evaluated", runtime.device, smaller)
    with explained, Bars(console, enabled=runtime.is_main) as bars:
        result = evaluate(
            args.run,
            args.step,
            args.name,
            runtime,
            lambda c: with_changes(c, overrides_of(args)),
            bars.update,
        )
    if runtime.is_main:
        console.print(table_of(result))
        console.print(f"Wrote {args.run / 'evaluation' / args.name}.json", markup=False, soft_wrap=True)
        if args.json:
            tell(json.dumps(result))
    runtime.close()


def score_stored(args: argparse.Namespace, console: Console) -> None:
    from dist_dsvae.config import EvaluationConfig, TrainConfig
    from dist_dsvae.engine.evaluating.evaluate import with_changes
    from dist_dsvae.engine.evaluating.split_images import FORMAT, score_images
    from dist_dsvae.engine.memory import out_of_memory_while
    from dist_dsvae.engine.processes.runtime import Runtime
    from dist_dsvae.evaluation.comparing.proven_files import check_replaceable, prefix_of, write_proven
    from dist_dsvae.evaluation.printed_figures import Bars, table_of

    prefix = None if args.out is None else prefix_of(args.out, "scores")
    if prefix is not None:
        check_replaceable(prefix, FORMAT, ("json",))
    runtime = Runtime(TrainConfig(), args.mixed_precision)
    smaller = "Lower --set evaluation.batch_size=N and evaluation.neighbour_samples=N."
    explained = out_of_memory_while(f"{args.images} was scored", runtime.device, smaller)
    with explained, Bars(console, enabled=runtime.is_main) as bars:
        # Of generated samples, of which there are none: it would bound evaluation.diversity_samples
        of_images = EvaluationConfig(samples_per_class=10**9)
        settings = with_changes(of_images, overrides_of(args))
        result = score_images(args.images, args.real, settings, runtime, bars.update)
    if runtime.is_main:
        console.print(table_of(result))
        for path in [] if prefix is None else write_proven(prefix, result, {}):
            console.print(f"Wrote {path}", markup=False, soft_wrap=True)
        if args.json:
            tell(json.dumps(result))
    runtime.close()


def compare_runs(args: argparse.Namespace, console: Console) -> None:
    from dist_dsvae.evaluation.comparing.comparison import compare
    from dist_dsvae.evaluation.comparing.comparison_files import save_comparison
    from dist_dsvae.evaluation.comparing.comparison_report import as_json, caption, tables_of
    from dist_dsvae.evaluation.comparing.evaluated import read_runs

    comparison = compare(read_runs(args.compare, args.name))
    for table in tables_of(comparison, console.width):
        console.print(table)
    for line in caption(comparison):
        console.print(line, markup=False, soft_wrap=True)
    for path in save_comparison(comparison, args.out):
        console.print(f"Wrote {path}", markup=False, soft_wrap=True)
    if args.json:
        tell(json.dumps(as_json(comparison)))


def main() -> int:
    parser = make_parser()
    args = parser.parse_args()
    check(parser, args)
    say_start()
    from dist_dsvae.engine.stopping.preemption import TRY_AGAIN_LATER, Preempted
    from dist_dsvae.engine.stopping.watchdog import MissingRankError, leave_what_hangs

    console = Console(file=sys.stderr if args.json else standard_output(), highlight=False)
    try:
        if args.compare is not None:
            compare_runs(args, console)
        elif args.images is not None:
            score_stored(args, console)
        else:
            evaluate_run(args, console)
    except Preempted:
        print("Stopped; the same command goes on from there.", file=sys.stderr)
        return TRY_AGAIN_LATER  # also under a launcher that takes it for a crash: there are no scores yet
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on from what was saved.", file=sys.stderr)
        return 130
    except (ValueError, OSError, MissingRankError) as error:
        status = fail(error)
        if isinstance(error, MissingRankError):
            leave_what_hangs()
        return status
    return 0
