"""The networks that score images, and what is said of them in an evaluation's file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dist_dsvae.config import EvaluationConfig
from dist_dsvae.evaluation.image_sums import ImageSums
from dist_dsvae.evaluation.judging.judge import Judge
from dist_dsvae.evaluation.judging.own_classifier import open_judge
from dist_dsvae.evaluation.judging.weight_files import JudgeError


@dataclass(frozen=True)
class Judges:
    """The networks that score images. knows_labels: the classifier's classes are the data set's."""

    classifier: Judge
    feature_network: Judge
    knows_labels: bool

    def sums(
        self, num_images: int, config: EvaluationConfig, device: torch.device, num_splits: int = 1
    ) -> ImageSums:
        """Empty sums for ``num_images`` images."""
        return ImageSums(
            self.classifier,
            self.feature_network,
            num_images,
            seed=config.seed,
            num_splits=num_splits,
            num_kept=config.neighbour_samples,
            knows_labels=self.knows_labels,
            device=device,
        )

    def describe(self) -> dict[str, Any]:
        return {
            "classifier": described(self.classifier),
            "feature_network": described(self.feature_network),
        }


def described(judge: Judge) -> dict[str, str]:
    """What an evaluation's file says of a network."""
    return {"name": judge.name, "sha256": judge.sha256}


def open_judges(config: EvaluationConfig, classes: Sequence[str], device: torch.device) -> Judges | None:
    """The networks that a configuration names; None where it names none.

    Raises JudgeError if one cannot be had, or is a classifier of other classes than ``classes``.
    """
    if config.classifier is None:
        return None
    classifier, known = open_judge(config.classifier, device)
    if known is not None and known != tuple(classes):
        raise JudgeError(
            f"{config.classifier} tells {len(known)} classes apart ({', '.join(known[:3])}, ...), but the "
            f"data have {len(classes)} ({', '.join(classes[:3])}, ...). Give a classifier of this data set, "
            "or a file of weights for the Inception Score alone."
        )
    features = classifier
    if config.fid_network is not None:
        features, _ = open_judge(config.fid_network, device)
    return Judges(classifier, features, known is not None)
