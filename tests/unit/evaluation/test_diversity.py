"""Intra-class diversity against pytorch_msssim and against a plain transcription of the definition."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dist_dsvae.evaluation import diversity
from dist_dsvae.evaluation.diversity import (
    PairSum,
    mean_diversity,
    pair_sum,
    pairwise_ms_ssim,
    settings_for,
)


def random_images(num_images: int, height: int, width: int | None = None, channels: int = 3) -> Tensor:
    """Variations of one coarse picture under noise of several strengths, clipped to [-1, 1]."""
    generator = torch.Generator().manual_seed(0)
    size = (height, width or height)
    common = torch.randn(1, channels, 5, 5, generator=generator)
    own = torch.randn(num_images, channels, 5, 5, generator=generator)
    noise = torch.randn(num_images, channels, *size, generator=generator)
    strength = torch.linspace(0, 0.2, num_images)[:, None, None, None]
    coarse = F.interpolate(common + 0.5 * own, size=size, mode="bicubic")
    return (0.6 * coarse + strength * noise).clamp(-1, 1)


def on_white(images: Tensor) -> Tensor:
    """The pictures framed in white: there a covariance is the difference of two numbers next to one."""
    height, width = images.shape[2:]
    framed = torch.ones_like(images)
    inner = (..., slice(height // 8, 7 * height // 8), slice(width // 8, 7 * width // 8))
    framed[inner] = images[inner]
    return framed


def pairs(images: Tensor) -> tuple[Tensor, Tensor]:
    first, second = torch.triu_indices(len(images), len(images), 1)
    return images[first], images[second]


def from_0_to_1(images: Tensor) -> Tensor:
    """As pytorch_msssim wants them: a luminance is not negative."""
    return (images + 1) / 2


def by_definition(x: Tensor, y: Tensor) -> Tensor:
    """MS-SSIM of the pairs (x, y) in float64, with the window as an 11x11 sum over shifted images."""
    x, y = from_0_to_1(x.double()), from_0_to_1(y.double())
    taps = [math.exp(-((i - 5) ** 2) / (2 * 1.5**2)) for i in range(11)]
    total = sum(taps)

    def window(z: Tensor) -> Tensor:
        height, width = z.shape[2] - 10, z.shape[3] - 10
        result = torch.zeros(*z.shape[:2], height, width, dtype=z.dtype)
        for i, a in enumerate(taps):
            for j, b in enumerate(taps):
                result += a * b / total**2 * z[:, :, i : i + height, j : j + width]
        return result

    num_scales = math.floor(math.log2(min(x.shape[2:]) / 11)) + 1
    weights = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333][:num_scales]
    c1, c2 = 0.01**2, 0.03**2
    result = torch.ones(x.shape[:2], dtype=torch.float64)
    for scale, weight in enumerate(weights):
        if scale:
            padding = [size % 2 for size in x.shape[2:]]
            x, y = (F.avg_pool2d(z, 2, padding=padding) for z in (x, y))
        mean_x, mean_y = window(x), window(y)
        var_x, var_y = window(x * x) - mean_x**2, window(y * y) - mean_y**2
        term = (2 * (window(x * y) - mean_x * mean_y) + c2) / (var_x + var_y + c2)
        if scale == num_scales - 1:
            term = term * (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
        result *= term.mean((2, 3)).relu() ** (weight / sum(weights))
    return result.mean(1)


@pytest.mark.parametrize("size", [(176, 176), (161, 190)])
@pytest.mark.parametrize("framed", [False, True])
def test_where_pytorch_msssim_applies_it_agrees(size: tuple[int, int], framed: bool) -> None:
    pytorch_msssim = pytest.importorskip("pytorch_msssim")
    images = random_images(6, *size)
    images = on_white(images) if framed else images
    expected = pytorch_msssim.ms_ssim(*pairs(from_0_to_1(images)), data_range=1.0, size_average=False)
    actual = pairwise_ms_ssim(images)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)
    assert expected.max() - expected.min() > 0.1  # or the comparison would say little
    assert pair_sum(images, "cat").diversity == pytest.approx(1 - expected.mean().item(), abs=1e-5)


def test_it_is_three_times_faster_than_pytorch_msssim() -> None:
    """Ten to fifteen times; in this process's own time, which other programs take nothing of."""
    pytorch_msssim = pytest.importorskip("pytorch_msssim")
    images = random_images(10, 176)

    def peer() -> None:
        for first, second in zip(*(side.split(8) for side in pairs(images)), strict=True):
            pytorch_msssim.ms_ssim(from_0_to_1(first), from_0_to_1(second), data_range=1.0)

    def seconds(compute: Callable[[], object]) -> float:
        start = time.process_time()
        compute()
        return time.process_time() - start

    rounds = [(seconds(peer), seconds(lambda: pairwise_ms_ssim(images))) for _ in range(2)]
    assert min(theirs for theirs, _ in rounds) > 3 * min(ours for _, ours in rounds)


@pytest.mark.parametrize("size", [(11, 11), (22, 22), (28, 28), (32, 32), (45, 91), (64, 64)])
@pytest.mark.parametrize("framed", [False, True])
def test_small_images_follow_the_definition(size: tuple[int, int], framed: bool) -> None:
    images = random_images(7, *size)
    images = on_white(images) if framed else images
    expected = by_definition(*pairs(images))
    torch.testing.assert_close(pairwise_ms_ssim(images).double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 4])
