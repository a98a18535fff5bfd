"""The up-sampling convolution against the two operations that it stands for."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dist_dsvae.models.blocks import UpConv2d


def plain(features: Tensor, layer: UpConv2d) -> Tensor:
    return F.conv2d(F.interpolate(features, scale_factor=2, mode="nearest"), layer.weight, padding=1)


def test_one_convolution_is_up_sampling_and_a_3x3_one() -> None:
    """Outputs, and gradients by inputs and weights, borders included; float64."""
    layer = UpConv2d(3, 5).double()
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
