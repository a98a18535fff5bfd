"""The training loop: set up, resume, {batch, steps, count, log, sample, checkpoint}, finish.

One counter, ``samples_seen``, decides epoch, sample order, noise, schedules and cadences; the
iteration number is samples_seen / samples per iteration.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NoReturn

import torch

from dist_dsvae.config import ExperimentConfig
from dist_dsvae.core import distributed
from dist_dsvae.data.open_splits import open_splits
from dist_dsvae.data.stream import Slice
from dist_dsvae.engine.choices import with_choices_made
from dist_dsvae.engine.evaluating import evaluate
from dist_dsvae.engine.evaluating.code_scores import final_figures
from dist_dsvae.engine.evaluating.evaluator import EvaluationInputs
from dist_dsvae.engine.initial_weights import Taken, take_weights
from dist_dsvae.engine.iteration.batch_norm import place
from dist_dsvae.engine.iteration.cuda_graph import Graphed, graphed_where_possible
from dist_dsvae.engine.iteration.ema import weights_applied
from dist_dsvae.engine.iteration.guard import raise_if_weights_are_bad
from dist_dsvae.engine.iteration.iteration import Iteration
from dist_dsvae.engine.iteration.streams import Streams
from dist_dsvae.engine.memory import check_memory
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.engine.reporting.profiling import Profiling
from dist_dsvae.engine.reporting.telemetry import Telemetry
from dist_dsvae.engine.reporting.trackers import Trackers, check_trackers
from dist_dsvae.engine.reporting.visuals import Visuals
from dist_dsvae.engine.run_state import RunState
from dist_dsvae.engine.saver import CheckpointSaver
from dist_dsvae.engine.stopping.clock import Clock, Due, is_early
from dist_dsvae.engine.stopping.preemption import Preempted, StopRequests
from dist_dsvae.engine.stopping.watchdog import Watchdog
from dist_dsvae.engine.telling import opening, vital_signs
from dist_dsvae.evaluation.metrics import Figures
from dist_dsvae.methods.choose import make_method
from dist_dsvae.methods.update import Method
from dist_dsvae.runs import run_directory
from dist_dsvae.runs.checkpoint_folder import checkpoint_name


class Trainer:
    """One run: a method, its data, its iteration and its state.

    run_dir: where the run lives. resume: "auto", "never" or a path (``run_directory``).
    Raises ValueErrors with a sentence for whatever a user can mend.
    """

    def __init__(self, config: ExperimentConfig, run_dir: Path, resume: str, runtime: Runtime) -> None:
        self.run_dir = run_dir
        self.runtime = runtime
        check_trackers(config.train)

        # Data; the slice says early if the processes cannot share a batch
        splits = open_splits(config.data)
        self.train_shards, self.test_shards, _ = splits
        self.slice = Slice(
            global_batch_size=config.data.batch_size, rank=runtime.rank, world_size=runtime.world_size
        )

        # What is resumed, and what the config leaves to the data
        self.resumed_from = resumed = run_directory.checkpoint_to_resume(run_dir, resume)
        record = None if resumed is None else run_directory.read_record(resumed.parent.parent)
        shape = self.train_shards.shape
        self.config = config = with_choices_made(config, self.train_shards, record)
        num_classes = self.train_shards.num_classes
        size, where = (shape, num_classes, self.slice.batch_size), (runtime.device, runtime.dtype)
        check_memory(config.method, config.model, *size, *where, runtime.zero_stage)

        # Networks: the same initial weights on every rank, whatever the world size
        torch.manual_seed(config.seed)
        self.method = make_method(config.method, config.model, shape, num_classes).to(runtime.dtype)
        assert isinstance(self.method, Method)
        place(self.method, runtime, self.slice.batch_size, sync_batch_norm=config.train.sync_batch_norm)

        # The iteration: all of it on the device, captured as a CUDA graph where that is possible
        self.streams = Streams(self.method, splits, config.data, self.slice, runtime, seed=config.seed)
        if self.resumed_from is None:
            self.streams.check_batch()
        self.iterate = Iteration(
            self.method,
            runtime,
            config.optimizer,
            config.train,
            self.streams.to_batch,
            seed=config.seed,
            global_batch_size=config.data.batch_size,
        )
        self.guard, self.meter, self.ema = self.iterate.guard, self.iterate.meter, self.iterate.ema
        self.graphed = graphed_where_possible(
            self.iterate, self.iterate.state, config.train.cuda_graph, runtime
        )

        # State and counters
        trained = (self.method, self.iterate.optimizers, self.ema)
        self.state = RunState(*trained, self.meter, runtime.scaler, self.streams.fingerprint)
        total_samples = config.train.epochs * self.streams.num_samples
        self.total_iterations = math.ceil(total_samples / self.iterate.num_samples)
        self.visuals = Visuals(self.method, splits.test or splits.train, splits.train, config, runtime)
        self.evaluation = evaluate.evaluation_of(config.evaluation, config.data, *splits[:2], runtime)

        # Resume, or take over another run's weights
        run_directory.check_same_experiment(run_dir, config)
        if resumed is not None:
            run_directory.check_same_experiment(resumed.parent.parent, config)
            self.state.load(resumed)
        self.initial: Taken | None = None
        if resumed is None and config.init_from is not None:
            self.initial = take_weights(config.init_from, config, self.method, self.ema, self.train_shards)
        self.saved_samples = self.state.samples_seen
        self.stop_requests = StopRequests(run_dir, runtime.patience)
        self.watchdog = Watchdog()
        directory, train = run_dir / "checkpoints", config.train
        keep = (train.keep_checkpoints, train.keep_every_steps)
        self.saver = CheckpointSaver(directory, *keep, runtime.timeout, runtime.fence.synchronize)

    # The loop

    def train(self) -> Figures:
        """Train to the end (or train.max_seconds); returns the final figures, on every rank.

        Raises Preempted if it was asked to stop, MissingRankError if another rank is gone, and
        whatever the data, the losses or the disk give reason for.
        """
        telemetry = self._start_telemetry()
        try:
            self._train(telemetry)
            self._save_and_wait(telemetry)
            self.stop_requests.leave_at_once(self.iteration, self.state.samples_seen)
            self._release()  # the last figures need memory
            return self._finish(telemetry)
        except RuntimeError as error:
            raise self.watchdog.explain(error) from error
        finally:
            self._release()
            self.saver.close()
            self.watchdog.close()
            self.stop_requests.close()
            telemetry.close()

    def _release(self) -> None:
        if isinstance(self.graphed, Graphed):
            self.graphed.release()

    def _train(self, telemetry: Telemetry) -> None:
        train = self.config.train
        iterations = self.streams.iterations(self.iteration)
        clock = Clock(self.state, train, telemetry.seconds_between_lines)
        device, synchronize = self.runtime.device, self.runtime.fence.synchronize
        profiling = Profiling(train.profile, self.run_dir, device, synchronize, telemetry.say)
        due, moment = self._due(self.config.evaluation.every_steps), self._moment()
        if self.resumed_from is not None and due and not evaluate.was_evaluated(self.run_dir, *moment[:2]):
            self._evaluate(telemetry, clock)  # it was due at this checkpoint, and came to no end
        while self.iteration < self.total_iterations:
            # Stop, if any rank was asked to or time is up
            if reason := self.stop_requests.agreed(clock):
                self._stop(telemetry, reason)
            if clock.is_due(Due.END):
                break
            self.watchdog.at(self.iteration)
            profiling.before(self.iteration)

            # Batches
            with self.watchdog.doing("waiting for data"):
                inputs = next(iterations)
            self.state.num_replaced += sum(batch.num_replaced for batch in inputs)

            # Stage 1, then the joint update (Algorithm 1)
            self.iterate.set_rates(self.epoch, self.iteration)
            self.graphed(*(tensor for batch in inputs for tensor in batch.tensors))
            self.runtime.fence.launched()
            if self.runtime.reads_are_free:
                self.guard.raise_if_tripped()

            # Count
            self.state.samples_seen += self.iterate.num_samples
            self.meter.num_iterations += 1
            clock.tick()
            telemetry.advance(self.iteration)
            self._report(telemetry)

            # Log
            if self._due(train.log_every_steps):
                self.guard.raise_if_tripped()
                self._log(telemetry)
                clock.done(Due.LINE)
            elif clock.is_due(Due.LINE):
                self._show_line(telemetry)
                clock.done(Due.LINE)

            # Sample
            if self._due(train.sample_every_steps) or is_early(self.iteration, train.sample_every_steps):
                with self.watchdog.doing("drawing pictures"):
                    self._draw(telemetry)

            # Checkpoint
            if self._due(train.checkpoint_every_steps) or clock.is_due(Due.CHECKPOINT):
                with self.watchdog.doing("saving a checkpoint"):
                    self._save()
                clock.done(Due.CHECKPOINT)

            # Evaluate
            if self._due(self.config.evaluation.every_steps):
                self._evaluate(telemetry, clock)
        profiling.stop()
        self._show_line(telemetry)
        if clock.is_due(Due.END):
            telemetry.say(f"Stopped by train.max_seconds at step {self.iteration}.")

    def _stop(self, telemetry: Telemetry, reason: str) -> NoReturn:
        """Save and leave, as all ranks do after the same iteration. Raises Preempted."""
        self._save_and_wait(telemetry)
        if self.runtime.is_main:
            self.stop_requests.record(reason, self.iteration, self.state.samples_seen)
        telemetry.say(f"Stopped by {reason} at step {self.iteration}; the same command goes on from there.")
        raise Preempted

    @property
    def iteration(self) -> int:
        return self.state.samples_seen // self.iterate.num_samples

    @property
    def epoch(self) -> float:
        return self.state.samples_seen / self.streams.num_samples

    def _due(self, every: int) -> bool:
        return every > 0 and self.iteration % every == 0

    # Telemetry, pictures, checkpoints

    def _start_telemetry(self) -> Telemetry:
        shards, seen = self.train_shards, self.state.samples_seen
        if self.runtime.is_main:
            if self.resumed_from is not None:
                run_directory.take_over(self.run_dir, self.resumed_from, self.iteration)
            origin = self.initial.where if self.initial else None
            run_directory.record_start(self.run_dir, self.config, shards, self.runtime.record(), seen, origin)
        telemetry = Telemetry(
            self.run_dir,
            total_steps=self.total_iterations,
            samples_seen=seen,
            step=self.iteration,
            trackers=Trackers(self.config, self.run_dir, seen) if self.runtime.is_main else None,
        )
        num_bytes = sum(optimizer.num_bytes() for optimizer in self.state.optimizers.values())
        telemetry.say(f"{self.runtime.describe()} Optimiser state: {num_bytes / 2**20:.2f} MiB per process.")
        length = (self.total_iterations, self.iterate.num_samples)
        resumed = (self.resumed_from, seen)
        telemetry.say(opening(self.config.method, shards, length, self.run_dir, self.initial, resumed))
        return telemetry

    def _show_line(self, telemetry: Telemetry) -> None:
        """Between two ticks, for people alone; the next tick's means stay what they are."""
        self.guard.raise_if_tripped()
        telemetry.line(self.state.samples_seen, self.iteration, self.meter.means())

    def _log(self, telemetry: Telemetry) -> None:
        values = self.meter.read()
        if self.config.data.replaces_corrupt:
            values["replaced_samples"] = sum(distributed.gather_objects(self.state.num_replaced))
        how = (self.config.optimizer, self.state.optimizers, self.epoch, self.runtime.device)
        signs = vital_signs(self.method, *how) if self.runtime.is_main else {}
        telemetry.log(self.state.samples_seen, self.iteration, self.epoch, values, signs)

    def _draw(self, telemetry: Telemetry) -> list[Path]:
        """Rank 0 draws; the others meet it at the next step's collective."""
        if not self.runtime.is_main:
            return []
        self.runtime.fence.synchronize()
        with weights_applied(self.ema, "auto"):
            paths = self.visuals.draw(self.run_dir / "samples", checkpoint_name(self.iteration))
        telemetry.images(paths, self.state.samples_seen)
        return paths

    def _evaluate(self, telemetry: Telemetry, clock: Clock) -> None:
        """Score the present weights on all ranks; training's state is untouched. Stops as ``_stop`` does."""
        assert self.evaluation is not None
        self.guard.raise_if_tripped()
        what = (self.run_dir, self.evaluation, self.method, self.ema, self.config, self._moment())
        with self.watchdog.doing("evaluating"), clock.stopped(), telemetry.stopped():
            try:
                figures = evaluate.evaluate_in_training(*what, self.stop_requests.raise_if_asked)
            except Preempted as asked:
                self._stop(telemetry, str(asked))
        telemetry.figures(self.state.samples_seen, figures)

    def _moment(self) -> tuple[str, int, float]:
        """The name of a checkpoint made now, samples seen, seconds trained."""
        return checkpoint_name(self.iteration), self.state.samples_seen, round(self.state.train_seconds, 1)

    def _save(self) -> None:
        """Start a checkpoint; training goes on while it is written."""
        self.guard.raise_if_tripped()
        raise_if_weights_are_bad(self.method, self.state.samples_seen, self.runtime.fence.synchronize)
        self.saver.save(self.iteration, *self.state.snapshot())
        self.saved_samples = self.state.samples_seen

    def _save_and_wait(self, telemetry: Telemetry) -> None:
        if not self.saver.went_well() or self.state.samples_seen != self.saved_samples:
            self._save()
        self.saver.wait()
        self._report(telemetry)

    def _report(self, telemetry: Telemetry) -> None:
        for path in self.saver.take_finished():
            telemetry.say(f"Saved {path}.")

    def _finish(self, telemetry: Telemetry) -> Figures:
        """Last pictures, held-out figures, and a word on where everything is."""
        scores, about = Figures(), {}
        if self.test_shards is not None and self.config.train.evaluate_at_end:
            how, splits = (self.config.evaluation, self.config.data), (self.train_shards, self.test_shards)
            inputs = EvaluationInputs(*how, *splits, self.runtime)
            scores, about["weights"] = final_figures(self.method, self.ema, inputs)
        figures = scores | {"train_seconds": self._moment()[2], "samples_seen": self.state.samples_seen}
        paths = self._draw(telemetry)
        if self.runtime.is_main:
            summary = self.run_dir / "evaluation" / "summary.json"
            evaluate.write_figures(summary, figures | about)
            telemetry.figures(self.state.samples_seen, scores)
            telemetry.say("\n".join(["Pictures and figures:", *(f"  {path}" for path in [*paths, summary])]))
        distributed.barrier()
        return figures
