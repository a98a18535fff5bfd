"""Differentiable augmentation against a slow transcription in numpy, image by image and pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dist_dsvae.core.noise import Draw, Noise
from dist_dsvae.models.augmentation import (
    NUM_NUMBERS,
    NUM_POSE_NUMBERS,
    Group,
    augmentation,
    augmented,
    coloured,
    moved_and_cut,
    posed,
    stage_1_images,
)

UNCHANGED = 0.5  # brightness +0, factors 1, shift 0
FORMATS = [torch.contiguous_format, torch.channels_last]


def slow(image: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """One image [C, H, W], one policy after the other, as the paper describes them."""
    channels, height, width = image.shape
    image = image + numbers[0] - 0.5
    if channels >= 3:
        for i in range(height):
            for j in range(width):
                grey = image[:3, i, j].sum() / 3
                image[:3, i, j] = grey + (image[:3, i, j] - grey) * 2 * numbers[1]
    image = image.mean() + (image - image.mean()) * (numbers[2] + 0.5)
    down, right = (
        int(number * (2 * (side // 8) + 1)) - side // 8
        for number, side in zip(numbers[3:5], (height, width), strict=True)
    )
    result = np.zeros_like(image)
    for i in range(height):
        for j in range(width):
            if 0 <= i - down < height and 0 <= j - right < width:
                result[:, i, j] = image[:, i - down, j - right]
    tops = []
    for number, side in zip(numbers[5:], (height, width), strict=True):
        length = side // 2
        tops.append(int(number * (side + 1 - length % 2)) - length // 2)
    for i in range(tops[0], tops[0] + height // 2):
        for j in range(tops[1], tops[1] + width // 2):
            if 0 <= i < height and 0 <= j < width:
                result[:, i, j] = 0
    return result


def some(channels: int, height: int, width: int, size: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(channels + height)
    images = torch.rand(size, channels, height, width, generator=generator, dtype=torch.float64) * 2 - 1
    return images, Noise(3, torch.arange(size), torch.float64).uniform(Draw.AUGMENTATION, NUM_NUMBERS)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 32, 32), (4, 16, 24), (3, 9, 14), (2, 6, 6)])
def test_equals_the_slow_one(shape: tuple[int, int, int], memory_format: torch.memory_format) -> None:
    images, numbers = some(*shape)
    got = augmented(images.contiguous(memory_format=memory_format), numbers)
    assert got.is_contiguous(memory_format=memory_format)
    expected = np.stack([slow(x, n) for x, n in zip(images.numpy(), numbers.numpy(), strict=True)])
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12, atol=1e-12)
    single = augmented(images.float(), numbers.float())
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_each_policy_alone(channels: int) -> None:
    images, _ = some(channels, 16, 16, size=3)
    plain = torch.full((3, 3), UNCHANGED, dtype=torch.float64)

    def with_number(place: int, value: float) -> torch.Tensor:
        numbers = plain.clone()
        numbers[:, place] = value
        return coloured(images, numbers)

    torch.testing.assert_close(coloured(images, plain), images)
    torch.testing.assert_close(with_number(0, 0.9), images + 0.4)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(with_number(2, 1.0), mean + 1.5 * (images - mean))
    grey = with_number(1, 0.0)
    if channels == 1:
        torch.testing.assert_close(grey, images)
    else:
        torch.testing.assert_close(grey[:, :3], images[:, :3].mean(1, keepdim=True).expand(-1, 3, -1, -1))
        torch.testing.assert_close(grey[:, 3:], images[:, 3:])
    # moved by the most, 2 rows up and 2 columns to the right; cut at a corner
    moved = moved_and_cut(images, torch.tensor([[0.0, 0.999, 0.0, 0.0]]).double().expand(3, -1))
    assert torch.equal(moved[:, :, 8:14, 8:], images[:, :, 10:, 6:14])
    assert not moved[:, :, 14:].any()
    assert not moved[:, :, :, :2].any()
    assert not moved[:, :, :4, :4].any()
    assert torch.equal(moved[:, :, 4:14, 2:], images[:, :, 6:, :14])


def test_every_shift_and_every_place_of_the_cut_occurs_within_bounds() -> None:
    numbers = Noise(1, torch.arange(4000)).uniform(Draw.AUGMENTATION, NUM_NUMBERS)
    numbers[:, :3] = UNCHANGED
    rows = (torch.arange(16.0) + 1).view(1, 1, 16, 1).expand(4000, 1, 16, 16)
    got = augmented(rows, numbers)[:, 0]
    shifts = (torch.arange(1.0, 17.0)[:, None] - got)[got > 0.5]
    assert shifts.round().unique().tolist() == [-2, -1, 0, 1, 2]
    ones = moved_and_cut(torch.ones(4000, 1, 16, 16), numbers[:, 3:].index_fill(1, torch.arange(2), 0.5))
    assert ones[:, 0].sum((1, 2)).min() == 256 - 64
    assert (ones.mean(0) < 1).all()  # every pixel is covered sometimes


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_gradients(channels: int) -> None:
    images, numbers = some(channels, 8, 9, size=2)
    images.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: augmented(x, numbers), (images,))


@pytest.mark.parametrize("memory_format", FORMATS)
def test_the_gradient_is_the_adjoint(memory_format: torch.memory_format) -> None:
    """Without brightness it is linear: <A x, g> = <x, A' g>."""
    images, numbers = some(3, 16, 16)
    numbers[:, 0] = UNCHANGED
    images = images.contiguous(memory_format=memory_format).requires_grad_()
    changed = augmented(images, numbers)
    g = torch.randn_like(changed)
    (gradient,) = torch.autograd.grad(changed, images, g)
    torch.testing.assert_close((changed * g).sum(), (images * gradient).sum())


