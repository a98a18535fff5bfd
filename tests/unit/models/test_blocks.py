"""Resampling convolutions against the two operations that each of them stands for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dist_dsvae.models.blocks import DownConv2d, UpConv2d


def up(features: Tensor, layer: nn.Conv2d) -> Tensor:
    return F.conv2d(F.interpolate(features, scale_factor=2, mode="nearest"), layer.weight, padding=1)


def down(features: Tensor, layer: nn.Conv2d) -> Tensor:
    return F.avg_pool2d(F.conv2d(features, layer.weight, layer.bias, padding=1), 2)


@pytest.mark.parametrize(("layer", "plain"), [(UpConv2d(3, 5), up), (DownConv2d(3, 5), down)])
def test_one_convolution_is_resampling_and_a_3x3_one(
    layer: nn.Conv2d, plain: Callable[[Tensor, nn.Conv2d], Tensor]
) -> None:
    """Outputs, and gradients by inputs and weights, borders included; float64."""
    layer = layer.double()
    features = torch.randn(2, 3, 6, 8, dtype=torch.float64, requires_grad=True)
    ours, theirs = layer(features), plain(features, layer)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    direction = torch.randn_like(ours)
    targets = [features, *layer.parameters()]
    for got, expected in zip(
        torch.autograd.grad(ours, targets, direction),
        torch.autograd.grad(theirs, targets, direction),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_a_flat_feature_map_stays_flat() -> None:
    """What a transposed convolution does not do: inside the border there is no checkerboard."""
    painted = UpConv2d(3, 5)(torch.ones(1, 3, 8, 8))[:, :, 1:-1, 1:-1]
    torch.testing.assert_close(painted, painted[:, :, :1, :1].expand_as(painted), rtol=0, atol=1e-5)
