"""Is this machine, or this job, fit to train? One line per check, each problem with its remedy:

dsvae doctor [--json]
accelerate launch --config_file configs/accelerate/cpu.yaml --num_processes 2 --no_python dsvae doctor

The status is 1 if a check failed. Nothing is left behind.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from dist_dsvae.commands.starting import HelpFormatter, tell
from dist_dsvae.config import option_types
from dist_dsvae.core.paths import path_argument
from dist_dsvae.engine.doctor import packages
from dist_dsvae.engine.doctor.check_names import NAMES
from dist_dsvae.engine.doctor.findings_report import Findings
from dist_dsvae.engine.measuring.families import FAMILIES
from dist_dsvae.engine.reporting.steady_output import standard_output

if TYPE_CHECKING:
    from dist_dsvae.engine.doctor.trial import Trial
    from dist_dsvae.engine.processes.runtime import Runtime

_BEGIN = time.perf_counter()
_OF_A_TRIAL = ("bf16", "iteration", "graph")
_CHECKS_OF = {  # options of some checks alone
    "disk": ("disk",),
    **dict.fromkeys(("architecture", "classes", "batch_size"), _OF_A_TRIAL),
}


def main() -> int:
    report = Findings(sys.stderr if "--json" in sys.argv else standard_output())
    if packages.missing():  # of what everything below imports
        report.add(packages.versions())
        return conclude(report, as_json="--json" in sys.argv)
    parser = make_parser()
    args = parser.parse_args()
    _check_of_those_asked_for(parser, args)
    logging.basicConfig(level=logging.ERROR)
    warnings.filterwarnings("ignore")  # of libraries: what matters here is a finding
    from dist_dsvae.engine.doctor.examination import examine
    from dist_dsvae.engine.stopping.watchdog import leave_what_hangs

    def make_trial(runtime: Runtime) -> Trial:
        return trial_of(args, runtime)

    only = args.only or NAMES
    is_sound = examine(
        report.add, make_trial, disk_directory=args.disk, mixed_precision=args.mixed_precision, only=only
    )
    status = conclude(report, as_json=args.json) if report.findings else 0  # only rank 0 has some
    if not is_sound:
        if not report.findings:
            time.sleep(2)  # a launcher ends all when one leaves, and rank 0 still speaks
        leave_what_hangs()
    return status


def make_parser() -> argparse.ArgumentParser:

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--only", action="append", choices=NAMES, help="this check alone; may be repeated")
    parser.add_argument(
        "--disk",
        type=path_argument,
        default=Path(),
        metavar="DIR",
        help="where runs are written (default: here)",
    )
    parser.add_argument(
        "--architecture", choices=sorted(FAMILIES), default="small32", help="networks of the iteration"
    )
    parser.add_argument("--classes", type=option_types.num_classes, default=10)
    parser.add_argument(
        "--batch-size", type=option_types.training_batch_size, default=16, help="of each process"
    )
    parser.add_argument("--mixed_precision", "--mixed-precision", choices=["auto", "no", "bf16", "fp16"])
    return parser


def _check_of_those_asked_for(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    for option, checks in _CHECKS_OF.items():
        is_given = getattr(args, option) != parser.get_default(option)
        if is_given and args.only and not set(args.only).intersection(checks):
            parser.error(
                f"--{option.replace('_', '-')} is for {', '.join(checks)} alone, which --only leaves out."
            )


def trial_of(args: argparse.Namespace, runtime: Runtime) -> Trial:
    from dist_dsvae.engine.doctor.trial import Trial
    from dist_dsvae.engine.measuring.synthetic import make_inputs, make_iteration, make_method

    method = make_method(args.architecture, args.classes)
    iteration = make_iteration(method, runtime, args.batch_size * runtime.world_size)
    networks = (args.architecture, args.classes, args.batch_size)
    return Trial(iteration, make_inputs(*networks, iteration.num_batches, runtime.device))


def conclude(report: Findings, *, as_json: bool) -> int:
    report.conclude()
    if as_json:
        tell(report.as_json(time.perf_counter() - _BEGIN))
    return int(report.state == "failed")
