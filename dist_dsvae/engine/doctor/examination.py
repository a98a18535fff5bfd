"""The examination: every check in its order, on every process, and what is worth saying of it.

    alone      versions, host, gpus, limits, slurm, disk          each process for itself
    joined     the process group, as training makes it
    together   clocks, collectives, copies, iterations, graph     each check by all processes or by none

A check that all processes need and one of them fails ends the examination: the others would wait for it.
The graph comes last, because CUDA is not always sound after a failed capture.
"""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from dist_dsvae.config import TrainConfig
from dist_dsvae.core import distributed
from dist_dsvae.engine.doctor import machine, packages, together, trial
from dist_dsvae.engine.doctor.check_names import NAMES, REMEDIES
from dist_dsvae.engine.doctor.disk import disk
from dist_dsvae.engine.doctor.finding import Finding, State, failed, found_by, ok, skipped
from dist_dsvae.engine.doctor.trial import MakeTrial
from dist_dsvae.engine.processes.runtime import Runtime

Say = Callable[[Finding], None]

_ALONE = NAMES[: NAMES.index("clocks")]
TIMEOUT_SECONDS = 30.0
_GATHERING = timedelta(seconds=3 * TIMEOUT_SECONDS)  # who failed early waits for those that timed out


def examine(
    say: Say,
    make_trial: MakeTrial,
    *,
    disk_directory: Path,
    mixed_precision: str | None = None,
    only: Collection[str] = NAMES,
) -> bool:
    """Run the checks named in ``only`` and ``say`` each finding as it comes. Called by every process.

    say: called on rank 0 with its own findings, and with what is wrong on the others. A process that cannot
        join says what it has itself.
    make_trial: the iteration that is tried.
    Returns False where this process may hang in its own end, because what all do together failed.
    """
    checks: dict[str, Callable[[], Finding]] = {
        "versions": packages.versions,
        "host": machine.host,
        "gpus": machine.gpus,
        "shared-memory": machine.shared_memory,
        "file-descriptors": machine.file_descriptors,
        "slurm": machine.slurm,
        "disk": lambda: _disk_of_this_host(disk_directory),
    }
    is_first = os.environ.get("RANK", "0") == "0"
    alone = []
    for name in [name for name in _ALONE if name in only]:
        alone.append(found_by(name, checks[name], REMEDIES[name]))
        if is_first:
            say(_here(alone[-1]))
    try:
        train = TrainConfig(mixed_precision="auto", collective_timeout_seconds=TIMEOUT_SECONDS)
        runtime = Runtime(train, mixed_precision)
        # a group beside that of training, which may be broken
        group = distributed.new_cpu_group(_GATHERING)
        others = [_gathered(finding, group) for finding in alone]
    except (ValueError, RuntimeError, OSError) as error:
        # this process leaves alone, so what it found cannot be said by the first
        unsaid = [] if is_first else [finding for finding in alone if finding.state is State.FAILED]
        for finding in (*unsaid, _not_joined(error)):
            say(_here(finding))
        return False
    if runtime.is_main:
        say(_here(ok("processes", runtime.describe())))
        for findings in others:
            for finding in worth_saying(findings)[1:]:
                say(finding)
    is_sound = _together(say, runtime, make_trial, group, only)
    if is_sound:
        runtime.close()
    return is_sound


def _together(say: Say, runtime: Runtime, make_trial: MakeTrial, group: Any, only: Collection[str]) -> bool:
    """Whether none of the checks failed on any rank; the same on every rank."""
    checks: dict[str, Callable[[], Finding]] = {
        "clocks": lambda: together.clocks(runtime),
        "collectives": lambda: together.collectives(runtime),
        "pinned-copies": lambda: trial.pinned_copies(runtime),
        "bf16": lambda: trial.bf16(runtime, make_trial),
        "iteration": lambda: trial.iteration(runtime, make_trial),
        "graph": lambda: trial.graph(runtime, make_trial),
    }
    broken: str | None = None
    for name, check in checks.items():
        if name not in only:
            continue
        if broken is not None:
            findings = [skipped(name, f"left out, because {broken} failed")]
        else:
            try:
                findings = _gathered(found_by(name, check, REMEDIES[name]), group)
            except RuntimeError as error:
                findings = [_here(_not_joined(error))]
            if any(finding.state is State.FAILED for finding in findings):
                broken = name
        if runtime.is_main:
            for finding in worth_saying(findings):
                say(finding)
    return broken is None


def _gathered(finding: Finding, group: Any) -> list[Finding]:
    """All processes' on each of them, in the order of the ranks. Raises RuntimeError if a process is gone."""
    return distributed.gather_objects(_here(finding, distributed.rank()), group)


def worth_saying(findings: Sequence[Finding]) -> list[Finding]:
    """Rank 0's, and of the others each thing that is wrong, once."""
    said = list(findings[:1])
    for finding in findings[1:]:
        if finding.is_wrong and all((finding.state, finding.text) != (f.state, f.text) for f in said):
            said.append(finding)
        elif finding.name == "versions" and dict(finding.figures) != dict(findings[0].figures):
            said.append(_differing(findings[0], finding))
    return said


def _differing(first: Finding, other: Finding) -> Finding:
    names = first.figures.keys() | other.figures.keys()
    texts = [
        f"{name} is {other.figures.get(name)} here and {first.figures.get(name)} at rank 0"
        for name in sorted(names)
        if first.figures.get(name) != other.figures.get(name)
    ]
    return dataclasses.replace(
        other,
        state=State.WARNING,
        text="; ".join(texts),
        remedy="Give every host the same environment: results and checkpoints depend on versions.",
    )


def _disk_of_this_host(directory: Path) -> Finding:
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return skipped("disk", "measured by the first process of this host")
    return disk(directory)


def _here(finding: Finding, rank: int = 0) -> Finding:
    return dataclasses.replace(finding, rank=rank, host=socket.gethostname())


def _not_joined(error: Exception) -> Finding:
    return failed(
        "processes",
        str(error).strip().partition("\n")[0],
        "Start as docs/clusters.md shows; between hosts look at the address, the port (a firewall?) and the "
        "interface in GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME.",
    )
