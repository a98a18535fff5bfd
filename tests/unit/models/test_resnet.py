"""The small residual classifier: shapes, size, and that the trainer's treatment leaves it what it is."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dist_dsvae.engine.iteration.batch_norm import SynchronisedBatchNorm, convert_sync_batch_norm
from dist_dsvae.models.classifiers.resnet import ResNet


@pytest.mark.parametrize(("channels", "width"), [(1, 4), (3, 8)])
def test_features_and_logits(channels: int, width: int) -> None:
    network = ResNet(10, channels=channels, width=width).eval()
    images = torch.rand(5, channels, 32, 32) * 2 - 1
    features = network.features(images)
    assert features.shape == (5, network.num_features) == (5, 4 * width)
    assert features.min() >= 0
    logits = network(images)
    assert logits.shape == (5, 10)
    assert torch.equal(logits, network.head(features))


@pytest.mark.parametrize(("width", "parameters"), [(16, 165_722), (64, 2_628_938)])
def test_number_of_parameters(width: int, parameters: int) -> None:
    with torch.device("meta"):
        network = ResNet(10, width=width)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_synchronised_batch_norm_channels_last_and_autocast() -> None:
    plain, treated = ResNet(4, width=4), ResNet(4, width=4)
    treated.load_state_dict(plain.state_dict())
    treated = convert_sync_batch_norm(treated).to(memory_format=torch.channels_last)
    norms = [m for m in treated.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(norm, SynchronisedBatchNorm) for norm in norms)
    images = torch.rand(6, 3, 32, 32) * 2 - 1
    expected = plain(images)
    images = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(treated(images), expected, atol=1e-4, rtol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = treated(images)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, atol=0.2, rtol=0.1)


def test_it_learns() -> None:
    """Stripes across against stripes along, hidden in noise."""
    torch.manual_seed(0)
    network = ResNet(2, channels=1, width=4)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    across = torch.sin(torch.arange(32) * 1.5).expand(32, 32)
    pattern = torch.stack([across, across.T]).unsqueeze(1)

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.randint(2, (32,))
        return pattern[labels] * 0.3 + torch.randn(32, 1, 32, 32) * 0.3, labels

    for _ in range(20):
        images, labels = batch()
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
    images, labels = batch()
    assert (network(images).argmax(1) == labels).float().mean() > 0.9


def test_wrong_numbers_get_a_sentence() -> None:
    with pytest.raises(ValueError, match="width of a ResNet is 0; it must be 1 or more"):
        ResNet(10, width=0)
