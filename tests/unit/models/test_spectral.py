"""Spectral norms of a network's weights at once, against torch's own parametrisation of each; float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as torch_spectral_norm

from dist_dsvae.models.spectral import normalised_together, spectral_norm


def networks(memory_format: torch.memory_format) -> tuple[nn.Module, nn.Module]:
    """Ours and torch's from the same initial weights and vectors."""
    made = []
    for norm in (spectral_norm, torch_spectral_norm):
        torch.manual_seed(0)
        first, second, third = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 4, 1), nn.Linear(64, 2)
        layers = [norm(first.double()), norm(second.double()), nn.Flatten(), norm(third.double())]
        made.append(nn.Sequential(*layers).to(memory_format=memory_format))
    return made[0], made[1]


def gradients(network: nn.Module, loss: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, list(network.parameters()))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_outputs_gradients_and_vectors_are_those_of_torch(memory_format: torch.memory_format) -> None:
    """Over three training forwards, and one in evaluation mode, together and one by one."""
    ours, theirs = networks(memory_format)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=0, atol=1e-12)
    for call in range(4):
        if call == 3:
            ours.eval()
            theirs.eval()
        x = torch.randn(6, 3, 6, 6, dtype=torch.float64)
        if call == 1:
            got = ours(x)  # each layer by itself
        else:
            with normalised_together(ours, "cpu"):
                got = ours(x)
        expected = theirs(x)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
        pairs = zip(gradients(ours, got.sin().sum()), gradients(theirs, expected.sin().sum()), strict=True)
        for ours_by, theirs_by in pairs:
            torch.testing.assert_close(ours_by, theirs_by, rtol=0, atol=1e-12)
        for name, value in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], value, rtol=0, atol=1e-12)


def test_under_autocast_weights_are_rounded_once_and_gradients_are_full() -> None:
    ours, theirs = (network.float() for network in networks(torch.channels_last))
    x = torch.randn(6, 3, 6, 6)
    with torch.autocast("cpu", torch.bfloat16), normalised_together(ours, "cpu"):
        weights = [ours[i].weight for i in (0, 1, 3)]
        got = ours(x)
    assert all(weight.dtype == torch.bfloat16 for weight in weights)
    for i, weight in zip((0, 1, 3), weights, strict=True):
        torch.testing.assert_close(weight.float(), theirs[i].weight, rtol=2**-8, atol=1e-6)
    for gradient in gradients(ours, got.float().sum()):
        assert gradient.dtype == torch.float32
        assert torch.isfinite(gradient).all()
