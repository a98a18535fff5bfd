"""Iteration: every update of a method as often as it says, and all that follows each: device work alone.

    inputs --to_batch--> batch --update--> terms --+--> sums of the loss meter     n_gm times stage 1,
                                                 +--> guard                      then the joint update
                                    parameters ------> moving average            (Algorithm 1)

Nothing in here reads a tensor on the host or keeps a number in Python, so that the whole of it can
be captured once and replayed (``cuda_graph``). What the host decides comes in between: which
samples, which learning rates, which weight in the moving average.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from dist_dsvae.config import OptimizerConfig, TrainConfig
from dist_dsvae.core.noise import JointNoise, Noise, NoiseOfAll, seed_of
from dist_dsvae.core.types import Batch
from dist_dsvae.engine.iteration.batch_norm import JointCounts
from dist_dsvae.engine.iteration.ema import moving_average
from dist_dsvae.engine.iteration.guard import Guard
from dist_dsvae.engine.iteration.streams import ToBatch, splits_drawn
from dist_dsvae.engine.iteration.updates import FlatUpdate, OverlappedUpdate
from dist_dsvae.engine.iteration.warm_up import without_trace
from dist_dsvae.engine.iteration.zero import update_optimizers
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.engine.reporting.telemetry import LossMeter
from dist_dsvae.methods.update import Method, Reduction, Split

Turn = tuple[str, Batch, Noise]  # the name of an update, and what it gets


class Iteration:
    """Callable: one iteration from the inputs of its batches, laid end to end; with all that it updates.

    method: in its place (``batch_norm.place``).
    to_batch: makes a Batch of inputs, of which the positions are the last, and their noise, by the split that
        they come from; row by row, so that all batches of a split are made at once.
    global_batch_size: samples per batch on all ranks.
    Raises ValueError where ``train`` asks for an average of what the method does not update.
    """

    def __init__(
        self,
        method: nn.Module,
        runtime: Runtime,
        optimizer: OptimizerConfig,
        train: TrainConfig,
        to_batch: Mapping[Split, ToBatch],
        *,
        seed: int,
        global_batch_size: int,
    ) -> None:
        assert isinstance(method, Method)
        self.method = method
        self.runtime = runtime
        self.to_batch = to_batch
        self.splits = splits_drawn(method)
        self.seeds = [seed_of(split, seed) for split in self.splits]
        self.num_batches = len(self.splits)
        self.num_samples = self.num_batches * global_batch_size
        self.optimizers = update_optimizers(method, optimizer, runtime, global_batch_size)
        loss_scale = next(runtime.scale_state(), None)
        self.guard = Guard(method.updates, runtime.device, runtime.fence.synchronize, loss_scale)
        self.meter = LossMeter(method.updates, runtime.device, runtime.fence.synchronize)
        self.ema = moving_average(method, train, self.num_samples)
        self.noise = JointNoise(runtime.dtype)
        self.counts = JointCounts(method)
        self.run_update = self._updates()
        # one process reduces nothing, and DeepSpeed's buckets stay as they are
        self._buckets_are_warm = runtime.world_size == 1 or runtime.zero_stage > 0

    def _updates(self) -> dict[str, FlatUpdate | OverlappedUpdate]:
        """A callable per update of the method, by how its gradients are reduced."""
        method = self.method
        overlapped = {n for s in method.updates if s.reduction is Reduction.OVERLAPPED for n in s.trains}
        parameters = [name for name, _ in method.named_parameters()]
        # DistributedDataParallel leaves alone what only flat updates train
        ignored = [name for name in parameters if name.partition(".")[0] not in overlapped]
        wrapped = self.runtime.wrap(method, ignored) if overlapped else method
        run_update: dict[str, FlatUpdate | OverlappedUpdate] = {}
        for update in method.updates:
            common = (method, update, self.optimizers[update.name], self.guard, self.runtime)
            flat = update.reduction is Reduction.FLAT
            run_update[update.name] = FlatUpdate(*common) if flat else OverlappedUpdate(*common, wrapped)
        return run_update

    def set_rates(self, epoch: float, iteration: int) -> None:
        """Move the learning rates to where they are after ``epoch`` passes, and the average's weight to where
        it is after ``iteration`` earlier iterations; before the iteration.
        """
        for optimizer in self.optimizers.values():
            optimizer.set_rates(epoch)
        if self.ema is not None:
            self.ema.set_weight(iteration)

    def __call__(self, *inputs: Tensor) -> None:
        turns = list(self._turns(inputs))
        if not self._buckets_are_warm:
            self._buckets_are_warm = True
            self._warm_up_buckets(turns)
        with self.counts():
            for name, batch, noise in turns:
                self.meter.add(name, self.run_update[name](batch, noise))
        if self.ema is not None:
            self.ema.update()

    def _turns(self, inputs: Sequence[Tensor]) -> Iterator[Turn]:
        batches = iter(self._batches(inputs))
        batch: Batch | None = None
        for update in self.method.updates:
            for _ in range(update.repeats):
                if update.fresh_batch or batch is None:
                    batch, noise = next(batches)
                yield update.name, batch, noise

    def _warm_up_buckets(self, turns: Sequence[Turn]) -> None:
        """Before the first iteration, fresh or resumed, so that it has the buckets of all that follow."""
        for name, batch, noise in turns:
            update = self.run_update[name]
            if isinstance(update, OverlappedUpdate):
                with without_trace(self.method.buffers, batch):
                    update.warm_up_buckets(batch, noise)
                    self.runtime.fence.synchronize()  # before buffers are put back, deaf to missing ranks
                return

    def _batches(self, inputs: Sequence[Tensor]) -> list[tuple[Batch, Noise]]:
        """The batches in the order of the updates; what makes them is done once for all of a split."""
        per_batch = len(inputs) // self.num_batches
        parts = [inputs[first : first + per_batch] for first in range(0, len(inputs), per_batch)]
        positions = torch.stack([part[-1] for part in parts])
        noises = self.noise(self.seeds, positions)
        of_split: dict[Split, Iterator[Batch]] = {}
        for split in dict.fromkeys(self.splits):
            own = [number for number, other in enumerate(self.splits) if other == split]
            places = positions if len(own) == self.num_batches else torch.stack([parts[n][-1] for n in own])
            contents = zip(*(parts[n][:-1] for n in own), strict=True)
            together = [*(torch.cat(column) for column in contents), places.flatten()]
            whole = self.to_batch[split](together, NoiseOfAll([noises[n] for n in own], together[-1]))
            chunks = (tensor.chunk(len(own)) for tensor in whole)
            of_split[split] = map(Batch._make, zip(*chunks, strict=True))
        return [(next(of_split[split]), noise) for split, noise in zip(self.splits, noises, strict=True)]

    def state(self) -> Iterator[Tensor]:
        """Every tensor that an iteration changes, live."""
        yield from self.method.parameters()
        yield from self.method.buffers()
        for optimizer in self.optimizers.values():
            for moments in optimizer.state().values():
                yield from moments.values()
        yield from self.guard.state()
        yield from self.meter.sums.values()
        yield from self.runtime.scale_state()
        if self.ema is not None:
            yield from self.ema.averaged.values()
