"""The moving average: its weights in closed form, its pace in updates, what it follows, and a resume."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dist_dsvae.config import ExperimentConfig, TrainConfig
from dist_dsvae.config.reading import ConfigError, differing_keys, from_tree, to_tree
from dist_dsvae.engine.evaluating.evaluate import evaluate_in_training
from dist_dsvae.engine.iteration.ema import ExponentialMovingAverage, Pace, moving_average
from dist_dsvae.methods.update import averaged_networks, put_weights, weights_of
from tests.unit.engine.making import StandInEvaluation, make_inputs, make_iteration
from tests.unit.methods.making import make_method

SAMPLES = 384  # of an iteration: four batches of 96


def one_network() -> tuple[nn.Module, nn.BatchNorm1d]:
    network = nn.BatchNorm1d(1).double()
    return nn.ModuleDict({"network": network}), network


@pytest.mark.parametrize("ramp_up", [0.0, 0.05, 0.5, 1.0])
def test_the_average_is_the_weighted_sum_of_all_weights(ramp_up: float) -> None:
    """x_0, ..., x_n with weights w_i (1 - w_{i+1}) ... (1 - w_n), w as StyleGAN3's training loop has it."""
    method, network = one_network()
    average = ExponentialMovingAverage(method, ("network",), Pace(half_life=7.0, ramp_up=ramp_up))
    generator = torch.Generator().manual_seed(1)
    values = [1.0, *torch.randn(40, generator=generator).tolist()]
    shares = [1.0]
    for iteration, value in enumerate(values[1:]):
        half_life = min(7.0, ramp_up * iteration) if ramp_up else 7.0
        kept = 0.5 ** (1.0 / max(half_life, 1e-8))
        shares = [share * kept for share in shares] + [1.0 - kept]
        with torch.no_grad():
            network.weight.fill_(value)
        average.set_weight(iteration)
        average.update()
        expected = math.fsum(share * x for share, x in zip(shares, values, strict=False))
        # float64: every update rounds numbers of at most about 3 a few times
        assert average.averaged["weight"].item() == pytest.approx(expected, rel=0, abs=1e-13), iteration
    assert math.fsum(shares) == pytest.approx(1.0, abs=1e-12)
    assert (shares[0] == 0) == (ramp_up > 0)


def test_without_a_ramp_half_is_gone_after_the_half_life() -> None:
    method, network = one_network()
    average = ExponentialMovingAverage(method, ("network",), Pace(half_life=10.0, ramp_up=0.0))
    with torch.no_grad():
        network.weight.fill_(3.0)
        network.running_mean.fill_(7.0)  # type: ignore[union-attr]
        network.num_batches_tracked.fill_(5)  # type: ignore[union-attr]
    for iteration in range(20):
        average.set_weight(iteration)
        average.update()
        if iteration == 9:
            assert average.averaged["weight"].item() == pytest.approx(2.0)
    assert average.averaged["weight"].item() == pytest.approx(2.5)
    assert average.averaged["running_mean"].item() == 7.0
    assert average.averaged["num_batches_tracked"].item() == 5
    network.eval()
    x = torch.tensor([[7.0 + 1.0]]).double()
    with average.applied():
        assert network(x).item() == pytest.approx(2.5, rel=1e-4)
    assert network(x).item() == pytest.approx(3.0, rel=1e-4)


def test_the_ramp_bounds_the_half_life_by_its_share_of_the_updates() -> None:
    pace = Pace(half_life=100.0, ramp_up=0.05)
    assert pace.weight(0) == 1.0
    assert pace.weight(200) == pytest.approx(1 - 0.5 ** (1 / 10))  # 5 % of 200
    assert pace.weight(2000) == pace.weight(10**9) == pytest.approx(1 - 0.5 ** (1 / 100))


def test_a_half_life_counts_updates_of_the_decoder_whatever_a_method_draws() -> None:
    train = TrainConfig(ema_half_life_updates=30.0, ema_ramp_up=0.0)
    for settings, updates in (
        ({}, 1),
        ({"unlabelled_updates": 2}, 3),
        ({"gm_updates": 1, "joint_updates": 2}, 2),
    ):
        average = moving_average(make_method("small32", **settings), train, SAMPLES)
        assert average is not None
        kept = 1 - average.pace.weight(0)
        assert kept ** (30 / updates) == pytest.approx(0.5, rel=1e-12), settings
    assert moving_average(make_method("small32"), TrainConfig(), SAMPLES) is None


def test_updates_that_no_step_makes_get_a_sentence() -> None:
    method = make_method("small32", joint_updates=0)
    with pytest.raises(
        ValueError, match=r"updates of decoder, and no update .* \(its updates: gm\). Set it to 0"
    ):
        moving_average(method, TrainConfig(ema_half_life_updates=5.0), SAMPLES)


