"""Samples beside real ones: which is which, by methods that draw a few things again and again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from dist_dsvae.config import DataConfig, EvaluationConfig, TrainConfig
from dist_dsvae.core.noise import Noise
from dist_dsvae.core.types import Batch
from dist_dsvae.data.open_split import open_split
from dist_dsvae.data.stream import one_pass
from dist_dsvae.data.transforms import to_device_batch
from dist_dsvae.engine.evaluating.evaluator import Candidate, EvaluationInputs
from dist_dsvae.engine.evaluating.image_scores import ImageScores
from dist_dsvae.engine.evaluating.judges import open_judges
from dist_dsvae.engine.evaluating.point_scores import PointScores
from dist_dsvae.engine.evaluating.progress import Progress
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.evaluation.coverage import Points

JUDGE = "shards/fashion-mnist-mini/classifier"
TEST = "shards/fashion-mnist-mini/test"


class Repeating:
    """Draws of every class one real picture alone."""

    num_classes, zu_dim = 10, 1

    def __init__(self, real: Batch) -> None:
        first = [int((real.labels == label).nonzero()[0]) for label in range(self.num_classes)]
        self.pictures = real.images[first]

    def prior_codes(self, labels: Tensor, zs_noise: Noise, zu_noise: Noise) -> Tensor:
        return labels[:, None].float()

    def decode(self, codes: Tensor, kind: str) -> Tensor:
        return self.pictures[codes[:, 0].long()]

    def decoding_network(self) -> nn.Module:
        return nn.Identity()  # without statistics


def test_one_picture_of_each_class_is_precise_and_covers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    split, runtime = open_split(TEST), Runtime(TrainConfig())
    config = EvaluationConfig(
        classifier=JUDGE, batch_norm="running", samples_per_class=20, diversity_samples=3, splits=2
    )
    inputs = EvaluationInputs(config, DataConfig(train=TEST), split, split, runtime)
    host = next(iter(one_pass(split, 200)))
    method = Repeating(to_device_batch(host, runtime.device, runtime.dtype))
    scores = ImageScores(inputs, open_judges(config, split.classes, runtime.device))
    scored = scores(Candidate(method, inputs, Progress()))  # type: ignore[arg-type]
    drawn, real = scored.figures, scored.real
    assert drawn["precision"] >= 0.8
    assert drawn["recall"] < 0.2
    assert drawn["diversity"] == pytest.approx(0.0, abs=1e-6)
    assert drawn["fid"] > 0.5
    assert real["diversity"] > 0.4
    assert real["label_accuracy"] > 0.8


def test_half_the_points_are_precise_and_cover_half(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = torch.cartesian_prod(torch.arange(10.0), torch.arange(10.0))
    labels = torch.zeros(100, dtype=torch.int64)
    split = SimpleNamespace(num_classes=1, num_samples=100)
    monkeypatch.setattr(PointScores, "_read", lambda *_: Points(grid, labels))
    config = EvaluationConfig(radius=0.5, samples_per_class=100)
    inputs = EvaluationInputs(config, DataConfig(train="x"), split, split, Runtime(TrainConfig()))  # type: ignore[arg-type]
    half = Batch(grid[torch.arange(100) % 50], labels, torch.arange(100))
    sampler = SimpleNamespace(draw=lambda positions: half)
    candidate = SimpleNamespace(sampler=lambda *_, **__: sampler)
    scored = PointScores(inputs)(candidate)  # type: ignore[arg-type]
    drawn, real = scored.figures, scored.real
    assert drawn["precision"] == 1.0
    assert drawn["coverage"] == pytest.approx(0.5)
    assert real["precision"] == real["coverage"] == 1.0
