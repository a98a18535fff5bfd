"""Schedules, conditional updates, clipping, averaging: pure functions of the samples seen."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from dist_dsvae.config import OptimizerConfig
from dist_dsvae.engine.iteration.guard import Guard, NonFiniteLossError, raise_if_weights_are_bad
from dist_dsvae.engine.iteration.optimizer import (
    UpdateOptimizer,
    learning_rate,
    learning_rates,
    variance_rate,
)
from dist_dsvae.methods.update import Reduction, Update, parameter_groups
from tests.unit.engine.making import make_iteration
from tests.unit.methods.making import make_method

ZERO = torch.zeros(())


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("paper", {0.0: 5e-4, 1.999: 5e-4, 2.0: 5e-6, 50.0: 5e-6}),
        ("reference", {0.0: 5e-4, 9.99: 5e-4, 10.0: 5e-5, 25.0: 5e-6}),
        ("constant", {0.0: 5e-4, 50.0: 5e-4}),
    ],
)
def test_variance_schedules(schedule: str, expected: dict[float, float]) -> None:
    config = OptimizerConfig(variance_schedule=schedule)
    for epoch, rate in expected.items():
        assert variance_rate(config, epoch) == pytest.approx(rate)


def test_rates_fall_to_nothing_along_half_a_cosine() -> None:
    config = OptimizerConfig(learning_rate=1e-3, variance_learning_rate=1e-2, decay_epochs=4.0)
    share = {0.0: 1.0, 1.0: 0.5 + math.sqrt(0.125), 2.0: 0.5, 4.0: 0.0, 5.0: 0.0, 9.0: 0.0}
    for epoch, of_all in share.items():
        variances = 1e-2 * (0.01 if epoch >= 2 else 1.0)  # "paper"
        assert learning_rate(config, epoch, variances=False) == pytest.approx(1e-3 * of_all, abs=1e-12)
        assert learning_rate(config, epoch, variances=True) == pytest.approx(variances * of_all, abs=1e-12)
    assert learning_rate(OptimizerConfig(), 1e6, variances=False) == 5e-4


def test_an_iteration_moves_every_rate_to_its_epoch() -> None:
    config = OptimizerConfig(decay_epochs=8.0)
    iteration = make_iteration(config, architecture="mlp2d")
    iteration.set_rates(3.0, 7)
    rates = {
        group["name"]: group["lr"].item()
        for optimizer in iteration.optimizers.values()
        for group in optimizer.adam.param_groups
    }
    assert rates == {
        name: pytest.approx(learning_rate(config, 3.0, variances=name == "variances"))
        for name in ("weights", "variances")
    }


@pytest.mark.parametrize(
    ("fit", "groups"),
    [("gradient", {"weights", "variances"}), ("moments", {"weights"}), ("fixed", {"weights"})],
)
def test_variances_have_a_rate_where_an_optimiser_trains_them(fit: str, groups: set[str]) -> None:
    method = make_method(mixture_fit=fit)
    assert learning_rates(OptimizerConfig(), 0.0, method.updates).keys() == groups
    assert {group for update in method.updates for group in parameter_groups(method, update)} == groups


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def optimizer_for(net: nn.Module, **settings: float) -> UpdateOptimizer:
    groups = {"weights": [("weight", net.weight)], "variances": [("bias", net.bias)]}
    return UpdateOptimizer(OptimizerConfig(**settings), groups)


def test_variances_follow_their_own_rate() -> None:
    """Adam's first step with beta1 = 0 moves every entry by its learning rate."""
    net = network()
    before = copy.deepcopy(net.state_dict())
    optimizer = optimizer_for(net, variance_learning_rate=1e-2)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.set_rates(epoch=3.0)
    optimizer.step(ZERO, scaler=None)
    torch.testing.assert_close(before["weight"] - net.weight, torch.full((2, 3), 5e-4))
    torch.testing.assert_close(before["bias"] - net.bias, torch.full((2,), 1e-4))
    assert net.weight.grad is None


