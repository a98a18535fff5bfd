"""A run without networks under faults: lock, shards from afar, checkpoints and metrics, again and again.

python -m tests.storm.save_again URL FOLDER SEED EVERY STEPS, with faults.so in LD_PRELOAD; prints JSON. Each
step reads a batch and mixes it into the state, so a sample that is lost or repeated shows in the end.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

import torch

from dist_dsvae.config import DataConfig
from dist_dsvae.data.open_split import open_split
from dist_dsvae.data.stream import Slice, stream
from dist_dsvae.engine.reporting.outputs import MetricsFile
from dist_dsvae.runs import checkpoint, checkpoint_folder
from dist_dsvae.runs.run_directory import checkpoint_to_resume
from dist_dsvae.runs.run_lock import LockPace, RunLock
from tests.storm.train_again import KINDS

BATCH = 12
_MOST_STARTS = 2000


def train(url: str, folder: Path, steps: int) -> None:
    """Go on from the newest checkpoint to the end. Raises ValueError and OSError where a fault ends it."""
    run_dir = folder / "run"
    lock = RunLock(run_dir, LockPace(beat=0.05, stale=0.5, grace=0.2, settle=0.1))
    try:
        state = {"mixed": torch.zeros(64, dtype=torch.int64)}
        chosen = checkpoint_to_resume(run_dir, "auto")
        first = 0
        if chosen is not None:
            checkpoint.load(chosen, state)
            first = checkpoint.read_marker(chosen)["step"]
        config = DataConfig(
            train=url,
            num_workers=0,
            shuffle_window_shards=1,
            cache_dir=str(folder / "cache"),
            cache_gib=3e-4,
            fetch_tries=4,
            fetch_pause_seconds=0.001,
        )
        part = Slice(global_batch_size=BATCH, rank=0, world_size=1)
        batches = stream(open_split(url, config), config, 0, part, start_position=first * BATCH)
        log = MetricsFile(folder / "metrics.jsonl", first * BATCH)
        for step in range(first + 1, steps + 1):
            batch = next(batches)
            seen = batch.images.long().sum(dim=(1, 2, 3)) * 31 + batch.positions
            state["mixed"] = (state["mixed"] * 6364136223846793005 + seen.sum() + torch.arange(64)) % (2**61)
            log.append({"samples_seen": step * BATCH, "mixed": int(state["mixed"][0])})
            checkpoint.save(run_dir / "checkpoints", step, state, {"step": step}, keep=2)
    finally:
        lock.release()


def main() -> None:
    url, folder, seed, every, steps = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
    faults: Any = ctypes.CDLL(None)
    faulty = hasattr(faults, "faults_arm")
    starts, ended = 0, True
    while ended:
        starts += 1
        assert starts < _MOST_STARTS, "it never ended well"
        if faulty:
            faults.faults_arm(ctypes.c_ulong(seed * _MOST_STARTS + starts), every)
        try:
            train(url, folder, steps)
            ended = False
        except (ValueError, OSError) as error:  # what launch/train.py has a sentence for
            print(f"start {starts}: {error}", file=sys.stderr)
        finally:
            if faulty:
                faults.faults_arm(ctypes.c_ulong(0), 0)
    state = {"mixed": torch.zeros(64, dtype=torch.int64)}
    checkpoint.load(folder / "run/checkpoints" / checkpoint_folder.checkpoint_name(steps), state)
    counts = {kind: faults.faults_count(number) for number, kind in enumerate(KINDS)} if faulty else {}
    print(json.dumps({"starts": starts, "faults": counts, "mixed": state["mixed"].tolist()}))


if __name__ == "__main__":
    main()
