"""Inception-ResNet-v1: facenet-pytorch's names and, where that package is installed, its very numbers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from dist_dsvae.models.classifiers.inception_resnet_v1 import InceptionResNetV1

# names per part of the network: 6 to a convolution with batch norm, 2 to the one that closes a block
NAMES_PER_PART = {
    **dict.fromkeys(("conv2d_1a", "conv2d_2a", "conv2d_2b", "conv2d_3b", "conv2d_4a", "conv2d_4b"), 6),
    "repeat_1": 5 * (6 * 6 + 2),
    "mixed_6a": 4 * 6,
    "repeat_2": 10 * (4 * 6 + 2),
    "mixed_7a": 7 * 6,
    "repeat_3": 5 * (4 * 6 + 2),
    "block8": 4 * 6 + 2,
    "last_linear": 1,
    "last_bn": 5,
}
SOME_SHAPES = {
    "conv2d_1a.conv.weight": (32, 3, 3, 3),
    "conv2d_4b.bn.running_var": (256,),
    "repeat_1.4.branch0.conv.weight": (32, 256, 1, 1),
    "repeat_1.0.branch2.2.conv.weight": (32, 32, 3, 3),
    "repeat_1.0.conv2d.bias": (256,),
    "mixed_6a.branch0.conv.weight": (384, 256, 3, 3),
    "mixed_6a.branch1.2.bn.weight": (256,),
    "repeat_2.9.branch1.1.conv.weight": (128, 128, 1, 7),
    "repeat_2.9.conv2d.weight": (896, 256, 1, 1),
    "mixed_7a.branch1.1.conv.weight": (256, 256, 3, 3),
    "mixed_7a.branch2.2.conv.weight": (256, 256, 3, 3),
    "repeat_3.4.branch1.2.conv.weight": (192, 192, 3, 1),
    "block8.conv2d.weight": (1792, 384, 1, 1),
    "last_linear.weight": (512, 1792),
    "last_bn.num_batches_tracked": (),
}


def randomised(network: torch.nn.Module) -> None:
    """Batch norms that are not the identity, so that a misplaced one shows."""
    for name, value in network.state_dict().items():
        if name.endswith(("running_mean", "bn.bias")):
            value.normal_(std=0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.1, 0.5)


def peer(**options: Any) -> torch.nn.Module:
    try:
        from facenet_pytorch import InceptionResnetV1
    except ImportError:
        pytest.skip("facenet-pytorch is not installed (it pins an old torch)")
    network: torch.nn.Module = InceptionResnetV1(**options).eval()
    return network


def test_names_and_shapes() -> None:
    with torch.device("meta"):
        state = InceptionResNetV1().state_dict()
        with_classes = InceptionResNetV1(7).state_dict()
    assert Counter(name.split(".")[0] for name in state) == NAMES_PER_PART
    assert {name: tuple(state[name].shape) for name in SOME_SHAPES} == SOME_SHAPES
    assert set(with_classes) - set(state) == {"logits.weight", "logits.bias"}


def test_same_numbers_as_facenet_pytorch() -> None:
    theirs = peer(classify=True, num_classes=7)
    randomised(theirs)
    ours = InceptionResNetV1(7).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    faces = torch.rand(2, 3, 96, 80) * 2 - 1
    with torch.no_grad():
        logits, embedding = ours(faces)
        torch.testing.assert_close(logits, theirs(faces))
        theirs.classify = False  # type: ignore[assignment]
        torch.testing.assert_close(embedding, theirs(faces))


def test_embeddings_have_length_one_and_logits_are_optional() -> None:
    network = InceptionResNetV1().eval()
    with torch.no_grad():
        logits, embedding = network(torch.rand(2, 3, 75, 75) * 2 - 1)
    assert logits is None
    assert embedding.shape == (2, 512)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))


def test_every_parameter_can_be_trained() -> None:
    network = InceptionResNetV1(3)
    logits, _ = network(torch.rand(4, 3, 75, 75) * 2 - 1)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_wrong_numbers_get_a_sentence() -> None:
    with pytest.raises(ValueError, match="num_classes of an InceptionResNetV1 is 0; it must be 1 or more"):
        InceptionResNetV1(0)
