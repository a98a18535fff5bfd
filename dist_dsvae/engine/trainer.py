"""The training loop: set up, resume, {batch, steps, count, log, sample, checkpoint}, finish.

One counter, ``samples_seen``, decides epoch, sample order, noise, schedules and cadences; the
iteration number is samples_seen / samples per iteration.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dist_dsvae import distributed
from dist_dsvae.config import ExperimentConfig
from dist_dsvae.data.manifest import DataError, Manifest
from dist_dsvae.data.stream import HostBatch, Slice, stream
from dist_dsvae.data.transforms import to_device_batch
from dist_dsvae.engine import checkpoint
from dist_dsvae.engine.batch_norm import synchronise
from dist_dsvae.engine.ema import ExponentialMovingAverage
from dist_dsvae.engine.gm_step import FlatStep
from dist_dsvae.engine.guard import Guard
from dist_dsvae.engine.joint_step import OverlappedStep
from dist_dsvae.engine.optimizer import StepOptimizer
from dist_dsvae.engine.run_directory import check_same_experiment, checkpoint_to_resume, record_start
from dist_dsvae.engine.runtime import Runtime
from dist_dsvae.engine.telemetry import LossMeter, Telemetry
from dist_dsvae.engine.visuals import Visuals, held_out_figures, write_summary
from dist_dsvae.methods.dsvae import DSVAE
from dist_dsvae.methods.step import Reduction
from dist_dsvae.noise import Noise
from dist_dsvae.types import Batch

logger = logging.getLogger(__name__)

RunStep = Callable[[Batch, Noise, float], dict[str, Tensor]]


class Trainer:
    """One run: a method, its data and everything a checkpoint holds.

    run_dir: where the run lives. resume: "auto", "never" or a path (``run_directory``).
    Raises ValueErrors with a sentence for whatever a user can mend.
    """

    def __init__(self, config: ExperimentConfig, run_dir: Path, resume: str, runtime: Runtime) -> None:
        self.config = config
        self.run_dir = run_dir
        self.runtime = runtime

        # Data
        self.train_shards, self.test_shards = load_shards(config)
        # (raises early if the processes cannot share a batch)
        self._slice(0)

        # Networks: the same initial weights on every rank, whatever the world size
        torch.manual_seed(config.seed)
        shape, num_classes = self.train_shards.shape, self.train_shards.num_classes
        self.method = DSVAE(config.method, config.model, shape, num_classes).to(runtime.dtype)
        if config.train.sync_batch_norm and runtime.world_size > 1:
            synchronise(self.method, runtime.device)
        self.method.to(runtime.device)
        self.method.to(memory_format=torch.channels_last)

        # One optimiser and one callable per step
        self.guard = Guard(runtime.device)
        wrapped = runtime.wrap(self.method, self._not_trained_by_overlapped_steps())
        self.optimizers: dict[str, StepOptimizer] = {}
        self.run_step: dict[str, RunStep] = {}
        for step in self.method.steps:
            optimizer = StepOptimizer(config.optimizer, self.method.parameter_groups(step))
            self.optimizers[step.name] = optimizer
            if step.reduction is Reduction.FLAT:
                self.run_step[step.name] = FlatStep(self.method, step, optimizer, self.guard, runtime)
            else:
                self.run_step[step.name] = OverlappedStep(
                    self.method, wrapped, step, optimizer, self.guard, runtime
                )

        half_life = config.train.ema_half_life_samples
        self.ema = ExponentialMovingAverage(self.method.decoder, half_life) if half_life > 0 else None
        self.meter = LossMeter(self.method.steps, runtime.device)
        self.visuals = Visuals(self.method, self._held_out(), config.sampling, runtime, config.seed)

        # Counters
        num_batches = sum(step.num_batches for step in self.method.steps)
        self.samples_per_iteration = config.data.batch_size * num_batches
        total_samples = config.train.epochs * self.train_shards.num_samples
        self.total_iterations = math.ceil(total_samples / self.samples_per_iteration)
        self.samples_seen = 0
        self.num_replaced = 0
        self.earlier_seconds = 0.0
        self._resume(resume)

    # ---------------------------------------------------------------- the loop

    def train(self) -> dict[str, float | int]:
        """Train to the end (or train.max_seconds); returns the final figures, on every rank."""
        started = time.perf_counter()
        train = self.config.train
        telemetry = self._start_telemetry()
        batches = self._batches()
        stopped_by_clock = False
        try:
            while self.iteration < self.total_iterations and not stopped_by_clock:
                # Stage 1, then the joint step (Algorithm 1)
                self._iterate(batches)

                # Count
                self.samples_seen += self.samples_per_iteration
                if self.ema is not None:
                    self.ema.update(self.samples_per_iteration)
                telemetry.advance(self.iteration)

                # Log
                if self._due(train.log_every_steps):
                    self.guard.raise_if_tripped()
                    telemetry.log(
                        samples_seen=self.samples_seen,
                        step=self.iteration,
                        epoch=self.epoch,
                        values=self._tick_values(),
                    )
                    stopped_by_clock = self._out_of_time(started)

                # Sample
                if self._due(train.sample_every_steps):
                    self._draw(telemetry)

                # Checkpoint
                if self._due(train.checkpoint_every_steps):
                    self._save(telemetry, started)

            # Finish
            seconds = self._train_seconds(started)
            if self.samples_seen and not self._due(train.checkpoint_every_steps):
                self._save(telemetry, started)
            return self._finish(telemetry, seconds, stopped_by_clock)
        finally:
            telemetry.close()

    def _iterate(self, batches: Iterator[HostBatch]) -> None:
        """One iteration: every step of the method, each as often as it says."""
        position = self.samples_seen
        batch: Batch | None = None
        for step in self.method.steps:
            for _ in range(step.repeats):
                if step.fresh_batch or batch is None:
                    batch = self._next_batch(batches)
                epoch = position / self.train_shards.num_samples
                noise = Noise(self.config.seed, batch.positions, self.runtime.dtype)
                terms = self.run_step[step.name](batch, noise, epoch)
                self.meter.add(step.name, terms)
                if self.runtime.device.type == "cpu" or self.runtime.scaler is not None:
                    self.guard.raise_if_tripped()
                position += self.config.data.batch_size if step.fresh_batch else 0

    @property
    def iteration(self) -> int:
        return self.samples_seen // self.samples_per_iteration

    @property
    def epoch(self) -> float:
        return self.samples_seen / self.train_shards.num_samples

    def _due(self, every: int) -> bool:
        return every > 0 and self.iteration % every == 0

    # ---------------------------------------------------------------- data

    def _slice(self, start_position: int) -> Slice:
        return Slice(
            start_position=start_position,
            global_batch_size=self.config.data.batch_size,
            rank=self.runtime.rank,
            world_size=self.runtime.world_size,
        )

    def _batches(self) -> Iterator[HostBatch]:
        pin = self.runtime.device.type == "cuda"
        part = self._slice(self.samples_seen)
        return stream(self.train_shards, self.config.data, self.config.seed, part, pin_memory=pin)

    def _next_batch(self, batches: Iterator[HostBatch]) -> Batch:
        host = next(batches)
        self.num_replaced += host.num_replaced
        return to_device_batch(
            host,
            self.runtime.device,
            seed=self.config.seed,
            flip=self.config.data.flip,
            dtype=self.runtime.dtype,
        )

    def _held_out(self) -> Manifest:
        return self.test_shards or self.train_shards

    # ---------------------------------------------------------------- steps

    def _not_trained_by_overlapped_steps(self) -> list[str]:
        """Parameters that DistributedDataParallel must leave alone: flat steps reduce their own."""
        trained = {n for s in self.method.steps if s.reduction is Reduction.OVERLAPPED for n in s.trains}
        return [
            name
            for name, _ in self.method.named_parameters()
            if not any(name.startswith(f"{t}.") for t in trained)
        ]

    # ---------------------------------------------------------------- telemetry and pictures

    def _start_telemetry(self) -> Telemetry:
        if self.runtime.is_main:
            record_start(self.run_dir, self.config, self.runtime, self.samples_seen)
        telemetry = Telemetry(
            self.run_dir,
            total_steps=self.total_iterations,
            samples_seen=self.samples_seen,
            step=self.iteration,
            tensorboard=self.config.train.tensorboard,
        )
        telemetry.say(self.runtime.describe())
        shards = self.train_shards
        telemetry.say(
            f"{shards.num_samples:,} samples of {shards.num_classes} classes in {len(shards.shards)} shards; "
            f"{self.total_iterations:,} iterations of {self.samples_per_iteration} samples; "
            f"run in {self.run_dir}."
        )
        if self.samples_seen:
            telemetry.say(
                f"Resumed {self.run_dir} after {self.samples_seen:,} samples (step {self.iteration})."
            )
        return telemetry

    def _tick_values(self) -> dict[str, float]:
        values = self.meter.read()
        if self.config.data.corrupt_sample == "replace":
            replaced = torch.tensor(self.num_replaced, device=self.runtime.device)
            values["replaced_samples"] = int(distributed.all_reduce_sum(replaced))
        return values

    def _draw(self, telemetry: Telemetry) -> list[Path]:
        """Rank 0 draws; the others meet it at the next step's collective."""
        if not self.runtime.is_main:
            return []
        decode = self.ema.network_with_average() if self.ema else self.method.decoder
        name = checkpoint.checkpoint_name(self.iteration)
        paths = self.visuals.draw(self.run_dir / "samples", name, decode)
        for path in paths:
            kind = "swap" if path.stem.endswith("-swap") else "samples"
            telemetry.picture(kind, path, self.samples_seen)
        return paths

    # ---------------------------------------------------------------- checkpoints

    def _state(self) -> dict[str, Any]:
        """The live tensors that a checkpoint holds."""
        state: dict[str, Any] = {
            "method": self.method.state_dict(),
            "optimizers": {name: optimizer.state() for name, optimizer in self.optimizers.items()},
            "meter": self.meter.state(),
        }
        if self.ema is not None:
            state["ema"] = self.ema.averaged
        return state

    def _save(self, telemetry: Telemetry, started: float) -> None:
        self.guard.raise_if_tripped()
        scaler = self.runtime.scaler
        values = {
            "samples_seen": self.samples_seen,
            "step": self.iteration,
            "world_size": self.runtime.world_size,
            "data_fingerprint": self.train_shards.fingerprint,
            "num_replaced": self.num_replaced,
            "train_seconds": self._train_seconds(started),
            "meter_counts": self.meter.counts,
            "scaler": scaler.state_dict() if scaler is not None else None,
        }
        path = checkpoint.save(
            self.run_dir / "checkpoints",
            self.iteration,
            self._state(),
            values,
            self.config.train.keep_checkpoints,
        )
        telemetry.say(f"Saved {path}.")

    def _resume(self, resume: str) -> None:
        chosen = checkpoint_to_resume(self.run_dir, resume)
        if chosen is None:
            return
        check_same_experiment(chosen.parent.parent, self.config)
        values = checkpoint.read_marker(chosen)
        if values["data_fingerprint"] != self.train_shards.fingerprint:
            raise DataError(
                f"{chosen} was trained on other shards than those now in {self.train_shards.directory} "
                "(their fingerprints differ). Restore the shards, or start a new run with another --run-dir."
            )
        checkpoint.load(chosen, self._state())
        self.samples_seen = values["samples_seen"]
        self.earlier_seconds = values["train_seconds"]
        self.meter.counts.update(values["meter_counts"])
        if values["scaler"] is not None and self.runtime.scaler is not None:
            self.runtime.scaler.load_state_dict(values["scaler"])
        if self.runtime.is_main:
            self.num_replaced = values["num_replaced"]

    # ---------------------------------------------------------------- time and the end

    def _train_seconds(self, started: float) -> float:
        return round(self.earlier_seconds + time.perf_counter() - started, 1)

    def _out_of_time(self, started: float) -> bool:
        """Rank 0's clock decides for all."""
        limit = self.config.train.max_seconds
        return limit > 0 and distributed.broadcast_object(time.perf_counter() - started > limit)

    def _finish(self, telemetry: Telemetry, seconds: float, stopped_by_clock: bool) -> dict[str, float | int]:
        """Last pictures, held-out figures, and a word on where everything is."""
        if stopped_by_clock:
            telemetry.say(f"Stopped by train.max_seconds at step {self.iteration}; the same command resumes.")
        figures: dict[str, float | int] = {}
        if self.test_shards is not None and self.config.train.evaluate_at_end:
            figures = held_out_figures(self.method, self.train_shards, self.test_shards, self.runtime)
        figures |= {"train_seconds": seconds, "samples_seen": self.samples_seen}
        paths = self._draw(telemetry)
        if self.runtime.is_main:
            write_summary(self.run_dir / "evaluation" / "summary.json", figures)
            telemetry.say("  ".join(f"{name} {value:.4g}" for name, value in figures.items()))
            telemetry.say(f"Pictures: {', '.join(str(path) for path in paths)}")
        distributed.barrier()
        return figures


def load_shards(config: ExperimentConfig) -> tuple[Manifest, Manifest | None]:
    """The manifests of training and test split. Raises DataError, with the command that builds them."""
    splits = [config.data.train] + ([config.data.test] if config.data.test else [])
    for directory in splits:
        if config.data.build_command and not Path(directory).is_dir():
            raise DataError(
                f"There are no shards in {directory}. Build them with:\n    {config.data.build_command}"
            )
    manifests = [Manifest.load(directory) for directory in splits]
    train = manifests[0]
    for test in manifests[1:]:
        if (test.classes, test.shape) != (train.classes, train.shape):
            raise DataError(
                f"{test.directory} and {train.directory} do not belong together: their classes or "
                "image sizes differ. Build both splits by one command."
            )
    return train, manifests[1] if len(manifests) > 1 else None
