"""Judges: each network's numbers against its own project's code, on random weights from real files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from dist_dsvae.evaluation.judging.judge import Judge, load_judge
from dist_dsvae.evaluation.judging.scoring_networks import empty_face_network, empty_inception_v3
from dist_dsvae.models.classifiers.inception_resnet_v1 import InceptionResNetV1
from tests.unit.evaluation.weights import random_state

IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file per layout."""
    folder = tmp_path_factory.mktemp("weights")
    networks: dict[str, nn.Module] = {
        "faces.safetensors": empty_face_network(None),
        "inception.safetensors": empty_inception_v3(1000, aux_logits=False),
        "fid.safetensors": empty_inception_v3(1008, aux_logits=False),
    }
    for name, network in networks.items():
        save_file(random_state(network), folder / name)
    return {name.split(".")[0]: folder / name for name in networks}


@pytest.fixture(scope="module")
def faces(files: dict[str, Path]) -> Judge:
    return load_judge(files["faces"], device="cpu")


def random_images(num_images: int, side: int, channels: int = 3) -> Tensor:
    """Blobs in [-1, 1] whose values are those of 8-bit images."""
    coarse = torch.rand(num_images, channels, 4, 4, generator=torch.Generator().manual_seed(1))
    return (F.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1) * 255).round() / 127.5 - 1


def enlarged(images: Tensor, side: int) -> Tensor:
    return F.interpolate(images, (side, side), mode="bilinear", align_corners=False)


def test_what_a_judge_tells(faces: Judge, files: dict[str, Path]) -> None:
    assert faces.name == "facenet:faces"
    assert faces.sha256 == hashlib.sha256(files["faces"].read_bytes()).hexdigest()
    assert (faces.num_classes, faces.num_features) == (None, 512)
    assert not any(module.training for module in faces.network.modules())
    assert not any(parameter.requires_grad for parameter in faces.network.parameters())


def test_faces(faces: Judge, files: dict[str, Path]) -> None:
    """Any size, seen at 160x160 as (x - 127.5) / 128."""
    network = InceptionResNetV1().eval()
    network.load_state_dict(load_file(files["faces"]))
    images = random_images(2, 24)
    pixels = (enlarged(images, 160) + 1) * 127.5
    with torch.no_grad():
        _, embedding = network((pixels - 127.5) / 128)
    scores = faces(images)
    assert scores.logits is None
    assert embedding[0] @ embedding[1] < 0.9999  # two pictures, two places
    torch.testing.assert_close(scores.features, embedding, atol=1e-5, rtol=1e-4)


def test_grey_is_repeated(faces: Judge) -> None:
    grey = random_images(2, 40, channels=1)
    torch.testing.assert_close(faces(grey), faces(grey.repeat(1, 3, 1, 1)))


def test_always_float32(faces: Judge) -> None:
    """Autocast and torch's shortcuts change nothing, and are as before afterwards."""
    images = random_images(1, 80)
    expected = faces(images)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = faces(images)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert scores.features.dtype == torch.float32
    assert torch.equal(scores.features, expected.features)
    assert faces(images.double()).features.dtype == torch.float32


def test_a_face_network_with_a_classifier(files: dict[str, Path], tmp_path: Path) -> None:
    """Its logits come along; half precision and missing counters in the file do not matter."""
    state = load_file(files["faces"]) | {"logits.weight": torch.randn(5, 512), "logits.bias": torch.randn(5)}
    state = {k: v.half() for k, v in state.items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "people.pt")
    judge = load_judge(tmp_path / "people.pt", device="cpu")
    assert judge.num_classes == 5
    logits, features = judge(random_images(2, 160))
    assert logits is not None
    assert logits.shape == (2, 5)
    assert logits.dtype == features.dtype == torch.float32


def test_inception_as_torchvision_runs_its_own_weights(files: dict[str, Path]) -> None:
    """torchvision normalises images and undoes that in the network; judges leave both out."""
    state = load_file(files["inception"])
    peer = empty_inception_v3(1000, aux_logits=False).eval()
    peer.load_state_dict(state, assign=True)
    peer.transform_input = True  # type: ignore[assignment]
    images = random_images(2, 32)
    normalised = ((enlarged(images, 299) + 1) / 2 - IMAGENET_MEAN) / IMAGENET_STD
    with torch.no_grad():
        expected = peer(normalised)
    judge = load_judge(files["inception"], device="cpu")
    assert (judge.name, judge.num_classes, judge.num_features) == ("inception-v3:inception", 1000, 2048)
    logits, features = judge(images)
    assert expected.std() > 0.01
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(features @ state["fc.weight"].T + state["fc.bias"], logits)


