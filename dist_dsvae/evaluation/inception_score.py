"""Inception Score: how sure a classifier is of each image, and how varied its answers are over all of them.

    IS = exp(mean over x of KL(p(y|x) || p(y))),   p(y) = mean over x of p(y|x)

(Salimans et al., "Improved Techniques for Training GANs", 2016.) The mean of the KL divergence is

    mean over x of sum_y p(y|x) log p(y|x)  -  sum_y p(y) log p(y)

so sums of p log p and of p are all it takes: neither images nor logits are kept.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from dist_dsvae.core.noise import Draw, permutation


class SplitScores(NamedTuple):
    """Mean and standard deviation (divisor: their number) of the splits' scores."""

    mean: float
    std: float


def split_of_positions(num_samples: int, num_splits: int, seed: int) -> Tensor:
    """The split of every position, int64 [num_samples]: a function of the arguments alone.

    Positions are shuffled and cut at i * num_samples // num_splits, as torch-fidelity cuts: sizes differ by
    one at most. Without the shuffle, positions in the order of the classes would give each split few classes.
    """
    shuffled = permutation(num_samples, seed, Draw.SCORE_SPLIT)
    splits = torch.empty(num_samples, dtype=torch.int64)
    for split in range(num_splits):
        start, stop = (bound * num_samples // num_splits for bound in (split, split + 1))
        splits[shuffled[start:stop]] = split
    return splits


class InceptionScore:
    """The score's sums, by split; every sample is added once, on whichever process, in whichever batch.

    num_classes: C of the classifier. num_samples: how many samples all processes add together. seed: of the
    shuffle that fills the splits.

    Raises ValueError if there are fewer samples than splits.
    """

    def __init__(
        self,
        num_classes: int,
        num_samples: int,
        seed: int,
        num_splits: int = 10,
        device: torch.device | str = "cpu",
    ) -> None:
        if not 1 <= num_splits <= num_samples:
            raise ValueError(
                f"an Inception Score of {num_splits} splits needs at least one sample for each, and there "
                f"are {num_samples}: draw more samples or ask for fewer splits"
            )
        self.num_classes, self.num_samples, self.num_splits = num_classes, num_samples, num_splits
        self.split_of = split_of_positions(num_samples, num_splits, seed).to(device)
        self.count = torch.zeros(num_splits, dtype=torch.int64, device=device)
        self.sum_p_log_p = torch.zeros(num_splits, dtype=torch.float64, device=device)
        self.sum_p = torch.zeros(num_splits, num_classes, dtype=torch.float64, device=device)

    @torch.no_grad()
    def add(self, logits: Tensor, positions: Tensor) -> None:
        """Add samples' logits [B, C] (any floating-point dtype); positions [B], int64 in 0..num_samples-1.

        Raises ValueError for another shape, a logit that is not finite, or a position out of range.
        """
        self._check(logits, positions)
        log_p = logits.double().log_softmax(dim=1)
        p = log_p.exp()
        # a product with [splits, B] zeros and ones: unlike index_add_, it is deterministic on every device
        member = F.one_hot(self.split_of[positions], self.num_splits).T.double()
        self.count += member.sum(1).long()
        self.sum_p_log_p += member @ (p * log_p).sum(1)
        self.sum_p += member @ p

    def _check(self, logits: Tensor, positions: Tensor) -> None:
        if logits.ndim != 2 or logits.shape[1] != self.num_classes or positions.shape != logits.shape[:1]:
            raise ValueError(
                f"logits of shape {list(logits.shape)} at positions of shape {list(positions.shape)}: the "
                f"Inception Score needs [batch, {self.num_classes}] and [batch]"
            )
        if not logits.isfinite().all():
            raise ValueError(
                "the classifier's logits are not all finite, so there is no Inception Score: look at the "
                "generated images and at the classifier's weights"
            )
        if positions.numel() and not 0 <= positions.min() <= positions.max() < self.num_samples:
            raise ValueError(
                f"positions from {int(positions.min())} to {int(positions.max())} are not all in "
                f"0..{self.num_samples - 1}, for which this Inception Score was made"
            )

    def state(self) -> dict[str, Tensor]:
        """The live sums, float64 or int64: added up over processes, they are the sums over all samples."""
        return {"count": self.count, "sum_p_log_p": self.sum_p_log_p, "sum_p": self.sum_p}

    @property
    def num_added(self) -> int:
        return int(self.count.sum())

    @property
    def score(self) -> float:
        """The score of all samples added, as one split: in [1, C]. Raises ValueError if there are none."""
        if self.num_added == 0:
            raise ValueError("no sample has been added, so there is no Inception Score")
        return float(_scores(self.count.sum(0), self.sum_p_log_p.sum(0), self.sum_p.sum(0)))

    @property
    def splits(self) -> SplitScores:
        """Mean and deviation over the splits. Raises ValueError unless all num_samples have been added."""
        if not torch.equal(self.count, self.split_of.bincount(minlength=self.num_splits)):
            raise ValueError(
                f"{self.num_added} samples have been added and the {self.num_splits} splits were made for "
                f"{self.num_samples}, each added once: add every position exactly once"
            )
        scores = _scores(self.count, self.sum_p_log_p, self.sum_p)
        return SplitScores(float(scores.mean()), float(scores.std(correction=0)))


def _scores(count: Tensor, sum_p_log_p: Tensor, sum_p: Tensor) -> Tensor:
    """[...] int64, [...] and [..., C] float64 -> [...]; a class that never occurs counts 0 log 0 = 0."""
    marginal = sum_p / count[..., None]
    return (sum_p_log_p / count - torch.xlogy(marginal, marginal).sum(-1)).exp()
