"""Networks against the paper's tables: shapes, and parameter counts worked out from the tables."""

from __future__ import annotations

import contextlib
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from dist_dsvae.config import DSVAEConfig, ModelConfig
from dist_dsvae.core.types import ImageShape
from dist_dsvae.methods.dsvae import DSVAE
from dist_dsvae.models.architectures import ARCHITECTURES, RULES, SIZES, architecture_for
from dist_dsvae.models.blocks import Unflatten
from dist_dsvae.models.discriminator import Discriminator


def conv(cin: int, cout: int, k: int) -> int:
    """A convolution without bias and its batch norm."""
    return cin * cout * k * k + 2 * cout


def biased(cin: int, cout: int, k: int = 1) -> int:
    return cin * cout * k * k + cout


def block(cin: int, cout: int) -> int:
    """A linear layer without bias and its batch norm."""
    return cin * cout + 2 * cout


def vgg_trunk(channels: int) -> int:
    widths = [channels, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    assert len(widths) == 14  # 13 convolutions
    convolutions = sum(conv(a, b, 3) for a, b in pairwise(widths))
    return convolutions + block(2 * 2 * 512, 1024)


def vgg_decoder(code: int) -> int:
    # 512 512 512 / 512 512 256 / 256 256 128 / 128 64 / 64 3: the 13th layer paints, without batch norm
    widths = [512, *[512] * 5, *[256] * 3, *[128] * 2, *[64] * 2]
    convolutions = sum(conv(a, b, 3) for a, b in pairwise(widths))
    return block(code, 1024) + block(1024, 2048) + convolutions + biased(64, 3, 3)


def table3_trunk(late: int) -> int:
    return conv(3, 32, 5) + conv(32, 64, 5) + conv(64, 128, late) + conv(128, 256, late) + block(1024, 1024)


def table3_decoder(code: int) -> int:
    widths = [256, 256, 256, 128, 64, 32]
    ups = sum(conv(a, b, 5) for a, b in pairwise(widths))
    return block(code, 1024) + ups + biased(32, 3, 5)


def discriminator(widths: list[int], ks: list[int], features: int, hidden: int, classes: int) -> int:
    convolutions = sum(biased(a, b, k) for a, b, k in zip(widths, widths[1:], ks, strict=False))
    return convolutions + biased(features, hidden) + biased(hidden, 1) + classes * hidden


EXPECTED = {
    ("vgg64", 530): {
        "encoder_s": vgg_trunk(3) + biased(1024, 512),
        "encoder_u": vgg_trunk(3) + 2 * biased(1024, 512),
        "decoder": vgg_decoder(1024),
        "latent_classifier": biased(512, 256) + biased(256, 530),
        "discriminator": discriminator([3, 64, 128, 256, 256, 512, 512, 512], [3] * 7, 512, 1024, 530),
        "mixture_prior": 2 * 530 * 512,
    },
    ("conv32", 10): {
        "encoder_s": table3_trunk(3) + biased(1024, 100),
        "encoder_u": table3_trunk(3) + 2 * biased(1024, 200),
        "decoder": table3_decoder(300),
        "latent_classifier": biased(200, 256) + biased(256, 10),
        "discriminator": discriminator([3, 32, 128, 256, 256], [5] * 4, 4 * 4 * 256, 512, 10),
        "mixture_prior": 2 * 10 * 100,
    },
    ("conv32-reference", 10): {"encoder_s": table3_trunk(5) + biased(1024, 100)},
    ("mlp2d", 3): {
        "encoder_s": biased(2, 32) + biased(32, 64) + biased(64, 64) + biased(64, 2),
        "encoder_u": biased(2, 32) + biased(32, 64) + biased(64, 64) + biased(64, 4),
        "decoder": biased(4, 64) + biased(64, 64) + biased(64, 32) + biased(32, 2),
        "discriminator": biased(2, 32) + biased(32, 64) + biased(64, 64) + biased(64, 1) + 3 * 64,
    },
}
CODES = {"vgg64": (512, 512), "conv32": (100, 200), "conv32-reference": (100, 200), "mlp2d": (2, 2)}


def build(architecture: str, num_classes: int) -> tuple[DSVAE, ImageShape]:
    size = ARCHITECTURES[architecture].image_size if architecture in ARCHITECTURES else 32
    shape = ImageShape(3, size, size) if size else ImageShape(2, 0, 0)
    zs_dim, zu_dim = CODES.get(architecture, (8, 8))
    model = ModelConfig(architecture=architecture, zs_dim=zs_dim, zu_dim=zu_dim)
    return DSVAE(DSVAEConfig(), model, shape, num_classes), shape


@pytest.mark.parametrize(("architecture", "num_classes"), EXPECTED)
def test_parameter_counts(architecture: str, num_classes: int) -> None:
    method, _ = build(architecture, num_classes)
    for network, expected in EXPECTED[architecture, num_classes].items():
        counted = sum(p.numel() for p in method.get_submodule(network).parameters())
        assert counted == expected, network


@pytest.fixture
def without_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors on the meta device have shapes but no data; torch's autocast does not know the device."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())


def check_shapes(method: DSVAE, shape: ImageShape) -> Tensor:
    """Every network's outputs; returns the decoder's."""
    dims = (2, shape.channels, shape.height, shape.width) if shape.is_image else (2, shape.channels)
    x, y = torch.rand(dims) * 2 - 1, torch.tensor([0, 3])
    zs, posterior = method.encoder_s(x), method.encoder_u(x)
    assert zs.shape == (2, method.zs_dim)
    assert posterior.mean.shape == posterior.log_variance.shape == (2, method.zu_dim)
    images = method.decoder(torch.cat([zs, posterior.mean], 1))
    assert images.shape == x.shape
    assert method.latent_classifier(posterior.mean).shape == (2, 4)
    assert (
        method.discriminator(images, y).shape == method.discriminator.without_labels()(images).shape == (2,)
    )
    return images


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *RULES])
def test_shapes(architecture: str) -> None:
    method, shape = build(architecture, 4)
    images = check_shapes(method, shape)
    assert not shape.is_image or images.abs().max() <= 1


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("architecture", RULES)
@pytest.mark.usefixtures("without_autocast")
def test_rules_take_every_size_and_number_of_channels(architecture: str, size: int, channels: int) -> None:
    shape = ImageShape(channels, size, size)
    with torch.device("meta"):
        method = DSVAE(DSVAEConfig(), ModelConfig(architecture=architecture, zs_dim=8, zu_dim=8), shape, 4)
        check_shapes(method, shape)


