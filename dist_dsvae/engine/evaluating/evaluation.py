"""Evaluation of a method's present weights by all ranks: which evaluators there are, and their settings.

test split --encode--> codes --> accuracies, probes, reconstruction error      (``code_scores``)
                         +-----> swapped images -> classifier -> swap figures  (``swapping``)
                         +-----> swapped images -> face network -> whom they resemble  (``resemblance``)
prior ---------> images -------> classifier -> Inception Score, label accuracy (``image_scores``)
real split ----> images -------> features -> FID, precision, recall
                         +-----> pairs -> diversity
prior ---------> points -------> coverage of the real ones                     (``point_scores``)

A new figure needs its evaluator, in the list below, and its row in ``evaluation.metrics``, which the printed
table, model cards and comparisons read.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from dist_dsvae.engine.evaluating.code_scores import CodeScores
from dist_dsvae.engine.evaluating.evaluator import Candidate, EvaluationInputs, Evaluator
from dist_dsvae.engine.evaluating.image_scores import ImageScores
from dist_dsvae.engine.evaluating.judges import open_judges
from dist_dsvae.engine.evaluating.point_scores import PointScores
from dist_dsvae.engine.evaluating.progress import Progress
from dist_dsvae.engine.evaluating.resemblance import Identity
from dist_dsvae.engine.evaluating.swapping import SwapScores
from dist_dsvae.evaluation.metrics import Figures
from dist_dsvae.runs.measure_statistics import Measured, for_samples, measure, using


class Evaluation:
    """Scores a method against a data set. Made, and called, by all ranks.

    Raises DataError, JudgeError or ValueError where settings, data and networks do not fit together.
    """

    def __init__(self, inputs: EvaluationInputs) -> None:
        self.inputs = inputs
        self.evaluators = _evaluators(inputs)

    def describe_judges(self) -> dict[str, Any] | None:
        """Names and hashes of all networks that judge, by role; None where there are none."""
        found: dict[str, Any] = {}
        for evaluator in self.evaluators:
            found |= evaluator.judges()
        return found or None

    def settings(self) -> dict[str, Any]:
        """What the figures depend on, beside the weights."""
        c = self.inputs.config
        found: dict[str, Any] = {
            "samples": self.inputs.num_samples,
            "samples_per_class": c.samples_per_class,
            "real_samples": self.inputs.num_real,
            "real_split": c.real_split,
            "splits": c.splits,
            "seed": c.seed,
            "batch_norm": c.batch_norm,
            "prior": c.prior,
            "diversity_samples": c.diversity_samples,
            "neighbour_samples": c.neighbour_samples,
            "precision": self.inputs.runtime.mixed_precision,
            "data_fingerprint": self.inputs.train.fingerprint,
            "test_fingerprint": self.inputs.test.fingerprint,
        }
        if c.batch_norm == "batch":
            found["batch_size"] = c.batch_size
        for name in ("temperature_zs", "temperature_zu"):
            if (temperature := getattr(c, name)) != 1:
                found[name] = temperature
        for evaluator in self.evaluators:
            found |= evaluator.settings()
        return found

    def __call__(
        self, method: nn.Module, progress: Progress, measured: Measured | None = None
    ) -> tuple[Figures, Figures]:
        """Figures of the method, and those of real images under the same judges; in training mode after.

        measured: statistics of batch norm, where they are to be measured and are known already.
        """
        inputs = self.inputs
        method.eval()
        if not inputs.config.measures_batch_norm:
            measured = Measured()
        elif measured is None:
            measured = measure(method, inputs.train, skip_corrupt=inputs.skip_corrupt)
        measured = for_samples(measured, as_images=inputs.config.samples_as_images)
        figures: Figures = {}
        real: Figures = {}
        try:
            with using(method, measured):
                candidate = Candidate(method, inputs, progress)
                for evaluator in self.evaluators:
                    if isinstance(method, evaluator.needs):
                        scores = evaluator(candidate)
                        figures |= scores.figures
                        real |= scores.real
        finally:
            method.train()
        return figures, real


def _evaluators(inputs: EvaluationInputs) -> list[Evaluator]:
    """Those that the configuration and the data allow, in the order in which they work."""
    train, judges = inputs.train, None
    if train.shape.is_image:
        judges = open_judges(inputs.config, train.classes, inputs.runtime.device)
    found: list[Evaluator] = [CodeScores()]
    if judges is not None and judges.knows_labels:
        found.append(SwapScores(inputs, judges.classifier))
    found.append(Identity(inputs))
    if not train.shape.is_image:
        found.append(PointScores(inputs))
    elif judges is not None:
        found.append(ImageScores(inputs, judges))
    return found
