"""Drawn points of the plane beside real ones: no network is needed to see how far they cover them."""

from __future__ import annotations

from typing import Any

import torch

from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.stream import one_pass
from dist_dsvae.engine.evaluating.evaluator import Candidate, EvaluationInputs, Evaluator, Scored
from dist_dsvae.evaluation.coverage import Points, coverage_figures
from dist_dsvae.methods.abilities import Generative


class PointScores(Evaluator):
    """Coverage of real points by drawn ones; the real figures are those of as many of the other split."""

    needs = Generative

    def __init__(self, inputs: EvaluationInputs) -> None:
        self.inputs = inputs

    def settings(self) -> dict[str, Any]:
        return {"radius": self.inputs.config.radius}

    def __call__(self, candidate: Candidate) -> Scored:
        inputs = self.inputs
        num_samples, radius = inputs.num_samples, inputs.config.radius
        drawn = candidate.sampler(num_samples, batch_size=num_samples).draw(torch.arange(num_samples))
        real = self._read(inputs.real, inputs.num_real)
        other = self._read(inputs.train if inputs.real is inputs.test else inputs.test, num_samples)
        return Scored(
            {**coverage_figures(real, Points(drawn.images.cpu(), drawn.labels.cpu()), radius)},
            {**coverage_figures(real, other, radius)},
        )

    def _read(self, split: Manifest, limit: int) -> Points:
        hosts = list(one_pass(split, 1024, limit=limit, skip_corrupt=self.inputs.skip_corrupt))
        return Points(torch.cat([host.images for host in hosts]), torch.cat([host.labels for host in hosts]))
