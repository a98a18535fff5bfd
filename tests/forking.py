"""Processes that begin with everything imported, because they are forked from one that has it.

A new interpreter spends some seconds of a core on torch, Accelerate and the trainer before its first line,
and each rank and each launcher is one. Here a server imports them once per test process and forks whatever
is asked for: ranks of a function, a program, or `accelerate launch` with the ranks that it starts. What is
to be shown of interpreters, signals and killed processes is started as people start it, by
`tests.distributed.launching.command`.
"""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from dist_dsvae.engine.reporting import visuals

REPOSITORY = Path(__file__).parents[1]
_IMPORTED = [
    *("torch._dynamo", "torch.distributed.run", "torch.distributed.checkpoint", "accelerate.commands.launch"),
    *("dist_dsvae.engine.trainer", "dist_dsvae.engine.evaluating.evaluation"),
    *(
        f"dist_dsvae.commands.{name}"
        for name in ("benchmark", "doctor", "evaluate", "export", "generate", "train")
    ),
]
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(_IMPORTED)


def on_ranks(world_size: int, function: Callable[..., None], *arguments: object) -> None:
    """``function(rank, world_size, *arguments)`` on ranks of one gloo group; raises their first error."""
    start_ranks(_enter_group, (world_size, free_port(), function, arguments), world_size)


def start_ranks(function: Callable[..., None], arguments: tuple[object, ...], count: int) -> None:
    """``torch.multiprocessing.spawn``, forked."""
    mp.start_processes(function, arguments, nprocs=count, start_method="forkserver")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _enter_group(
    rank: int, world_size: int, port: int, function: Callable[..., None], arguments: tuple
) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    function(rank, world_size, *arguments)
    dist.destroy_process_group()


def run_program(
    script: str,
    *arguments: str,
    environment: Mapping[str, str],
    folder: Path = REPOSITORY,
    constants: Mapping[str, int] | None = None,
) -> subprocess.CompletedProcess[str]:
    """``python SCRIPT ...`` in the folder: launch/train.py, or another door to a command.

    constants: values that make it small, by ``module:NAME``.
    """
    function = functools.partial(_pass_door, constants=constants)
    return _run(function, [script, *arguments], environment, folder)


def launch_program(*arguments: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """``accelerate launch ...`` with a configuration of several processes, in the repository."""
    return _run(_launch, list(arguments), environment, REPOSITORY)


def _run(
    function: Callable[..., None], words: list[str], environment: Mapping[str, str], folder: Path
) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as outputs:
        printed = [Path(outputs) / name for name in ("stdout", "stderr")]
        arguments = (function, words, dict(environment), folder, printed)
        process = _server.Process(target=_enter_program, args=arguments)
        process.start()
        try:
            process.join()
        finally:
            if process.is_alive():  # the test ran out of time
                parent = psutil.Process(process.pid)
                for one in [*parent.children(recursive=True), parent]:
                    one.kill()
        assert process.exitcode is not None
        return subprocess.CompletedProcess(words, process.exitcode, *(path.read_text() for path in printed))


def _enter_program(
    function: Callable[..., None],
    words: list[str],
    environment: dict[str, str],
    folder: Path,
    printed: list[Path],
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for descriptor, path in enumerate(printed, start=1):
        with path.open("w") as stream:
            os.dup2(stream.fileno(), descriptor)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w", buffering=1) for number in (1, 2))
    function(*words)


def _pass_door(script: str, *arguments: str, constants: Mapping[str, int] | None = None) -> None:
    visuals.FEW_CODES = 16  # as batch norm is measured for each picture: most of a short training
    for place, value in (constants or {}).items():
        module, _, name = place.partition(":")
        setattr(importlib.import_module(module), name, value)
    sys.argv = [script, *arguments]
    sys.exit(importlib.import_module(f"dist_dsvae.commands.{Path(script).stem}").main())


def _launch(*words: str) -> None:
    """Accelerate's main and torchrun's agent as they are, but with a function to fork for each rank."""
    from accelerate.commands import launch
    from torch.distributed import run

    read = run.config_from_args

    def to_fork(args: Any) -> tuple[Any, Callable[..., None], list[str]]:
        config, _, arguments = read(args)
        config.start_method = "fork"
        return config, _pass_door, arguments[arguments.index(args.training_script) :]

    run.config_from_args = to_fork
    sys.argv = ["accelerate-launch", *words]
    launch.main()