@pytest.mark.parametrize(("architecture", "last"), [("vgg", 2), ("small", 4)])
@pytest.mark.parametrize("size", SIZES)
def test_the_last_feature_map_has_one_size(size: int, architecture: str, last: int) -> None:
    """Between convolutions and fully connected layers: vgg 2x2, small 4x4, for any image."""
    with torch.device("meta"):
        method = DSVAE(DSVAEConfig(), ModelConfig(architecture=architecture), ImageShape(3, size, size), 4)
    (begins,) = (layer.shape for layer in method.decoder.layers if isinstance(layer, Unflatten))
    assert begins[1:] == (last, last)
    layers = list(method.encoder_s.trunk.layers)
    (flatten,) = (i for i, layer in enumerate(layers) if isinstance(layer, nn.Flatten))
    channels = [m.out_channels for m in method.encoder_s.modules() if isinstance(m, nn.Conv2d)][-1]
    assert layers[flatten + 1][0].in_features == channels * last**2


def test_feature_map_sizes_follow_the_paper() -> None:
    """VGG: 64 -> 2x2 before the fully connected layers, the last pool an average; Table 3: 32 -> 2x2."""
    sizes = []
    method, _ = build("vgg64", 4)
    for layer in method.encoder_s.trunk.layers:
        layer.register_forward_hook(lambda m, _, out: sizes.append((type(m).__name__, out.shape[-1])))
    method.encoder_s(torch.zeros(2, 3, 64, 64))
    assert [s for name, s in sizes if "Pool" in name] == [32, 16, 8, 4, 2]
    assert [name for name, _ in sizes if "Pool" in name] == ["MaxPool2d"] * 4 + ["AvgPool2d"]