def test_float64_is_exact(channels: int) -> None:
    images = random_images(5, 32, channels=channels).double()
    actual = pairwise_ms_ssim(images)
    assert actual.dtype == torch.float64
    torch.testing.assert_close(actual, by_definition(*pairs(images)), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("height", "width", "num_scales"),
    [
        *[(11, 11, 1), (21, 64, 1), (22, 22, 2), (32, 32, 2), (43, 43, 2), (44, 44, 3), (64, 64, 3)],
        *[(64, 32, 2), (87, 87, 3), (88, 88, 4), (160, 160, 4), (161, 161, 5), (176, 176, 5), (512, 512, 5)],
    ],
)
def test_scales(height: int, width: int, num_scales: int) -> None:
    settings = settings_for(height, width)
    assert settings.num_scales == len(settings.weights) == num_scales
    published = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)[:num_scales]
    if num_scales == 5:
        assert settings.weights == published
    else:
        assert sum(settings.weights) == pytest.approx(1, abs=1e-12)
        assert settings.weights == pytest.approx([w / sum(published) for w in published])


def test_equal_images_have_no_diversity() -> None:
    assert pair_sum(random_images(1, 32).expand(4, 3, 32, 32), "cat").diversity == pytest.approx(0, abs=1e-6)


def test_opposite_images_are_as_different_as_can_be() -> None:
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    assert pair_sum(torch.cat([image, -image]), "cat").diversity == 1.0


@pytest.mark.parametrize("grey", [-0.6, -0.1, 0.0, 0.5])
def test_a_little_more_light_is_a_little_difference(grey: float) -> None:
    """Also about mid-grey, where values in [-1, 1] change their sign."""
    noise = 0.05 * torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    pair = torch.cat([grey + noise, grey + noise + 0.1])
    assert 0 < pair_sum(pair, "cat").diversity < 0.05


@pytest.mark.parametrize("world_size", [1, 2, 3, 50])
@pytest.mark.parametrize("num_images", [2, 13])
def test_the_shares_of_all_ranks_add_up(world_size: int, num_images: int) -> None:
    images = random_images(num_images, 32)
    shares = [
        pair_sum(images, "cat", rank=rank, world_size=world_size, elements_per_block=20_000)
        for rank in range(world_size)
    ]
    assert sum(share.num_pairs for share in shares) == num_images * (num_images - 1) // 2
    expected = pairwise_ms_ssim(images).double().sum().item()
    assert sum(share.ms_ssim for share in shares) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("num_images", [2, 3, 10, 37, 100])
@pytest.mark.parametrize("pairs_per_block", [1, 2, 7, 64, 10_000])
def test_every_pair_is_in_one_block(num_images: int, pairs_per_block: int) -> None:
    counts = torch.zeros(num_images, num_images, dtype=torch.int)
    for block in diversity.blocks(num_images, pairs_per_block):
        ones = torch.ones(len(block.rows), len(block.columns), dtype=torch.int)
        assert ones.numel() <= pairs_per_block
        used = ones.triu(block.diagonal)
        assert used.sum() == block.num_pairs > 0
        rows, columns = (slice(side.start, side.stop) for side in block)
        counts[rows, columns] += used
    assert torch.equal(counts, torch.ones_like(counts).triu(1))


@pytest.mark.parametrize("elements_per_block", [1, 10_000, 50_000, 10**7])
def test_the_size_of_a_block_does_not_matter(elements_per_block: int) -> None:
    images = random_images(12, 32)
    actual = pairwise_ms_ssim(images, elements_per_block=elements_per_block)
    torch.testing.assert_close(actual, pairwise_ms_ssim(images), rtol=0, atol=1e-6)


def test_lower_precision_around_the_call_does_not_reach_it() -> None:
    images = random_images(6, 32)
    expected = pairwise_ms_ssim(images)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            actual = pairwise_ms_ssim(images.requires_grad_())
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(actual, expected)
    assert not actual.requires_grad


def test_half_precision_images_are_compared_in_float32() -> None:
    images = random_images(4, 32).bfloat16()
    actual = pairwise_ms_ssim(images)
    assert torch.equal(actual, pairwise_ms_ssim(images.float()))


def test_classes_count_alike() -> None:
    assert mean_diversity([PairSum(0.5, 1), PairSum(9.0, 10)]) == pytest.approx((0.5 + 0.1) / 2)


@pytest.mark.parametrize("num_images", [0, 1])
def test_one_image_has_no_pair(num_images: int) -> None:
    with pytest.raises(ValueError, match=rf"'heron' has {num_images} image.* at least two .* draw more"):
        pair_sum(torch.zeros(num_images, 3, 32, 32), "heron")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.full((3, 3, 32, 32), 255, dtype=torch.uint8), r"torch.uint8 .* 255; .* \[-1, 1\]: rescale"),
        (torch.full((3, 3, 32, 32), 2.0), "values up to 2;"),
        (torch.full((3, 3, 32, 32), math.nan), "values up to nan"),
        (torch.zeros(3, 32, 32), r"shape \[3, 32, 32\]"),
        (torch.zeros(3, 3, 10, 32), "10x32 pixels are too small"),
    ],
)
def test_wrong_images_get_a_sentence(images: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pair_sum(images, "heron")