def test_inception_with_the_pools_of_tensorflow(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = random_images(1, 299)
    judge = load_judge(files["inception"], device="cpu", kind="inception-v3-tf")
    logits, _ = judge(images)
    peer = empty_inception_v3(1000, aux_logits=False).eval()
    peer.load_state_dict(load_file(files["inception"]), assign=True)
    with torch.no_grad():
        padding_counted = peer(images)
    original = F.avg_pool2d

    def without_padding(x: Tensor, **options: Any) -> Tensor:
        return original(x, **options, count_include_pad=False)

    monkeypatch.setattr(torchvision.models.inception.F, "avg_pool2d", without_padding)
    with torch.no_grad():
        expected = peer(images)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    assert (padding_counted - expected).abs().max() > 100 * (logits - expected).abs().max()


def test_inception_with_auxiliary_logits(files: dict[str, Path], tmp_path: Path) -> None:
    """The auxiliary classifier, which only training uses, may be in the file."""
    auxiliary = random_state(empty_inception_v3(1000, aux_logits=True))
    state = {k: v for k, v in auxiliary.items() if k.startswith("AuxLogits.")} | load_file(files["inception"])
    save_file(state, tmp_path / "all.safetensors")
    images = random_images(1, 75)
    scores = load_judge(tmp_path / "all.safetensors", device="cpu")(images)
    torch.testing.assert_close(scores, load_judge(files["inception"], device="cpu")(images))


def test_fid_inception_is_that_of_torch_fidelity(files: dict[str, Path], tmp_path: Path) -> None:
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    torch.save(load_file(files["fid"]), tmp_path / "fid.pth")
    peer = fidelity.FeatureExtractorInceptionV3(
        "peer", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(tmp_path / "fid.pth")
    )
    images = random_images(2, 32)
    pixels = ((images + 1) * 127.5).round().to(torch.uint8)
    with torch.no_grad():
        features, logits = peer(pixels)
    for path in (tmp_path / "fid.pth", files["fid"]):
        judge = load_judge(path, device="cpu")
        assert (judge.name, judge.num_classes, judge.num_features) == ("fid-inception:fid", 1008, 2048)
    scores = judge(images)
    assert scores.logits is not None
    torch.testing.assert_close(scores.features, features, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(scores.logits, logits, atol=1e-5, rtol=1e-4)


class Trunk(nn.Module):
    """Means of the channels, first, as 2048 features."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] != 299 or x.shape[3] != 299:
            raise ValueError("expected 299x299")
        means = x.mean(dim=[2, 3])
        return torch.cat([means, means.new_zeros(x.shape[0], self.num_features - 3)], dim=1)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_torchscript_trunk(tmp_path: Path) -> None:
    path = tmp_path / "trunk.pt"
    torch.jit.script(Trunk(2048)).save(str(path))
    with pytest.raises(ValueError, match=r"is a TorchScript program.*kind='torchscript-trunk'"):
        load_judge(path, device="cpu")
    judge = load_judge(path, device="cpu", kind="torchscript-trunk")
    assert (judge.name, judge.num_classes) == ("torchscript-trunk:trunk", None)
    images = torch.tensor([-1.0, 1.0, 0.2]).view(3, 1, 1, 1).expand(3, 1, 16, 16)
    logits, features = judge(images)
    assert logits is None
    assert features.shape == (3, 2048)
    eight_bit = torch.tensor([0.0, 255, 153]).view(3, 1).expand(3, 3)
    torch.testing.assert_close(features[:, :3], (eight_bit - 128) / 128)
    torch.jit.script(Trunk(64)).save(str(path))
    with pytest.raises(ValueError, match=r"gives \[1, 64\] for one image; .* gives \[1, 2048\]"):
        load_judge(path, device="cpu", kind="torchscript-trunk")
    torch.jit.script(nn.Linear(3, 3)).save(str(path))
    with pytest.raises(ValueError, match=r"cannot be run on an image of 299x299 pixels \(.*shapes.*\)"):
        load_judge(path, device="cpu", kind="torchscript-trunk")


def test_other_images_get_a_sentence(faces: Judge) -> None:
    for images in (torch.rand(3, 8, 8), torch.rand(1, 2, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"judge facenet:faces got a tensor .* with 1 or 3 channels"):
            faces(images)
