"""Saving and loading the whole state of a run: how long training waits, seconds, bytes per rank."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from dist_dsvae.commands.benchmarks.timing import Result, in_turn, rounded, seconds
from dist_dsvae.config import TrainConfig
from dist_dsvae.core import distributed
from dist_dsvae.engine.measuring.synthetic import make_iteration, make_method
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.engine.run_state import RunState
from dist_dsvae.engine.saver import CheckpointSaver
from dist_dsvae.runs import checkpoint, checkpoint_folder


def run(args: argparse.Namespace) -> Result | None:
    runtime = Runtime(TrainConfig())
    method = make_method(args.architecture, args.classes)
    iteration = make_iteration(method, runtime, global_batch_size=runtime.world_size)
    state = RunState(method, iteration.optimizers, None, iteration.meter, None, data_fingerprint="")
    with tempfile.TemporaryDirectory() as own:
        folder = Path(distributed.broadcast_object(own))
        saver = CheckpointSaver(folder, keep=1)

        def blocked() -> float:
            waited = seconds(lambda: saver.save(1, *state.snapshot()))()
            saver.wait()
            return waited

        medians = in_turn(
            {
                "synchronous save": seconds(lambda: checkpoint.save(folder, 2, *state.snapshot(), keep=1)),
                "training waits for an asynchronous one": blocked,
                "verify": seconds(lambda: checkpoint.verify(newest(folder))),
                "load": seconds(lambda: state.load(newest(folder))),
            },
            args.rounds,
        )
        written: dict[str, int] = {}
        for file in newest(folder).glob("__*.distcp"):
            rank = f"rank {file.name.split('_')[2]}"
            written[rank] = written.get(rank, 0) + file.stat().st_size
        distributed.barrier()
        saver.close()
    synchronous, waited = list(medians.values())[:2]
    result: Result = {
        "benchmark": "checkpoint",
        "architecture": args.architecture,
        "processes": runtime.world_size,
        "seconds": rounded(medians),
        "blocked_share": round(waited / synchronous, 3),
        "mib_written": {rank: round(size / 2**20, 1) for rank, size in sorted(written.items())},
        "mib_per_second_saving": round(sum(written.values()) / 2**20 / synchronous),
    }
    is_main = runtime.is_main
    runtime.close()
    return result if is_main else None


def newest(folder: Path) -> Path:
    return checkpoint_folder.complete_checkpoints(folder)[-1]
