"""How training runs: the section ``train`` of an experiment."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from dist_dsvae.config.fields import LARGE, LONGEST_WAIT, between, free, positive

TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]
MOST_PROFILED = 100  # iterations, beyond which viewers of traces give up


def profiled_iterations(text: str) -> range:
    """The iterations START to STOP - 1 of ``train.profile``, "START:STOP"; the first of a run is 0.

    Raises ValueError for what is no such interval, begins before iteration 2, or is empty or too long.
    """
    match = re.fullmatch(r"(\d{1,12}):(\d{1,12})", text)
    found = range(*map(int, match.groups())) if match else range(0)
    if not found or found.start < 2 or len(found) > MOST_PROFILED:
        raise ValueError(
            f'train.profile is "{text}"; it must be "START:STOP", two whole numbers of iterations with '
            f'2 <= START < STOP <= START + {MOST_PROFILED}, such as "100:103" for three of them.'
        )
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How long, how often, how precisely, and who is told.

    epochs: passes over the training set (and the unlabelled one, where it is used), counted in samples
        drawn (stage 1 draws as well).
    max_seconds: stop with a checkpoint after this time in this process; 0 means no limit.
    log_every_steps: a line in metrics.jsonl and the trackers, on GPUs also a look for infinite losses, every
        so many iterations (n_gm stage-1 updates and one joint update each). People see a line at least every
        10 s on a terminal, every 30 s elsewhere, and after the first iteration.
    sample_every_steps: pictures in samples/ every so many iterations, and before the first of them after 1,
        10, 100, ...; 0 means none during training.
    checkpoint_every_steps: a checkpoint every so many iterations; 0 means none by iterations.
    checkpoint_every_minutes: a checkpoint after so many minutes without one, after whatever iteration; 0
        means none by the clock. There is one at the end in any case.
    keep_checkpoints: how many of the newest checkpoints stay on disk.
    keep_every_steps: checkpoints at multiples of so many iterations stay as well; 0 means none.
    ema_half_life_updates: average weights over training with this half-life, in updates of the decoder (of
        the classifier's network); 0 switches it off.
    ema_ramp_up: the half-life is at most this share of the updates made so far, so that the initial
        weights are soon forgotten; 0 means no such bound.
    ema_networks: whose weights are averaged: "decoder" (the classifier's network), or "all" that sampling,
        encoding and evaluation use: encoders, decoder and mixture prior.
    ema_half_life_samples: deprecated: the half-life in samples drawn, without a ramp-up, instead of
        ema_half_life_updates.
    mixed_precision: "no", "bf16", "fp16", or "auto": bf16 where the processor multiplies it
        natively (CUDA from Ampere on, CPUs with AVX512-BF16 or AMX), else float32. ``bf16`` or
        ``fp16`` given to ``accelerate launch --mixed_precision``, and whatever is given to train.py,
        go before it (the launcher's "no" cannot be told from its default).
    cuda_graph: "auto" captures the whole iteration once and replays it where there is a CUDA device
        (not under DeepSpeed); "on" warns where that is impossible; "off" launches every kernel anew.
    double_precision: float64 throughout (tests and oracles).
    sync_batch_norm: batch statistics over all processes; without it they are each rank's own and
        results depend on the number of processes.
    collective_timeout_seconds: how long a process waits for the others before it gives up and says
        which of them is missing; on GPUs NCCL itself waits a minute longer.
    cpu_threads: threads per process on a CPU; 0 shares the machine's cores among its processes.
    evaluate_at_end: measure held-out figures for evaluation/summary.json after the last iteration, where
        there is a test split, of the weights that evaluation.weights names.
    trackers: who else gets the losses, with learning rates, speed, memory, pictures and figures:
        "tensorboard" in the run directory, "wandb", "mlflow", "trackio" (docs/trackers.md).
    tracker_project: the project of wandb and trackio, and the experiment of mlflow, that the run is part of.
    profile: "START:STOP" writes a trace of iterations START to STOP - 1, counted from 0, into profile/
        (docs/performance.md); null writes none. START is 2 or more: the iteration before it warms the
        profiler up, and the first of all prepares.
    tensorboard: deprecated: true puts "tensorboard" into trackers, false takes it out.
    """

    epochs: float = positive(100.0, free=True, up_to=LARGE)
    max_seconds: float = between(0, LARGE, 0.0, free=True)
    log_every_steps: int = positive(50, free=True)
    sample_every_steps: int = between(0, LARGE, 500, free=True)
    checkpoint_every_steps: int = between(0, LARGE, 1000, free=True)
    checkpoint_every_minutes: float = between(0, LARGE, 10.0, free=True)
    keep_checkpoints: int = positive(3, free=True)
    keep_every_steps: int = between(0, LARGE, 0, free=True)
    ema_half_life_updates: float = between(0, LARGE, 0.0)
    ema_ramp_up: float = between(0, 1, 0.05)
    ema_networks: Literal["decoder", "all"] = "decoder"
    ema_half_life_samples: float | None = between(0, 1e15, None)
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = free("no")
    cuda_graph: Literal["auto", "on", "off"] = free("auto")
    double_precision: bool = False
    sync_batch_norm: bool = True
    collective_timeout_seconds: float = positive(600.0, free=True, up_to=LONGEST_WAIT)
    cpu_threads: int = between(0, 4096, 0, free=True)
    evaluate_at_end: bool = free(True)
    trackers: tuple[TrackerName, ...] = free(("tensorboard",))
    tracker_project: str = free("dist_dsvae")
    profile: str | None = free(None)
    tensorboard: bool | None = free(None)

    def __post_init__(self) -> None:
        if self.tensorboard is not None:
            others = tuple(name for name in self.trackers if name != "tensorboard")
            object.__setattr__(self, "trackers", (*["tensorboard"] * self.tensorboard, *others))
            object.__setattr__(self, "tensorboard", None)
        if self.profile is not None:
            profiled_iterations(self.profile)
        if self.ema_half_life_samples == 0:  # how older runs say that there is no average
            object.__setattr__(self, "ema_half_life_samples", None)
        if self.ema_half_life_samples is not None and self.ema_half_life_updates > 0:
            raise ValueError(
                f"train.ema_half_life_updates ({self.ema_half_life_updates:g}) and the deprecated "
                f"train.ema_half_life_samples ({self.ema_half_life_samples:g}) are both given, but an "
                "average has one half-life. Leave out train.ema_half_life_samples, or set it to 0."
            )

    @property
    def averages(self) -> bool:
        """Whether a moving average is kept."""
        return self.ema_half_life_updates > 0 or self.ema_half_life_samples is not None