@pytest.mark.parametrize("gradient", [math.nan, 1.0])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_tripped_guard_stops_every_update(gradient: float, scaled: bool) -> None:
    """Also where the gradients of an infinite loss term are finite, and under fp16's scaler."""
    net = network()
    optimizer = optimizer_for(net)
    before = copy.deepcopy(net.state_dict())
    scaler = torch.amp.GradScaler("cpu") if scaled else None
    if scaler is not None:
        scaler.scale(ZERO)  # makes its scale
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, gradient)
    optimizer.step(torch.ones(()), scaler)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    for moments in optimizer.state().values():
        assert all(not m.any() for m in moments.values())


def test_clipping_bounds_the_global_norm() -> None:
    """Two steps, the second clipped: Adam's second moment shows the gradient it was given."""
    net = network()
    optimizer = optimizer_for(net, clip_gradient_norm=1.0)
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    optimizer.step(ZERO, scaler=None)
    squares = sum(state["exp_avg_sq"].sum() for state in optimizer.state().values())
    assert float(squares) == pytest.approx((1 - 0.9) * 1.0, rel=1e-4)


def guard_for(name: str, *terms: str) -> Guard:
    step = Update(name=name, repeats=1, terms=terms, trains=(), reduction=Reduction.FLAT)
    return Guard([step], torch.device("cpu"))


def test_guard_remembers_the_first_failure() -> None:
    guard = guard_for("joint", "kl", "generator")
    for position, value in ((0, 1.0), (96, math.inf), (192, math.nan)):
        values = torch.tensor([math.nan if position > 96 else 1.0, value])
        guard.record(guard.inspect("joint", values, torch.tensor(position)))
    message = r"Loss term joint/generator became infinite or NaN at sample position 96\."
    with pytest.raises(NonFiniteLossError, match=message):
        guard.raise_if_tripped()


def test_guard_is_silent_while_all_is_finite() -> None:
    guard = guard_for("joint", "kl")
    guard.record(guard.inspect("joint", torch.tensor([1e30]), torch.tensor(0)))
    guard.raise_if_tripped()


def test_a_loss_scale_that_is_gone_is_told_before_it_spoils_the_weights() -> None:
    """fp16 leaves out an update whose gradients are not finite, and says nothing."""
    net = network()
    optimizer, scaler = optimizer_for(net), torch.amp.GradScaler("cpu")
    scaler.scale(ZERO)
    guard = Guard([], torch.device("cpu"), loss_scale=scaler._scale)

    def leave_out_an_update() -> None:
        for parameter in net.parameters():
            parameter.grad = torch.full_like(parameter, math.nan)
        optimizer.step(guard.tripped, scaler)
        guard.raise_if_tripped()

    for _ in range(40):  # from 2**16
        leave_out_an_update()
    with pytest.raises(NonFiniteLossError, match="again and again, although every loss was finite"):
        leave_out_an_update()


def test_a_bad_loss_is_named_though_the_loss_scale_fell_after_it() -> None:
    """Every update after it is left out, and halves the scale, until the host looks."""
    net = network()
    optimizer, scaler = optimizer_for(net), torch.amp.GradScaler("cpu")
    scaler.scale(ZERO)
    step = Update(name="joint", repeats=1, terms=("kl",), trains=(), reduction=Reduction.FLAT)
    guard = Guard([step], torch.device("cpu"), loss_scale=scaler._scale)
    guard.record(guard.inspect("joint", torch.tensor([math.inf]), torch.tensor(96)))
    for _ in range(60):
        for parameter in net.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step(guard.tripped, scaler)
    with pytest.raises(NonFiniteLossError, match=r"Loss term joint/kl became .* at sample position 96\."):
        guard.raise_if_tripped()


@pytest.mark.parametrize("name", ["decoder.layers.0.0.weight", "mixture_prior.log_variance"])
def test_a_state_that_is_not_finite_is_not_saved(name: str) -> None:
    """A weight, and a statistic that moves without an optimiser: here the mixture is a buffer."""
    method = make_method("small32", mixture_fit="moments")
    raise_if_weights_are_bad(method, 96)
    with torch.no_grad():
        method.state_dict()[name].view(-1)[0] = math.nan
    with pytest.raises(
        NonFiniteLossError, match=rf"The weights {name} became infinite or NaN before sample 96"
    ):
        raise_if_weights_are_bad(method, 96)
