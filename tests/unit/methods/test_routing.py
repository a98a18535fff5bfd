"""The routing tools against what they replace: separate passes with things detached."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from dist_dsvae.methods.routing import Pass, Route, joint_passes, scale_gradient, shared_pass


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).double()


def gradients(net: nn.Module, x: Tensor, loss: Tensor) -> list[Tensor | None]:
    return list(torch.autograd.grad(loss, [x, *net.parameters()], allow_unused=True))


@pytest.mark.parametrize("routes", [(Route.BOTH, Route.PARAMETERS), (Route.PARAMETERS, Route.INPUTS)])
def test_one_pass_equals_two(routes: tuple[Route, Route]) -> None:
    net = network()
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)

    def pass_along(route: Route) -> Tensor:
        parameters = dict(net.named_parameters())
        if Route.PARAMETERS not in route:
            parameters = {name: p.detach() for name, p in parameters.items()}
        return functional_call(net, parameters, (x if Route.INPUTS in route else x.detach(),))

    def loss(first: Tensor, second: Tensor) -> Tensor:
        return first.sin().sum() + (second**3).sum()

    expected = gradients(net, x, loss(*(pass_along(route) for route in routes)))
    got = gradients(net, x, loss(*shared_pass(net, [x], routes)))
    for a, b in zip(got, expected, strict=True):
        assert a is not None
        assert b is not None
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_several_passes_at_once_equal_them_one_by_one() -> None:
    """Outputs, gradients and batch-norm statistics; the second pass may be left without a gradient."""
    for used in (2, 1):
        joint, single = network(), network()
        x, y = (torch.randn(5, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
        routes = [Route.BOTH, Route.PARAMETERS]
        got = joint_passes(joint, [Pass([x], routes), Pass([y], routes)])
        expected = [shared_pass(single, [x], routes), shared_pass(single, [y], routes)]
        losses = [
            sum((a.sin().sum() + (b**3).sum() for a, b in outputs[:used]), torch.zeros(()))
            for outputs in (got, expected)
        ]
        for net, loss, others in ((joint, losses[0], single), (single, losses[1], joint)):
            torch.testing.assert_close(net[1].running_mean, others[1].running_mean)
            net.found = gradients(net, x, loss)  # type: ignore[assignment]
        for a, b in zip(joint.found, single.found, strict=True):  # type: ignore[call-overload]
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_running_statistics_move_once() -> None:
    net, once = network(), network()
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    first, second = shared_pass(net, [x], [Route.BOTH, Route.PARAMETERS])
    assert torch.equal(first, second)
    (first + second).sum().backward()
    once(x)
    assert torch.equal(net[1].running_mean, once[1].running_mean)
    assert net[1].num_batches_tracked == 1


def test_rowwise_equals_two_backward_passes() -> None:
    """The logistic losses: each row's two gradients differ by a factor only."""
    torch.manual_seed(2)
    net = nn.Sequential(nn.Linear(3, 8), nn.LeakyReLU(0.1), nn.Linear(8, 1), nn.Flatten(0)).double()
    x = (4 * torch.randn(7, 3, dtype=torch.float64)).requires_grad_()

    def loss(learned: Tensor, judged: Tensor) -> Tensor:
        real, fake = learned[:3], learned[3:]
        return (
            nn.functional.softplus(-real).mean()
            + nn.functional.softplus(fake).mean()
            + (nn.functional.softplus(-judged[3:]).mean())
        )

    routes = [Route.PARAMETERS, Route.INPUTS]
    expected = gradients(net, x, loss(*shared_pass(net, [x], routes)))
    got = gradients(net, x, loss(*shared_pass(net, [x], routes, rowwise=True)))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
    assert not got[0][:3].any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("score", [-30.0, -80.0, -95.0, -120.0, 120.0])
def test_rowwise_survives_a_discriminator_that_wins(score: float, dtype: torch.dtype) -> None:
    """At such scores the two logistic gradients of a row differ by up to e^120."""
    net = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)).to(dtype)
    with torch.no_grad():
        net[0].bias.fill_(score)
    x = torch.randn(4, 3, dtype=dtype, requires_grad=True)

    def loss(learned: Tensor, judged: Tensor) -> Tensor:
        return nn.functional.softplus(learned).mean() + nn.functional.softplus(-judged).mean()

    routes = [Route.PARAMETERS, Route.INPUTS]
    expected = gradients(net, x, loss(*shared_pass(net, [x], routes)))
    got = gradients(net, x, loss(*shared_pass(net, [x], routes, rowwise=True)))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-11)
    assert got[0].abs().max() > 0 or score > 100


def test_an_unused_output_costs_no_gradient() -> None:
    net = network()
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    _, judged = shared_pass(net, [x], [Route.PARAMETERS, Route.INPUTS])
    judged.sum().backward()
    assert x.grad is not None
    assert all(p.grad is None for p in net.parameters())


def test_inputs_without_gradient() -> None:
    net = network()
    learned, _ = shared_pass(net, [torch.randn(5, 3).double()], [Route.PARAMETERS, Route.INPUTS])
    learned.sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_without_grad_mode() -> None:
    net = network().eval()
    x = torch.randn(2, 3, dtype=torch.float64)
    with torch.no_grad():
        a, b = shared_pass(net, [x], [Route.BOTH, Route.PARAMETERS])
    assert a is b
    assert torch.equal(a, net(x))


def test_a_second_backward_is_refused() -> None:
    net = copy.deepcopy(network())
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    out, _ = shared_pass(net, [x], [Route.BOTH, Route.PARAMETERS])
    loss = out.sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second"):
        loss.backward()


def test_scale_gradient() -> None:
    x = torch.tensor([2.0, -3.0], requires_grad=True)
    y = scale_gradient(x, 0.25)
    assert torch.equal(x, y)
    (y**2).sum().backward()
    assert torch.equal(x.grad, 0.25 * 2 * x.detach())
    assert scale_gradient(x, 1.0) is x
