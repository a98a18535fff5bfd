"""What ``dsvae reproduce`` does, once its options are read.

judges --> trainings --> evaluations --> OUT/NAME.json, .md, .png --> tables of pages
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from dist_dsvae.commands.reproduce.evaluations import (
    WantedEvaluation,
    at_temperatures,
    check_judges,
    judge_jobs,
    scores_of,
)
from dist_dsvae.commands.reproduce.jobs import Job, run_jobs
from dist_dsvae.commands.reproduce.paper_figures import figure_jobs
from dist_dsvae.commands.reproduce.planned_runs import Budget, PlannedRun, plan_runs
from dist_dsvae.commands.reproduce.time_needed import report, time_needed
from dist_dsvae.commands.reproduce.write_results import write_results
from dist_dsvae.commands.starting import command_line, say, tell
from dist_dsvae.config.reading import ConfigError
from dist_dsvae.core.process import available_cores
from dist_dsvae.core.text import read_text
from dist_dsvae.evaluation.comparing.marked_pages import write_pages
from dist_dsvae.evaluation.comparing.proven_files import check_replaceable
from dist_dsvae.evaluation.comparing.results import FORMAT


def reproduce(args: argparse.Namespace) -> None:
    """Do what was asked for. Raises JobError where a command fails, ValueError or OSError with a sentence."""
    budget = Budget(args.budget, args.iterations, args.minutes)
    slots = slots_for(args.jobs)
    overrides = [*_threads(len(slots)), *args.overrides]
    by_name = {
        name: plan_runs(name, args.methods, args.seeds, budget, args.runs, overrides)
        for name in dict.fromkeys(args.names)
    }
    runs = list(itertools.chain.from_iterable(by_name.values()))
    if args.only is not None:
        runs = [_only(runs, args.only)]
    for name in by_name if not args.dry_run and args.only is None else ():
        check_replaceable(args.out / name, FORMAT, ("json", "md", "png"))
    drawings = [
        job for name, those in by_name.items() if args.figures for job in figure_jobs(those, args.out / name)
    ]
    if args.temperatures and (points := [run.data for run in runs if not run.train.shape.is_image]):
        raise ConfigError(
            f"--temperatures: {points[0]} has points, of which there is no diversity. Leave it out."
        )
    if args.only is None:
        judges = judge_jobs(runs, args.judge_overrides, also_made=True)
        if not judges and args.judge_overrides:
            raise ConfigError("--judge-set: no judge is trained for these runs. Leave it out.")
        check_judges(runs, judges)
    if args.temperatures and (unjudged := [run for run in runs if run.config.evaluation.classifier is None]):
        raise ConfigError(
            f"--temperatures: {unjudged[0].data} names no judge, and without one there are no scores to "
            "trade. Give one with --set evaluation.classifier=PATH, or leave the temperatures out."
        )
    if args.dry_run:
        tell(report(time_needed(runs), len(runs), len(slots)))
        return
    train(runs, slots)
    if args.only is not None:
        return
    run_jobs(judge_jobs(runs, args.judge_overrides), slots[:1])  # in their order
    evaluate([scores_of(run) for run in runs], slots)
    curves = {
        name: [wanted for run in those for wanted in at_temperatures(run, args.temperatures)]
        for name, those in by_name.items()
        if args.temperatures
    }
    evaluate(list(itertools.chain.from_iterable(curves.values())), slots)
    for name, those in by_name.items():
        commands = commands_of(those, curves.get(name, []), args.judge_overrides)
        written = write_results(name, those, curves.get(name, []), budget, commands, args.out)
        table = next(path for path in written if path.suffix == ".md")
        tell(read_text(table))
        say(f"Wrote {', '.join(map(str, written))}.")
    run_jobs(drawings, slots)
    if args.write_docs:
        changed = write_pages(args.out)
        say(f"Wrote {', '.join(map(str, changed))}." if changed else "The pages' tables are as the results.")


def _only(runs: Sequence[PlannedRun], index: int) -> PlannedRun:
    if index >= len(runs):
        raise ConfigError(f"--only {index}: there are {len(runs)} runs, 0 to {len(runs) - 1}.")
    return runs[index]


def slots_for(jobs: int | None) -> list[Mapping[str, str]]:
    """Where processes run at the same time: each has a GPU where there are any, or a share of the cores."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    if not torch.cuda.is_available():
        return [{} for _ in range(jobs or 1)]
    return [{"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} for number in range(jobs or len(gpus))]


def _threads(at_once: int) -> list[str]:
    """Of several processes on a CPU each has its share of the cores."""
    if at_once == 1 or torch.cuda.is_available():
        return []
    return [f"train.cpu_threads={max(1, available_cores() // at_once)}"]


def train(runs: Sequence[PlannedRun], slots: Sequence[Mapping[str, str]]) -> None:
    """Train those that have not ended."""
    waiting = [run for run in runs if not run.has_ended()]
    if len(waiting) < len(runs):
        say(f"{len(runs) - len(waiting)} of {len(runs)} runs have been trained.")
    run_jobs([_training(run) for run in waiting], slots)


def _training(run: PlannedRun) -> Job:
    def still() -> tuple[str, ...] | None:
        return None if run.has_ended() else run.arguments()

    return Job(f"{run.title}: training", run.arguments(), run.log, still)


def evaluate(evaluations: Sequence[WantedEvaluation], slots: Sequence[Mapping[str, str]]) -> None:
    """Evaluate what has not been."""
    run_jobs([wanted.job() for wanted in evaluations if not wanted.is_there()], slots)


def commands_of(
    runs: Sequence[PlannedRun], curve: Sequence[WantedEvaluation], judge: Sequence[str]
) -> list[str]:
    """What makes the results: this command, and those that it stands for."""
    evaluations = {(w.run.directory, w.name): w for w in [*map(scores_of, runs), *curve]}
    jobs = [Job("", run.arguments(go_on=False), Path()) for run in runs]
    # where the clock ends a run, it ends elsewhere the next time
    jobs += [
        Job("", wanted.arguments(by_step=not wanted.run.config.train.max_seconds), Path())
        for wanted in evaluations.values()
    ]
    jobs = [*judge_jobs(runs, judge, also_made=True), *jobs]
    return [command_line(), *(job.command for job in jobs)]
