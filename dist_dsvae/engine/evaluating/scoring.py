"""Scores of a set of images, computed by all ranks: each generates and judges its share of the batches.

    batches of this rank -> classifier, feature network -> sums --all-reduce--> totals -> figures

Images and logits never leave their rank. Between pieces of work the totals are saved (``progress``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from dist_dsvae.core import distributed
from dist_dsvae.core.types import Batch
from dist_dsvae.engine.evaluating.progress import Progress
from dist_dsvae.evaluation.diversity import PairSum, mean_diversity, pair_sum
from dist_dsvae.evaluation.image_sums import ImageSums
from dist_dsvae.evaluation.metrics import Figures
from dist_dsvae.evaluation.precision_recall import Coverage, PrecisionRecall, k_nearest_distance, share

# of each rank between two reductions: seldom enough not to matter, often enough to lose little to a kill
_BATCHES_PER_PIECE = 8
_SECONDS_BETWEEN_SAVES = 20.0  # a state may have 100 MB
_CLASS_BYTES = 2**28  # of images that a rank holds at once for diversity


class Sums(Protocol):
    """What is added up over batches. kept: rows [n, ...] that processes gather, beside what they add."""

    kept: Tensor

    def add(self, images: Tensor, labels: Tensor, positions: Tensor) -> None: ...

    def state(self) -> dict[str, Tensor]:
        """The live sums by name, additive over processes."""

    def merge(self, sums: Mapping[str, Tensor], kept: Tensor) -> None: ...


S = TypeVar("S", bound=Sums)


def add_up(
    share_of: Callable[[int], Iterator[Batch]],
    num_batches: int,
    make_sums: Callable[[], S],
    progress: Progress,
    part: str,
) -> S:
    """The sums over all batches, on every rank.

    share_of: given a batch's number, this rank's batches from there on: rank r's are every world_size-th.
    """
    total, done = make_sums(), 0
    saved = progress.load(part)
    if saved is not None:
        done = int(saved["num_batches_done"])
        total.merge(saved, saved["kept"])
    last_saved = -math.inf

    def save() -> None:
        counted = {"num_batches_done": torch.tensor(done), "kept": total.kept}
        progress.save(part, total.state() | counted)

    progress.tell(part, done, num_batches)
    batches, piece = share_of(done), make_sums()
    while done < num_batches:
        try:
            progress.pause()
        except BaseException:
            save()
            raise
        for tensor in piece.state().values():
            tensor.zero_()
        piece.kept = piece.kept[:0]
        for _ in range(_BATCHES_PER_PIECE):
            if (batch := next(batches, None)) is not None:
                piece.add(*batch)
        sums = {name: distributed.all_reduce_sum(tensor) for name, tensor in piece.state().items()}
        total.merge(sums, distributed.gather_rows(piece.kept))
        done = min(num_batches, done + distributed.world_size() * _BATCHES_PER_PIECE)
        progress.tell(part, done, num_batches)
        if done == num_batches or time.monotonic() - last_saved > _SECONDS_BETWEEN_SAVES:
            last_saved = time.monotonic()
            save()
    return total


def inception_figures(sums: ImageSums) -> Figures:
    """What a classifier says of a set of images, as far as it has logits and knows the labels."""
    figures: Figures = {}
    if sums.inception is not None:
        figures["inception_score"] = sums.inception.score
        if sums.knows_labels:
            figures["label_accuracy"] = sums.label_accuracy
    return figures


def neighbour_figures(real: ImageSums, generated: ImageSums) -> PrecisionRecall:
    """Improved precision and recall of the kept features; each rank takes its share of the distances."""
    rank, world_size = distributed.rank(), distributed.world_size()
    sets = (real.kept, generated.kept)
    radii = [
        distributed.gather_rows(k_nearest_distance(rows, rows=share(len(rows), rank, world_size)))
        for rows in sets
    ]
    figures = []
    for points, centres, radius in ((sets[1], sets[0], radii[0]), (sets[0], sets[1], radii[1])):
        covered = Coverage(points.device)
        covered.add(points[share(len(points), rank, world_size)], centres, radius)
        for tensor in covered.state().values():
            distributed.all_reduce_sum(tensor)
        figures.append(covered.fraction)
    return PrecisionRecall(*figures)


def diversity(
    images_of: Callable[[Sequence[int], int], dict[int, Tensor]],
    class_names: Sequence[str],
    per_class: int,
    image_bytes: int,
    progress: Progress,
    part: str,
) -> float:
    """Intra-class diversity (Eq. 12) over all pairs of each class's first ``per_class`` images.

    images_of: (classes, per_class) -> images [N, C, H, W] by class, the same on every rank.
    With fewer classes than ranks, the pairs of a class are divided.
    """
    rank, world_size = distributed.rank(), distributed.world_size()
    num_classes = len(class_names)
    num_shares = math.ceil(world_size / num_classes)
    at_once = world_size * max(1, _CLASS_BYTES // (per_class * image_bytes))
    saved = progress.load(part)
    sums = torch.zeros(num_classes, 2, dtype=torch.float64) if saved is None else saved["sums"]
    first = 0 if saved is None else int(saved["num_classes_done"])
    progress.tell(part, first, num_classes)
    for start in range(first, num_classes, at_once):
        progress.pause()
        group = range(start, min(start + at_once, num_classes))
        mine = [(label, k) for label in group for k in range(num_shares)][rank::world_size]
        images = images_of(sorted({label for label, _ in mine}), per_class)
        own = torch.zeros_like(sums)
        for label, k in mine:
            found = pair_sum(images[label], class_names[label], rank=k, world_size=num_shares)
            own[label] += torch.tensor(found, dtype=torch.float64)
            progress.tell(part, label + 1, num_classes)
        sums += _reduced(own)
        progress.save(part, {"sums": sums, "num_classes_done": torch.tensor(group.stop)})
    return mean_diversity(PairSum(total, int(count)) for total, count in sums.tolist())


def _reduced(own: Tensor) -> Tensor:
    """The sum over ranks of a tensor on the CPU."""
    on_device = own.cuda() if distributed.backend() == "nccl" else own
    return distributed.all_reduce_sum(on_device).cpu()
