"""Statistics of batch norm do not depend on the number of ranks, nor those that are saved on which rank."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dist_dsvae.config import CVAEConfig, DSVAEConfig, EvaluationConfig, MethodConfig
from dist_dsvae.core import distributed
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.engine.evaluating import code_scores
from dist_dsvae.engine.evaluating.evaluate import evaluate_in_training
from dist_dsvae.engine.iteration.batch_norm import convert_sync_batch_norm
from dist_dsvae.engine.iteration.ema import ExponentialMovingAverage, Pace
from dist_dsvae.engine.reporting.telemetry import LossMeter
from dist_dsvae.engine.run_state import RunState
from dist_dsvae.models.norm_statistics import Moments, batch_norms
from dist_dsvae.runs import checkpoint
from dist_dsvae.runs import measure_statistics as engine_statistics
from dist_dsvae.runs.measure_statistics import Measured, measure
from dist_dsvae.sampling import statistics_codes as sampling_statistics
from tests.forking import on_ranks
from tests.unit.engine.making import StandInEvaluation, write_images
from tests.unit.methods.making import SHAPES, make_any


def two_measure_what_one_does(
    rank: int, world_size: int, split: str, config: MethodConfig, read: int
) -> None:
    sampling_statistics.BATCH_SIZE = 16  # of 48 pictures and codes: three batches, two of them rank 0's
    engine_statistics.BATCH_SIZE = read
    method = convert_sync_batch_norm(make_any(config)).eval()
    manifest = Manifest.load(split)
    together = measure(method, manifest, skip_corrupt=False, num_codes=48)
    digests = distributed.gather_objects([moments.mean.sum().item() for moments in every(together)])
    assert digests[0] == digests[1]
    if rank == 1:  # nothing collective in it
        return
    alone = measure(make_any(config).eval(), manifest, skip_corrupt=False, num_codes=48, alone=True)
    assert together.decoder.keys() == alone.decoder.keys() == {"images", "prior"}
    assert together.encoders.keys() == alone.encoders.keys() >= {"encoder_u"}
    for ours, theirs in zip(every(together), every(alone), strict=True):
        torch.testing.assert_close(ours.mean, theirs.mean, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(ours.variance, theirs.variance, rtol=1e-9, atol=1e-11)


def every(measured: Measured) -> list[Moments]:
    groups = [*measured.decoder.values(), *measured.encoders.values()]
    return [moments for statistics in groups for moments in statistics]


@pytest.mark.parametrize("read", [16, 128], ids=["all-read", "one-reads"])
@pytest.mark.parametrize("config", [DSVAEConfig(), CVAEConfig()], ids=lambda c: c.name)
def test_two_ranks_measure_what_one_does(tmp_path: Path, config: MethodConfig, read: int) -> None:
    split = write_images(tmp_path / "split", ("a", "b", "c", "d", "e"), 12, SHAPES["small32"])
    on_ranks(2, two_measure_what_one_does, str(split.directory), config, read)


def what_leaves_a_rank_is_the_mean(rank: int, world_size: int, folder: Path) -> None:
    method = make_any(CVAEConfig())
    ema = ExponentialMovingAverage(method, ("decoder",), Pace(half_life=4.0, ramp_up=0.0))
    meter = LossMeter(method.updates, torch.device("cpu"))
    with torch.no_grad():
        for norm in batch_norms(method):
            norm.running_mean.fill_(1.0 + rank)
            norm.running_var.fill_(3.0 + 4.0 * rank)
            norm.num_batches_tracked.fill_(7)
    ema.restart()
    own = {name: tensor.clone() for name, tensor in method.state_dict().items()}

    code_scores.read_test_codes = lambda method, *_, **__: statistics(method.state_dict())
    code_scores.code_figures = lambda codes: codes
    settings = EvaluationConfig(batch_norm="running")
    inputs = dict.fromkeys(("train", "test", "runtime", "skip_corrupt"))
    found, weights = code_scores.final_figures(method, ema, SimpleNamespace(config=settings, **inputs))
    assert_means(found)
    assert weights == "ema"
    scored = StandInEvaluation(lambda method: statistics(method.state_dict()))
    assert_means(evaluate_in_training(folder, scored, method, ema, RUN, ("step-00000001", 0, 0.0)))
    assert all(torch.equal(tensor, own[name]) for name, tensor in method.state_dict().items())

    state = RunState(method, {}, ema, meter, None, data_fingerprint="")
    saved = checkpoint.save(folder, 1, *state.snapshot(), keep=1)
    assert all(torch.equal(tensor, own[name]) for name, tensor in method.state_dict().items())
    state.load(saved)
    assert_means(statistics(method.state_dict()))
    assert_means(statistics(ema.averaged))
    for name, tensor in method.state_dict().items():
        assert "running" in name or torch.equal(tensor, own[name]), name


def statistics(tensors: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: tensor.mean().item() for name, tensor in tensors.items() if "running" in name}


def assert_means(found: dict[str, float]) -> None:
    assert len(found) >= 4
    for name, value in found.items():
        assert value == (1.5 if name.endswith("running_mean") else 5.0), name


RUN = SimpleNamespace(method=SimpleNamespace(name="cvae"), seed=0)


def test_statistics_of_each_rank_are_saved_and_scored_as_their_mean(tmp_path: Path) -> None:
    """A checkpoint has each tensor from one rank, and the ranks share out what is scored."""
    on_ranks(2, what_leaves_a_rank_is_the_mean, tmp_path)
