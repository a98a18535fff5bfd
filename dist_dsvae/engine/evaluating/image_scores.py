"""Samples of the prior under the judges, beside real images under the same judges."""

from __future__ import annotations

from typing import Any

import torch

from dist_dsvae.core.errors import DataError
from dist_dsvae.engine.evaluating.evaluator import Candidate, EvaluationInputs, Evaluator, Scored
from dist_dsvae.engine.evaluating.judges import Judges
from dist_dsvae.engine.evaluating.scoring import add_up, diversity, inception_figures, neighbour_figures
from dist_dsvae.engine.evaluating.split_images import SplitImages, real_cache
from dist_dsvae.evaluation.diversity import settings_for
from dist_dsvae.evaluation.frechet import frechet_distance
from dist_dsvae.evaluation.image_sums import ImageSums
from dist_dsvae.methods.abilities import Generative


class ImageScores(Evaluator):
    """Inception Score, label accuracy, FID, precision, recall and diversity.

    Raises DataError, JudgeError or ValueError where the judges do not fit the images, or these are too few.
    """

    needs = Generative

    def __init__(self, inputs: EvaluationInputs, judges: Judges) -> None:
        self.inputs, self._judges = inputs, judges
        shape = inputs.train.shape
        self.ms_ssim = settings_for(shape.height, shape.width)
        self.real_images = SplitImages(
            inputs.real,
            inputs.num_real,
            inputs.config,
            inputs.runtime,
            real_cache(inputs.data),
            skip_corrupt=inputs.skip_corrupt,
        )
        self._check_judges()

    def _check_judges(self) -> None:
        """What would otherwise be found out after all images are drawn."""
        inputs = self.inputs
        fewest = min(inputs.num_real, inputs.num_samples)
        if fewest < 4:
            raise DataError(
                f"evaluation.real_samples and evaluation.samples_per_class give {fewest} images of a kind; "
                "precision and recall need at least 4 of each."
            )
        self._sums(torch.device("cpu"))
        blank = torch.zeros(1, *inputs.train.shape, device=inputs.runtime.device)
        self._judges.classifier(blank)
        self._judges.feature_network(blank)

    def settings(self) -> dict[str, Any]:
        return {"ms_ssim": self.ms_ssim.recorded()}

    def judges(self) -> dict[str, Any]:
        return self._judges.describe()

    def __call__(self, candidate: Candidate) -> Scored:
        inputs, progress = self.inputs, candidate.progress
        sampler = candidate.sampler(inputs.num_samples)
        real, real_figures = self.real_images.scores(self._judges, progress)
        drawn = add_up(
            sampler.share,
            sampler.num_batches,
            lambda: self._sums(inputs.runtime.device),
            progress,
            "generated",
        )
        figures = inception_figures(drawn)
        if drawn.inception is not None and inputs.config.splits > 1:
            mean, std = drawn.inception.splits
            figures |= {"inception_score_splits_mean": mean, "inception_score_splits_std": std}
        figures["fid"] = frechet_distance(real.moments, drawn.moments)
        figures |= neighbour_figures(real, drawn)._asdict()
        figures["diversity"] = diversity(
            sampler.of_classes,
            inputs.train.classes,
            inputs.config.diversity_samples,
            inputs.train.shape.num_values * 4,
            progress,
            "diversity",
        )
        return Scored(figures, real_figures)

    def _sums(self, device: torch.device) -> ImageSums:
        config = self.inputs.config
        return self._judges.sums(self.inputs.num_samples, config, device, num_splits=config.splits)