@pytest.mark.parametrize("fit", ["gradient", "moments"])
def test_all_networks_that_a_trained_method_needs(fit: str) -> None:
    """The mixture among them, however it learns: averaged encoders' codes lie where it was meanwhile."""
    method = make_method("small32", mixture_fit=fit)
    everything = averaged_networks(method, TrainConfig(ema_networks="all"))
    assert everything == ("encoder_s", "encoder_u", "decoder", "mixture_prior")
    average = ExponentialMovingAverage(method, everything, Pace(half_life=1.0, ramp_up=0.0))
    expected = {name: t for name, t in method.state_dict().items() if name.partition(".")[0] in everything}
    assert average.averaged.keys() == expected.keys()
    before = {name: t.clone() for name, t in expected.items()}
    with torch.no_grad():
        for parameter in method.parameters():
            parameter += 1.0
    average.update()
    moved = {name for name, _ in method.named_parameters()} & expected.keys()
    assert {"mixture_prior.mean", "mixture_prior.log_variance"} <= moved
    for name in moved:
        torch.testing.assert_close(average.averaged[name], before[name] + 0.5)
    own = {name: t.clone() for name, t in method.state_dict().items()}
    with average.applied():
        for name in moved:
            assert torch.equal(method.state_dict()[name], average.averaged[name])
        assert torch.equal(method.discriminator.layers[0].bias, own["discriminator.layers.0.bias"])
    assert all(torch.equal(t, own[name]) for name, t in method.state_dict().items())


def test_the_average_of_the_decoder_keeps_its_names_in_checkpoints() -> None:
    method = make_method("small32")
    decoder = averaged_networks(method, TrainConfig())
    weights = weights_of(method, decoder)
    assert weights.keys() == method.decoder.state_dict().keys()
    put_weights(method, decoder, {name: torch.full_like(t, 2) for name, t in weights.items()})
    assert all(bool((t == 2).all()) for t in method.decoder.state_dict().values())


@pytest.mark.parametrize("averaged", [("decoder",), ("encoder_s", "decoder", "mixture_prior")])
def test_a_resumed_average_equals_one_that_was_never_interrupted(averaged: tuple[str, ...]) -> None:
    """Bit for bit, with a ramp: the weight needs no state but the number of iterations."""
    whole, first, second = (make_iteration(averaged=averaged, architecture="mlp2d") for _ in range(3))
    for number in range(6):
        if number == 3:
            for new, old in zip(second.state(), first.state(), strict=True):
                new.detach().copy_(old)
        inputs = make_inputs(whole, first=24 * number, architecture="mlp2d")
        for iteration in (whole, first if number < 3 else second):
            iteration.set_rates(float(number), number)
            iteration(*inputs)
    assert whole.ema is not None
    assert second.ema is not None
    assert second.ema.averaged.keys() == whole.ema.averaged.keys()
    for name, tensor in whole.ema.averaged.items():
        assert torch.equal(second.ema.averaged[name], tensor), name
    live = weights_of(whole.method, averaged)
    assert any(not torch.equal(tensor, live[name]) for name, tensor in whole.ema.averaged.items())


@pytest.mark.parametrize(("weights", "scored"), [("auto", "ema"), ("ema", "ema"), ("raw", "raw")])
def test_an_evaluation_in_training_scores_the_average(tmp_path: Path, weights: str, scored: str) -> None:
    method = make_method("mlp2d")
    ema = ExponentialMovingAverage(method, ("decoder",), Pace(half_life=4.0, ramp_up=0.0))
    weight = next(method.decoder.parameters())
    with torch.no_grad():
        weight.fill_(1.0)
        for tensor in ema.averaged.values():
            tensor.fill_(3.0)
    run = SimpleNamespace(method=SimpleNamespace(name="dsvae"), seed=0)
    moment = ("step-00000001", 1, 0.0)
    evaluation = StandInEvaluation(lambda _: {"weight": weight.flatten()[0].item()}, weights)
    figures = evaluate_in_training(tmp_path, evaluation, method, ema, run, moment)  # type: ignore[arg-type]
    assert figures == {"weight": {"ema": 3.0, "raw": 1.0}[scored]}
    assert weight.flatten()[0] == 1.0  # as before
    written = json.loads((tmp_path / "evaluation/step-00000001.json").read_text())
    assert (written["weights"], written["figures"]) == (scored, figures)


# The key of older runs


def test_a_half_life_in_samples_is_honoured_as_before(caplog: pytest.LogCaptureFixture) -> None:
    method, train = make_method("small32"), TrainConfig(ema_half_life_samples=20_000.0)
    with caplog.at_level(logging.WARNING):
        average = moving_average(method, train, SAMPLES)
    assert average is not None
    for iteration in (0, 1, 1000):
        assert average.pace.weight(iteration) == pytest.approx(1 - 0.5 ** (SAMPLES / 20_000), rel=1e-12)
    (record,) = caplog.records
    assert "ema_half_life_samples is deprecated" in record.message
    assert "train.ema_half_life_updates=52.1 is the same half-life" in record.message


def test_two_half_lives_get_a_sentence() -> None:
    tree = {"ema_half_life_samples": 20000, "ema_half_life_updates": 100}
    with pytest.raises(ConfigError, match=r"updates \(100\) .*samples \(20000\) are both given.* Leave out"):
        from_tree(TrainConfig, tree)


def test_records_of_older_runs_are_read_as_they_were_meant() -> None:
    tree = {"data": {"train": "x"}, "model": {"architecture": "small32"}}
    new = from_tree(ExperimentConfig, tree)
    off = from_tree(ExperimentConfig, tree | {"train": {"ema_half_life_samples": 0.0}})
    assert differing_keys(off, new) == []
    assert not off.train.averages
    on = from_tree(ExperimentConfig, tree | {"train": {"ema_half_life_samples": 50.0}})
    assert on.train.averages
    assert from_tree(ExperimentConfig, to_tree(on)) == on  # as a run of today records it
