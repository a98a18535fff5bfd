"""Weights cast together, against autocast casting each by itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dist_dsvae.models.blocks import UpConv2d
from dist_dsvae.models.casting import FullPrecisionLinear, JointCasts

HALF = torch.bfloat16


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), UpConv2d(4, 3), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(48, 5), FullPrecisionLinear(5, 3))


def run(net: nn.Module, x: Tensor, casts: JointCasts | None) -> list[Tensor]:
    """The output, and the gradients by all parameters."""
    parameters = list(net.parameters())
    if casts is None:
        with torch.autocast("cpu", HALF):
            output = net(x)
    else:
        with casts(HALF), torch.autocast("cpu", HALF):
            output = net(x)
    return [output, *torch.autograd.grad(output.float().sin().sum(), parameters)]


@pytest.mark.parametrize("jointly", [True, False])
def test_outputs_and_gradients_are_those_of_autocast(jointly: bool) -> None:
    net, x = network(), torch.randn(4, 2, 4, 4)
    casts = JointCasts([net[:3], net[3:]], jointly=jointly)
    for got, expected in zip(run(net, x, casts), run(net, x, None), strict=True):
        assert got.dtype == torch.float32
        assert torch.equal(got, expected)


def test_only_what_autocast_casts_is_cast_and_all_of_it_comes_back() -> None:
    net = network()
    before = dict(net.named_parameters())
    with JointCasts([net], jointly=True)(HALF):
        inside = {name: parameter.dtype for name, parameter in net.named_parameters()}
    cast = {"0.weight", "0.bias", "5.weight", "5.bias"}
    assert {name for name, dtype in inside.items() if dtype == HALF} == cast
    with pytest.raises(KeyError, match="inside"), JointCasts([net], jointly=True)(HALF):
        raise KeyError("inside")
    assert all(parameter is before[name] for name, parameter in net.named_parameters())


def test_without_autocast_nothing_changes() -> None:
    net = network()
    before = list(net.parameters())
    with JointCasts([net], jointly=True)(None):
        assert all(now is then for now, then in zip(net.parameters(), before, strict=True))
