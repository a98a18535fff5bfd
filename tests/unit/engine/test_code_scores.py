"""Figures of codes, of codes made by hand: what they are, not that they agree with themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dist_dsvae.config import DataConfig, EvaluationConfig, TrainConfig
from dist_dsvae.core.types import ImageShape
from dist_dsvae.data.stream import one_pass
from dist_dsvae.data.transforms import to_device_batch
from dist_dsvae.engine.evaluating import test_codes
from dist_dsvae.engine.evaluating.code_scores import code_figures, more_probe_figures
from dist_dsvae.engine.evaluating.evaluator import Candidate, EvaluationInputs
from dist_dsvae.engine.evaluating.progress import Progress
from dist_dsvae.engine.evaluating.swapping import SwapScores
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.evaluation.judging.judge import Judge
from tests.unit.engine.making import write_images
from tests.unit.engine.test_identity import KNOWN, SHAPE, Half, Perfect

LABELS = torch.arange(300) % 3


def apart(labels: Tensor) -> Tensor:
    """Codes that tell the label: [N, 3]."""
    return 4.0 * torch.nn.functional.one_hot(labels, 3) + torch.randn(
        len(labels), 3, generator=torch.Generator().manual_seed(0)
    )


def test_what_is_right_counts_and_probes_are_fitted_on_the_training_split() -> None:
    """Of the training split each class has the codes of the next one in the test split."""
    codes = apart(LABELS)
    test = {"labels": LABELS, "zu": codes, "zu_mean": codes, "zs": codes, "squared_error": LABELS.double()}
    test["predicted"] = torch.where(torch.arange(300) < 240, LABELS, (LABELS + 1) % 3)
    fit = dict.fromkeys(("zu", "zu_mean", "zs"), codes)
    agreeing = code_figures(test_codes.TestCodes(test, {**fit, "labels": LABELS}, 3))
    assert agreeing["zs_accuracy"] == pytest.approx(0.8)
    assert agreeing["reconstruction_error"] == pytest.approx(1.0)  # the mean of 0, 1 and 2
    assert agreeing["test_samples"] == 300
    moved = test_codes.TestCodes(test, {**fit, "labels": (LABELS + 1) % 3}, 3)
    for name in ("zu_probe_accuracy", "zu_mean_probe_accuracy"):
        assert agreeing[name] > 0.95
        assert code_figures(moved)[name] < 0.05
    assert all(value < 0.05 for value in more_probe_figures(moved).values())


def test_the_error_is_that_of_the_picture(tmp_path: Path) -> None:
    split = write_images(tmp_path / "split", KNOWN, 4, SHAPE)
    runtime = Runtime(TrainConfig())
    rows = test_codes.read_out(Perfect(), split, runtime, None, skip_corrupt=False, seed=0)  # type: ignore[arg-type]
    assert rows["squared_error"].abs().max() == 0.0
    (host,) = one_pass(split, 256)
    images = to_device_batch(host, runtime.device, runtime.dtype).images
    halved = test_codes.read_out(Half(), split, runtime, None, skip_corrupt=False, seed=0)  # type: ignore[arg-type]
    torch.testing.assert_close(halved["squared_error"], (images / 2).square().flatten(1).mean(1))


def test_probes_cannot_know_a_sample_by_its_noise(tmp_path: Path) -> None:
    """Splits that are ordered alike, as two folders of classes may be, have different noise."""
    split = write_images(tmp_path / "split", KNOWN, 12, SHAPE)
    codes = test_codes.read_test_codes(Perfect(), split, split, Runtime(TrainConfig()), skip_corrupt=False)
    noise, other = (rows["zu"] - rows["zu_mean"] for rows in (codes.test, codes.fit))
    torch.testing.assert_close(codes.test["zu_mean"], codes.fit["zu_mean"])
    assert noise.std() > 0.1
    together = torch.corrcoef(torch.stack([noise.flatten(), other.flatten()]))[0, 1]
    assert together.abs() < 0.3


def test_swaps_follow_the_code_that_the_decoder_looks_at(tmp_path: Path) -> None:
    """Of ``Perfect`` the picture is zs, whatever zu; the judge knows every picture."""
    split = write_images(tmp_path / "split", KNOWN, 12, SHAPE)
    runtime = Runtime(TrainConfig())
    inputs = EvaluationInputs(EvaluationConfig(), DataConfig(train="x"), split, split, runtime)
    (host,) = one_pass(split, 256)
    known = to_device_batch(host, runtime.device, runtime.dtype)

    class KnowsAll(torch.nn.Module):
        def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
            pixels = rgb[:, 0].flatten(1)
            nearest = torch.cdist(pixels, known.images.flatten(1)).argmin(1)
            return torch.nn.functional.one_hot(known.labels[nearest], len(KNOWN)).float(), pixels

    scores = SwapScores(inputs, Judge("knows all", "0" * 64, len(KNOWN), SHAPE.num_values, KnowsAll()))
    figures = scores(Candidate(Perfect(), inputs, Progress())).figures  # type: ignore[arg-type]
    assert figures == {"swap_follows_zs": 1.0, "swap_follows_zu": 0.0}


def test_real_images_are_those_of_the_split_that_is_asked_for(tmp_path: Path) -> None:
    train = write_images(tmp_path / "train", KNOWN, 30, ImageShape(1, 4, 4))
    test = write_images(tmp_path / "test", KNOWN, 10, ImageShape(1, 4, 4))

    def inputs(**settings: object) -> EvaluationInputs:
        config = EvaluationConfig(samples_per_class=20, **settings)  # type: ignore[arg-type]
        return EvaluationInputs(config, DataConfig(train="x"), train, test, Runtime(TrainConfig()))

    assert inputs().real is test
    assert inputs(real_split="train").real is train
    assert inputs().num_real == 30  # all that there are, though 60 are drawn
    assert inputs(real_split="train").num_real == inputs().num_samples == 60
    assert inputs(real_split="train", real_samples=7).num_real == 7