def test_bfloat16_autocast_changes_nothing() -> None:
    images, numbers = (t.float() for t in some(3, 16, 16))
    with torch.autocast("cpu", torch.bfloat16):
        inside = augmented(images, numbers)
    assert torch.equal(inside, augmented(images, numbers))
    half = augmented(images.bfloat16(), numbers)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), inside, rtol=0.02, atol=0.03)


def test_depends_on_the_position_alone() -> None:
    """Law 3: a rank's slice of the batch is augmented as the whole batch is there."""
    images, _ = some(3, 16, 16)
    groups = [Group.REAL, Group.RECONSTRUCTED, Group.PRIOR, Group.REAL]

    def seen(first: int, last: int) -> torch.Tensor:
        augment = augmentation("on", Noise(7, torch.arange(first, last), torch.float64), groups)
        assert augment is not None
        return augment(images[first:last].repeat(4, 1, 1, 1)).unflatten(0, (4, last - first))

    whole, parts = seen(0, 12), torch.cat([seen(0, 5), seen(5, 12)], dim=1)
    assert torch.equal(whole, parts)
    real, reconstructed, prior, matched = whole
    assert torch.equal(real, matched)
    for one, other in ((real, reconstructed), (real, prior), (reconstructed, prior)):
        assert all(not torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("setting", ["off", "auto"])
def test_nothing_is_done_unless_it_is_on(setting: str) -> None:
    assert augmentation(setting, Noise(7, torch.arange(3))) is None


def mirrored(place: float, side: int) -> float:
    """A place outside of 0..side, measured from the first edge, mirrored at the edges."""
    place = abs(place) % (2 * side)
    return 2 * side - place if place > side else place


def slowly_posed(image: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """One image [C, H, W]: each pixel's place in it by turning, scaling and moving, then the four around."""
    height, width = image.shape[1:]
    angle, scale, down, right = 2 * numbers[3:] - 1
    angle, scale = angle * np.pi / 18, 1 + 0.15 * scale
    result = np.zeros_like(image)
    for i in range(height):
        for j in range(width):
            y, x = i + 0.5 - height / 2, j + 0.5 - width / 2  # from the centre, in pixels
            x, y = (
                scale * (np.cos(angle) * x - np.sin(angle) * y) + right * width / 16,
                scale * (np.sin(angle) * x + np.cos(angle) * y) + down * height / 16,
            )
            y, x = mirrored(y + height / 2, height) - 0.5, mirrored(x + width / 2, width) - 0.5
            y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
            for row in {int(y), min(int(y) + 1, height - 1)}:
                for column in {int(x), min(int(x) + 1, width - 1)}:
                    share = max(0.0, 1 - abs(y - row)) * max(0.0, 1 - abs(x - column))
                    result[:, i, j] += share * image[:, row, column] if share else 0.0
    return slow(result, np.concatenate([0.25 + 0.5 * numbers[:3], [UNCHANGED, UNCHANGED, 2.0, 2.0]]))


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 16, 24), (3, 9, 14)])
def test_poses_equal_the_slow_ones(shape: tuple[int, int, int], memory_format: torch.memory_format) -> None:
    images, numbers = some(*shape)
    got = posed(images.contiguous(memory_format=memory_format), numbers)
    assert got.is_contiguous(memory_format=memory_format)
    assert got.dtype == images.dtype
    expected = np.stack([slowly_posed(x, n) for x, n in zip(images.numpy(), numbers.numpy(), strict=True)])
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=1e-9)


def test_poses_are_the_same_within_an_iteration_in_bf16() -> None:
    images, numbers = (tensor.float() for tensor in some(3, 64, 64))
    with torch.autocast("cpu", torch.bfloat16):
        got = posed(images, numbers)
    torch.testing.assert_close(got, posed(images, numbers), rtol=0, atol=0)


def test_the_middle_of_every_range_is_the_image_itself() -> None:
    images, _ = some(3, 16, 16)
    still = torch.full((12, NUM_POSE_NUMBERS), UNCHANGED, dtype=torch.float64)
    torch.testing.assert_close(posed(images, still), images)


def test_stage_1_depends_on_the_position_alone() -> None:
    images, _ = some(3, 16, 16)

    def seen(first: int, last: int) -> torch.Tensor:
        return stage_1_images("on", images[first:last], Noise(7, torch.arange(first, last), torch.float64))

    torch.testing.assert_close(torch.cat([seen(0, 5), seen(5, 12)]), seen(0, 12), rtol=0, atol=0)
    assert not torch.equal(seen(0, 12), images)
    assert stage_1_images("off", images, Noise(7, torch.arange(12))) is images