def test_discriminator_normalises_every_weight_and_has_no_batch_norm() -> None:
    for architecture in [*ARCHITECTURES, *RULES]:
        method, _ = build(architecture, 4)
        modules = list(method.discriminator.modules())
        layers = [m for m in modules if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]
        assert all(hasattr(layer, "parametrizations") for layer in layers)
        assert not any(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in modules)


@pytest.mark.parametrize("architecture", ["small", "small32"])
def test_spectral_norm_is_one_after_power_iterations(architecture: str) -> None:
    method, _ = build(architecture, 4)
    x = torch.rand(2, 3, 32, 32)
    for _ in range(60):
        method.discriminator(x, torch.tensor([0, 1]))
    method.eval()
    for name, layer in method.discriminator.named_modules():
        if hasattr(layer, "parametrizations"):
            sigma = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
            assert abs(sigma - 1) < 0.02, (name, sigma)


@pytest.mark.parametrize("architecture", ["small", "small32"])
def test_projection_form(architecture: str) -> None:
    """score = linear(h) + <embed(y), h>: two labels' scores differ by <embed(a) - embed(b), h>."""
    method, _ = build(architecture, 4)
    d = method.discriminator.eval()
    x = torch.rand(1, 3, 32, 32)
    hidden = d.layers(x)
    difference = d(x, torch.tensor([0])) - d(x, torch.tensor([1]))
    expected = ((d.embedding.weight[0] - d.embedding.weight[1]) * hidden[0]).sum()
    torch.testing.assert_close(difference[0], expected)


@pytest.mark.parametrize("architecture", ["small", "mlp2d"])
def test_the_gain_multiplies_every_score(architecture: str) -> None:
    def scores(gain: float) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(0)
        shape = ImageShape(3, 32, 32) if architecture == "small" else ImageShape(2, 0, 0)
        discriminator = Discriminator(architecture_for(architecture, shape), shape, 4, gain).eval()
        images = torch.rand(5, *shape) if shape.is_image else torch.rand(5, 2)
        labels = torch.arange(5) % 4
        return discriminator(images, labels), discriminator.without_labels()(images)

    for plain, strong in zip(scores(1.0), scores(5.0), strict=True):
        torch.testing.assert_close(strong, 5.0 * plain)
        assert plain.std() > 0


@pytest.mark.parametrize(
    ("architecture", "shape", "sentence"),
    [
        ("vgg64", ImageShape(3, 32, 32), "takes 64x64 images, but the shards hold 32x32 images.*conv32"),
        ("conv32", ImageShape(2, 0, 0), "takes 32x32 images, but the shards hold 2-D points.*mlp2d"),
        ("mlp2d", ImageShape(3, 64, 64), "takes 2-D points, but the shards hold 64x64 images.*vgg, small"),
        ("vgg", ImageShape(3, 48, 48), "takes images of 32x32, .* or 256x256.* hold 48x48 images.*: none"),
        ("small", ImageShape(3, 32, 64), "1 to 4 channels, but the shards hold 32x64 images.*: none"),
        ("small", ImageShape(5, 32, 32), "the shards hold 32x32 images with 5 channels.*hold: conv32"),
        ("vgg", ImageShape(2, 0, 0), "but the shards hold 2-D points.*hold: mlp2d"),
        ("small32", ImageShape(3, 32, 48), "but the shards hold 32x48 images"),
    ],
)
def test_shape_that_does_not_fit(architecture: str, shape: ImageShape, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        DSVAE(DSVAEConfig(), ModelConfig(architecture=architecture), shape, 3)
