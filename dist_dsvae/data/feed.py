"""Feed: what an iteration is given, whichever source the samples come from.

    stream    --uint8 images, labels, positions--+
                                                 +--copied ahead--> Inputs --to_batch--> types.Batch
    resident  --places, positions----------------+

``batches`` runs on the host and ahead of the step. ``to_batch`` is device work alone: it reads
nothing on the host and can be part of a captured graph.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dist_dsvae.config import DataConfig
from dist_dsvae.core.noise import Noise
from dist_dsvae.core.types import Batch
from dist_dsvae.data.resident import ResidentData
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.stream import Inputs, Slice, stream
from dist_dsvae.data.transforms import to_batch


@dataclass(eq=False)
class Feed:
    """The batches of one rank on its device.

    dtype: of the images. Raises DataError as ``stream`` and ``ResidentData`` do.
    """

    manifest: Manifest
    config: DataConfig
    seed: int
    part: Slice
    device: torch.device
    dtype: torch.dtype = torch.float32
    _resident: ResidentData | None = field(default=None, init=False)

    def batches(self, start_position: int, copies_ahead: int = 1) -> Iterator[Inputs]:
        """Endless inputs from ``start_position`` on, on the device.

        copies_ahead: how many batches travel to a GPU while earlier ones are worked on.
        """
        on_gpu = self.device.type == "cuda"
        if self.config.source == "resident":
            self._resident = ResidentData(self.manifest, self.config, self.seed, self.device)
            host = self._resident.batches(self.part, start_position)
        else:
            host = (
                Inputs((batch.images, batch.labels, batch.positions), batch.num_replaced)
                for batch in stream(
                    self.manifest,
                    self.config,
                    self.seed,
                    self.part,
                    start_position=start_position,
                    pin_memory=on_gpu,
                )
            )
        return copied_ahead(host, self.device, copies_ahead) if on_gpu else host

    def to_batch(self, tensors: Sequence[Tensor], noise: Noise) -> Batch:
        """One batch's inputs as the networks take them: gathered, scaled, flipped by the batch's noise."""
        if self._resident is not None:
            places, positions = tensors
            images, labels = self._resident.gather(places)
        else:
            images, labels, positions = tensors
        flips = noise if self.config.flip else None
        return to_batch(images, labels, positions, flips=flips, dtype=self.dtype)


def copied_ahead(host: Iterator[Inputs], device: torch.device, count: int) -> Iterator[Inputs]:
    """Move inputs to a GPU on a stream of their own, ``count`` batches before they are asked for."""
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def start(inputs: Inputs) -> tuple[Inputs, torch.cuda.Event]:
        with torch.cuda.stream(copying):
            moved = tuple(
                (t if t.is_pinned() else t.pin_memory()).to(device, non_blocking=True) for t in inputs.tensors
            )
            return Inputs(moved, inputs.num_replaced), copying.record_event()

    under_way = collections.deque(start(inputs) for inputs in itertools.islice(host, count))
    for inputs in host:
        under_way.append(start(inputs))
        ready, copied = under_way.popleft()
        computing = torch.cuda.current_stream(device)
        computing.wait_event(copied)
        for tensor in ready.tensors:
            tensor.record_stream(computing)  # its memory is not reused before the step is done with it
        yield ready
