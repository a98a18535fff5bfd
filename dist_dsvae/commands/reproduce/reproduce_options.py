"""Make the tables and curves of the paper's experiments, with seeds, by one command:

    dsvae reproduce quickstart                            5 methods x 3 seeds, equal updates
    dsvae reproduce fashion-mnist --methods dsvae cvae_gan --budget minutes --minutes 30 --jobs 2
    dsvae reproduce quickstart --figures                  the paper's figures too, of each first seed
    dsvae reproduce quickstart --dry-run                  how long it will take on this machine
    dsvae reproduce --write-docs                          the tables of docs/*.md from docs/results/*.json

NAME is a data set of configs/. Each run lives in RUNS/NAME/METHOD-seedN. What is missing is trained and
evaluated by processes of `dsvae train`, `export` and `evaluate`; a run that has ended is not trained again,
and the same command goes on where it was stopped. OUT/NAME.json gets all figures with seeds, budget,
hardware, versions and commands, OUT/NAME.md the table, OUT/NAME.png the curves of --temperatures,
OUT/NAME/figureN-METHOD.png the figures.
"""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import suppress
from types import FrameType

from dist_dsvae.commands.starting import HelpFormatter, fail, say_start
from dist_dsvae.config import option_types
from dist_dsvae.core.paths import path_argument
from dist_dsvae.core.process import stop_signals

METHODS = ("dsvae", "paper", "cvae", "cgan", "cvae_gan")
_EPILOG = """\
As a job array of SLURM, one run each (--only trains it), then the judge, the scores and the table. Of
cifar10 these are 4 methods x 3 seeds, and seed s of the m-th method has the index 3 m + s, both from 0:

    sbatch --array 0-11 --gpus 1 --wrap 'dsvae reproduce cifar10 --only $SLURM_ARRAY_TASK_ID'
    dsvae reproduce cifar10

status: 0 at the end, 75 where it was told to stop and the same command goes on, 1 after an error.
"""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=_EPILOG, formatter_class=HelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="data sets, such as quickstart or cifar10")
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        help="paper is Algorithm 1 and no more, configs/paper/NAME.json (all that NAME has, but paper "
        "only where it is another training than dsvae: not of cifar10, cifar100, cub200 and facescrub)",
    )
    parser.add_argument("--seeds", nargs="+", type=option_types.seed, default=[0, 1, 2], metavar="N")
    _add_budget(parser)
    parser.add_argument(
        "--jobs", type=option_types.num_workers, metavar="N", help="processes at a time (the GPUs, or 1)"
    )
    parser.add_argument(
        "--temperatures",
        nargs="+",
        type=option_types.temperatures,
        default=[],
        metavar="T",
        help="for curves of the trade-off: sample at these, of all codes, or ZS:ZU of methods with both",
    )
    for option, what in (("--set", "the runs'"), ("--judge-set", "the judge's")):
        parser.add_argument(
            option,
            action="append",
            default=[],
            metavar="KEY.KEY=VALUE",
            dest="overrides" if option == "--set" else "judge_overrides",
            help=f"change one value of {what} configs; may be repeated",
        )
    parser.add_argument(
        "--runs", type=path_argument, default="runs", metavar="DIR", help="of the runs (runs)"
    )
    parser.add_argument(
        "--out",
        type=path_argument,
        default="docs/results",
        metavar="DIR",
        help="of the results (docs/results)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="start nothing; measure an iteration and say how long it takes"
    )
    parser.add_argument(
        "--only",
        type=option_types.whole(0),
        metavar="INDEX",
        help="train this one of the runs, in their order",
    )
    parser.add_argument("--figures", action="store_true", help="draw Figures 2 to 9 too, into OUT/NAME")
    parser.add_argument(
        "--write-docs", action="store_true", help="also the marked tables of the pages beside OUT"
    )
    return parser


def _add_budget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--budget",
        choices=["updates", "minutes", "paper"],
        default="updates",
        help="equal for all methods: updates of the decoder (default), or minutes of training; paper takes "
        "the configs as they are",
    )
    parser.add_argument(
        "--iterations",
        type=option_types.positive,
        metavar="N",
        help="of each run, with an update of the decoder each (the fewest that a config of NAME asks for)",
    )
    parser.add_argument(
        "--minutes",
        type=option_types.number(0, 10**6, above=True),
        metavar="N",
        help="of each run's training",
    )


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Leave with a sentence where options do not go together."""
    if not args.names and not args.write_docs:
        parser.error("reproduce what? Name a data set of configs/, such as quickstart.")
    if (args.minutes is None) == (args.budget == "minutes"):
        parser.error("--minutes N and --budget minutes go together: give both, or none of them.")
    if args.iterations is not None and args.budget != "updates":
        parser.error(
            f"--iterations is the budget of updates, but the budget is {args.budget}. Leave one out."
        )
    if args.only is not None and (args.dry_run or args.figures or args.write_docs):
        parser.error(
            "--only trains one run and writes nothing; leave out --dry-run, --figures and --write-docs."
        )
    for override in args.overrides:
        key = override.partition("=")[0]
        option = {"seed": "--seeds", "run_dir": "--runs"}.get(key)
        if key == "train.max_seconds" and args.budget != "paper":
            option = "--budget minutes with --minutes"
        if key == "train.epochs" and (args.budget == "minutes" or args.iterations is not None):
            option = "--minutes" if args.budget == "minutes" else "--iterations"
        if option is not None:
            parser.error(f"--set {key} has no effect here; give {option}.")
    if not args.names and (vain := _given_in_vain(parser, args)):
        parser.error(f"{vain} is about runs of data sets, and none is named. Name one, or leave it out.")
    if args.write_docs and args.dry_run:
        parser.error("--dry-run writes nothing; leave out --write-docs.")
    if args.only is not None and (args.temperatures or args.judge_overrides):
        parser.error("--only trains one run and evaluates nothing; leave out --temperatures and --judge-set.")
    if len(set(args.seeds)) < len(args.seeds):
        parser.error("--seeds names a seed twice; once is enough.")


def _given_in_vain(parser: argparse.ArgumentParser, args: argparse.Namespace) -> str | None:
    """Of the options that were given, one that does nothing for ``--write-docs`` alone."""
    for key, value in vars(args).items():
        if key not in ("names", "write_docs", "out") and str(value) != str(parser.get_default(key)):
            return f"--{key.replace('overrides', 'set').replace('_', '-')}"
    return None


class Stopped(BaseException):
    """A signal asked this process to stop."""


def _stop(signum: int, frame: FrameType | None) -> None:
    raise Stopped


def main() -> int:
    parser = make_parser()
    args = parser.parse_args()
    check(parser, args)
    say_start()
    from dist_dsvae.commands.reproduce.jobs import JobError
    from dist_dsvae.commands.reproduce.reproducing import reproduce
    from dist_dsvae.engine.stopping.preemption import TRY_AGAIN_LATER

    before = {number: signal.signal(number, _stop) for number in stop_signals()}
    try:
        reproduce(args)
    except (Stopped, KeyboardInterrupt):
        with suppress(OSError):  # its terminal is gone
            print("Stopped; the same command goes on from there.", file=sys.stderr)
        return TRY_AGAIN_LATER
    except JobError as error:
        fail(error)
        return TRY_AGAIN_LATER if error.can_go_on else 1
    except (ValueError, OSError) as error:
        return fail(error)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0
