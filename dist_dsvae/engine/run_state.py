"""Run state: everything that a checkpoint holds, and nothing that can be computed again.

    tensors   networks and their buffers, Adam's moments, the moving average, running loss sums
    values    samples_seen, seconds trained, replaced samples, every rank's loss sums, loss counts, fp16 scale

Sample order, noise and schedules are functions of ``samples_seen`` and need no storage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dist_dsvae.core import distributed
from dist_dsvae.engine.iteration.batch_norm import with_mean_statistics
from dist_dsvae.engine.iteration.ema import ExponentialMovingAverage
from dist_dsvae.engine.iteration.zero import Optimizer
from dist_dsvae.engine.reporting.telemetry import LossMeter
from dist_dsvae.runs import checkpoint
from dist_dsvae.runs.marker import CheckpointError


@dataclass(eq=False)
class RunState:
    """The changing part of a run, saved and loaded in place.

    data_fingerprint: of the training shards; a checkpoint made with others is refused.
    num_replaced: corrupt samples that this rank replaced.
    """

    method: nn.Module
    optimizers: Mapping[str, Optimizer]
    ema: ExponentialMovingAverage | None
    meter: LossMeter
    scaler: torch.amp.GradScaler | None
    data_fingerprint: str
    samples_seen: int = 0
    num_replaced: int = 0
    train_seconds: float = 0.0

    def _tensors(self) -> dict[str, Any]:
        tensors: dict[str, Any] = {
            "method": self.method.state_dict(),
            "optimizers": {name: optimizer.state() for name, optimizer in self.optimizers.items()},
            "meter": self.meter.state(),
        }
        if self.ema is not None:
            tensors["ema"] = self.ema.averaged
        return tensors

    def snapshot(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a checkpoint holds: live tensors, and plain values. Called by all ranks.

        A tensor is written by one of the ranks, whichever that is; so what each has of its own is averaged.
        """
        replaced, sums = zip(
            *distributed.gather_objects((self.num_replaced, self.meter.own_sums())), strict=True
        )
        values = {
            "samples_seen": self.samples_seen,
            "train_seconds": round(self.train_seconds, 1),
            "num_replaced": sum(replaced),
            "meter_sums": sums,  # of each rank
            "meter_iterations": self.meter.num_iterations,
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "data_fingerprint": self.data_fingerprint,
        }
        tensors = self._tensors()
        tensors["method"] = with_mean_statistics(self.method, tensors["method"])
        if self.ema is not None:
            tensors["ema"] = with_mean_statistics(self.method, tensors["ema"])
        return tensors, values

    def load(self, path: Path) -> None:
        """Load a checkpoint on all ranks. Raises CheckpointError if it is damaged or of other data."""
        values = checkpoint.read_marker(path)
        if values["data_fingerprint"] != self.data_fingerprint:
            raise CheckpointError(
                f"{path} was trained on other shards than those that data.train names now (their "
                "fingerprints differ). Restore the shards, or start a new run with another --run-dir."
            )
        tensors = self._tensors()
        checkpoint.load(path, tensors)
        for name, optimizer in self.optimizers.items():
            optimizer.restore(tensors["optimizers"][name])
        self.samples_seen = values["samples_seen"]
        self.train_seconds = values["train_seconds"]
        self.num_replaced = values["num_replaced"] if distributed.is_main() else 0
        sums = values.get("meter_sums", ())  # none in older checkpoints
        exact = len(sums) == distributed.world_size()
        self.meter.restore(tensors["meter"], sums[distributed.rank()] if exact else None)
        self.meter.num_iterations = values["meter_iterations"]
        if self.scaler is not None and values["scaler"] is not None:
            self.scaler.load_state_dict(values["scaler"])
