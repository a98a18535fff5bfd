"""Train an experiment, given by the name of one that comes with the project or by its file:

dsvae train quickstart [--run-dir D] [--set key.key=value ...]        one process
accelerate launch --no_python dsvae train --config quickstart ...     as many as there are GPUs
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dist_dsvae.commands.starting import HelpFormatter, answer, fail, say_start
from dist_dsvae.config import ExperimentConfig
from dist_dsvae.config.reading import load_config
from dist_dsvae.core.paths import path_argument, place_argument

_EPILOG = """\
`dsvae config` explains every key that --set takes, `dsvae config train` those of a section;
`dsvae config --names` lists the experiments that come with the project, and `dsvae config --print NAME`
shows one, to make your own of it.

status: 0 at the end, 75 where the run was told to stop and the same command goes on, 1 after an error.
"""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=_EPILOG, formatter_class=HelpFormatter)
    what = "a JSON file, or the name of an experiment that comes with the project, as quickstart"
    parser.add_argument("config", nargs="?", type=path_argument, action=_GivenOnce, help=what)
    parser.add_argument("--config", type=path_argument, action=_GivenOnce, help="the same, by an option")
    parser.add_argument(
        "--run-dir", type=path_argument, help="where the run lives (default: the config's run_dir)"
    )
    parser.add_argument(
        "--resume",
        type=place_argument,
        default="auto",
        metavar="auto|never|PATH",
        help="auto continues the run directory's newest checkpoint, if there is one (default)",
    )
    parser.add_argument(
        "--init-from",
        type=place_argument,
        metavar="RUN|MODEL",
        help="start a new run from the weights of this one, a checkpoint or an exported model, with the same "
        "classes or others; goes before the config",
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
    parser.add_argument(
        "--print-run-dir",
        action="store_true",
        help="check the arguments and the config, print where the run lives, and leave",
    )
    return parser


class _GivenOnce(argparse.Action):
    """An argument that stands for an option of the same name."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest)
        if before is not None and values is not None:
            parser.error(f"two experiments are given, {before} and {values}; give one.")
        setattr(namespace, self.dest, before or values)  # no value: argparse says that it is not given here


def main() -> int:
    parser = make_parser()
    args = parser.parse_args()
    if args.config is None:
        parser.error("which experiment? Give its file, or a name: `dsvae train quickstart`.")
    say_start()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if args.init_from is not None:
        args.overrides.append(f"init_from={args.init_from}")
    try:
        config = load_config(args.config, args.overrides)
    except ValueError as error:  # every rank reads the same file: one says what is wrong with it
        return fail(error) if os.environ.get("LOCAL_RANK", "0") == "0" else 1
    run_dir = args.run_dir or Path(config.run_dir)
    config = dataclasses.replace(config, run_dir=str(run_dir))
    if args.print_run_dir:
        return answer(str(run_dir))
    return train(config, run_dir, args.resume, args.mixed_precision)


def train(config: ExperimentConfig, run_dir: Path, resume: str, mixed_precision: str | None) -> int:
    """The exit status of a training to its end, or until it is stopped."""
    from dist_dsvae.engine.iteration.guard import NonFiniteLossError
    from dist_dsvae.engine.memory import out_of_memory_explained
    from dist_dsvae.engine.processes.runtime import Runtime
    from dist_dsvae.engine.stopping.preemption import Preempted, forget_the_start_before
    from dist_dsvae.engine.stopping.watchdog import MissingRankError, explained, leave_what_hangs
    from dist_dsvae.engine.trainer import Trainer
    from dist_dsvae.runs.run_lock import holding

    try:
        runtime = Runtime(config.train, mixed_precision)
        processes = (runtime.device, runtime.rank, runtime.world_size)
        with holding(run_dir), out_of_memory_explained(config.data, *processes):
            forget_the_start_before(run_dir)
            with explained():
                trainer = Trainer(config, run_dir, resume, runtime)
            trainer.train()
        runtime.close()
    except Preempted as stop:
        return stop.exit_code
    except MissingRankError as error:
        fail(error)
        leave_what_hangs()
        return 1
    except (ValueError, OSError, NonFiniteLossError) as error:
        return fail(error)
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on from the newest checkpoint.", file=sys.stderr)
        return 130
    return 0
