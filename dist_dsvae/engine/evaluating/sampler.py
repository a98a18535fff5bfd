"""The images that are scored: sample p is of class p mod C, its noise a function of (seed, p).

So neither the number of processes nor their shares change a sample. Images are rounded to 8 bits, as
anyone would save them, because that is what real images have been through.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import KW_ONLY, dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from dist_dsvae.core.noise import Noise
from dist_dsvae.core.types import Batch
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.methods.abilities import Generative
from dist_dsvae.models.norm_statistics import batch_norms
from dist_dsvae.sampling.pixels import as_saved
from dist_dsvae.sampling.temperature import PriorCodes


@dataclass(eq=False)
class Sampler:
    """Draws ``num_samples`` images of ``method``, which is in evaluation mode.

    batch_norm: "batch" takes the statistics of each batch of ``batch_size`` samples, whose composition is
        then part of the result; else those that the method's decoder has.
    prior: what they are drawn from, such as the method's own ``prior_codes``.
    """

    method: Generative
    runtime: Runtime
    _: KW_ONLY
    num_samples: int
    batch_size: int
    seed: int
    batch_norm: Literal["precise", "images", "running", "batch"]
    prior: PriorCodes

    @property
    def num_batches(self) -> int:
        return -(-self.num_samples // self.batch_size)

    def share(self, first_batch: int = 0) -> Iterator[Batch]:
        """This rank's batches of all samples: first_batch + rank, and every world_size-th after it."""
        for number in range(first_batch + self.runtime.rank, self.num_batches, self.runtime.world_size):
            start = number * self.batch_size
            # drawn whole, because a short batch would have other statistics; the last one is then cut
            drawn = self.draw(torch.arange(start, start + self.batch_size))
            yield Batch(*(rows[: self.num_samples - start] for rows in drawn))

    @torch.no_grad()
    def draw(self, positions: Tensor) -> Batch:
        """The samples at ``positions`` [B], as one batch: images in [-1, 1] at 8 bits."""
        positions = positions.to(self.runtime.device)
        labels = positions % self.method.num_classes
        noise = Noise(self.seed, positions, self.runtime.dtype)
        codes = self.prior(labels, noise, noise)
        own = batch_statistics(self.method) if self.batch_norm == "batch" else nullcontext()
        with self.runtime.autocast(), own:
            images = self.method.decode(codes, "prior")
        is_image = images.dim() == 4
        return Batch(as_saved(images) if is_image else images.float(), labels, positions)

    def of_classes(self, classes: Sequence[int], per_class: int) -> dict[int, Tensor]:
        """The first ``per_class`` samples [N, C, H, W] of each class in ``classes``."""
        if self.batch_norm == "batch":
            return self._picked(classes, per_class)
        found = {}
        for label in classes:
            positions = label + self.method.num_classes * torch.arange(per_class)
            found[label] = torch.cat(
                [self.draw(part).images for part in torch.split(positions, self.batch_size)]
            )
        return found

    def _picked(self, classes: Sequence[int], per_class: int) -> dict[int, Tensor]:
        """Out of whole batches, which decide their samples."""
        picked: dict[int, list[Tensor]] = {label: [] for label in classes}
        for number in range(-(-per_class * self.method.num_classes // self.batch_size)):
            start = number * self.batch_size
            positions = torch.arange(start, start + self.batch_size)
            if not torch.isin(positions % self.method.num_classes, torch.tensor(classes)).any():
                continue  # as most batches are of some of many classes
            batch = self.draw(positions)
            for label, images in picked.items():
                images.append(batch.images[batch.labels == label])
        return {label: torch.cat(images)[:per_class] for label, images in picked.items()}


@contextmanager
def batch_statistics(method: Generative) -> Iterator[None]:
    """Batch norms normalise by their batch's own statistics inside, and forget them after.

    A batch norm in evaluation mode does so where it has no running statistics.
    """
    norms = batch_norms(cast(nn.Module, method))
    running = [(norm.running_mean, norm.running_var) for norm in norms]
    for norm in norms:
        norm.running_mean = norm.running_var = None
    try:
        yield
    finally:
        for norm, (mean, variance) in zip(norms, running, strict=True):
            norm.running_mean, norm.running_var = mean, variance
