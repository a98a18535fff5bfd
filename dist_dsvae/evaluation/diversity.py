"""Intra-class diversity (Eq. 12): how much the images of one class differ from each other, by MS-SSIM.

    d = 1 - mean over all pairs i < j of MS-SSIM(x_i, x_j), per class, averaged over classes

Eq. 12 also counts the N images themselves as pairs, each equal to itself, which makes it (1 - 1/N) d: that
would depend on how many are drawn.

MS-SSIM is that of Wang, Simoncelli and Bovik (2003), defined as pytorch_msssim computes it: an 11-tap
Gaussian window without padding, a term (contrast and structure) per scale, luminance at the last scale only.
Luminance compares two brightnesses by their ratio, so it is counted from black up: the figures are those of
images in [0, 1]. The other terms do not change with an offset, and values about 0 keep more of their digits.

What belongs to one image (its pyramid, windowed means and variances) is computed once per image. A pair
then costs the windowed mean of a product and one quotient per pixel and scale. The window is separable and
applied as two products with a banded matrix, on a CPU several times faster than a convolution: in the layout
[height, image, channel, width] both are ordinary matrix products, which more pairs only make longer.
"""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

WINDOW_SIZE = 11
WINDOW_SIGMA = 1.5
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
K1, K2 = 0.01, 0.03
BLACK, DATA_RANGE = -1.0, 2.0  # images lie in [-1, 1]
C1, C2 = (K1 * DATA_RANGE) ** 2, (K2 * DATA_RANGE) ** 2
TILE = 28  # outputs per product with the window's matrix: more waste work on zeros, fewer waste calls
# Elements of the largest intermediate: more fall out of a CPU's cache, fewer waste calls.
CPU_BLOCK, DEVICE_BLOCK = 2**21, 2**25


@dataclass(frozen=True, slots=True)
class Settings:
    """What a figure was computed with; to be written beside it."""

    num_scales: int
    weights: tuple[float, ...]
    window_size: int = WINDOW_SIZE
    window_sigma: float = WINDOW_SIGMA
    k1: float = K1
    k2: float = K2
    data_range: float = DATA_RANGE
    black: float = BLACK

    def recorded(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self) | {"weights": list(self.weights)}


def settings_for(height: int, width: int) -> Settings:
    """The scales in use for images of this size.

    A shorter side over 160 pixels gives the five scales and weights of pytorch_msssim. A smaller one gives
    floor(log2(side / 11)) + 1 scales, at most four, and the first weights divided by their sum.

    Raises ValueError if the window does not fit the image.
    """
    side = min(height, width)
    if side < WINDOW_SIZE:
        raise ValueError(
            f"images of {height}x{width} pixels are too small for MS-SSIM: its window has {WINDOW_SIZE} "
            f"pixels; use images of at least {WINDOW_SIZE}x{WINDOW_SIZE} pixels"
        )
    if side > (WINDOW_SIZE - 1) * 2 ** (len(WEIGHTS) - 1):
        return Settings(len(WEIGHTS), WEIGHTS)  # as published: they sum to 1.0001
    num_scales = (side // WINDOW_SIZE).bit_length()
    total = sum(WEIGHTS[:num_scales])
    return Settings(num_scales, tuple(weight / total for weight in WEIGHTS[:num_scales]))


class PairSum(NamedTuple):
    """A sum over some pairs of a class; the processes' sums, added up, are the sum over all its pairs."""

    ms_ssim: float
    num_pairs: int

    @property
    def diversity(self) -> float:
        """d of all pairs that are summed: in [0, 1], larger for images that differ more."""
        return 1 - self.ms_ssim / self.num_pairs


class Level(NamedTuple):
    """All images at one scale, [height, image, channel, width], and their moments under the window."""

    pixels: Tensor
    mean: Tensor
    spread: Tensor  # variance / 2 + C2 / 4: the spreads of a pair add up to half of its denominator


class Block(NamedTuple):
    """The pairs i < j with i among ``rows`` and j among ``columns``."""

    rows: range
    columns: range

    @property
    def diagonal(self) -> int:
        """``Tensor.triu(diagonal)`` of the block's [rows, columns] matrix keeps the pairs i < j."""
        return self.rows.start - self.columns.start + 1

    @property
    def num_pairs(self) -> int:
        return sum(len(range(max(row + 1, self.columns.start), self.columns.stop)) for row in self.rows)


class Workspace:
    """Memory used again for every block: fresh pages for each intermediate may cost as much as the work."""

    def __init__(self) -> None:
        self.buffers: dict[str, Tensor] = {}

    def empty(self, name: str, like: Tensor, *shape: int) -> Tensor:
        """An uninitialised tensor, valid until ``name`` is asked for again."""
        size = math.prod(shape)
        if name not in self.buffers or len(self.buffers[name]) < size:
            self.buffers[name] = like.new_empty(size)
        return self.buffers[name][:size].view(shape)


def window_matrix(like: Tensor) -> Tensor:
    """The Gaussian window as a banded matrix [TILE, TILE + 10]: every row is the row above, moved by one."""
    offsets = torch.arange(WINDOW_SIZE, dtype=torch.float64) - WINDOW_SIZE // 2
    taps = torch.exp(-offsets.square() / (2 * WINDOW_SIGMA**2))
    matrix = torch.zeros(TILE, TILE + WINDOW_SIZE - 1, dtype=torch.float64)
    for row in range(TILE):
        matrix[row, row : row + WINDOW_SIZE] = taps / taps.sum()
    return matrix.to(like)


def tiles(length: int) -> Iterator[tuple[int, int]]:
    """``length`` outputs of the window in nearly equal parts of at most TILE."""
    size = math.ceil(length / math.ceil(length / TILE))
    for start in range(0, length, size):
        yield start, min(start + size, length)


def windowed_mean(values: Tensor, window: Tensor, space: Workspace) -> Tensor:
    """[height, ..., width] -> [height - 10, ..., width - 10], the mean under the Gaussian window."""
    height, *between, width = values.shape
    border = WINDOW_SIZE - 1
    rows = values.reshape(height, -1)
    smooth = space.empty("smooth", rows, height - border, rows.shape[1])
    for start, stop in tiles(height - border):
        band = window[: stop - start, : stop - start + border]
        torch.mm(band, rows[start : stop + border], out=smooth[start:stop])
    lines = smooth.view(-1, width)
    result = space.empty("result", lines, len(lines), width - border)
    for start, stop in tiles(width - border):
        band = window[: stop - start, : stop - start + border]
        torch.mm(lines[:, start : stop + border], band.T, out=result[:, start:stop])
    return result.view(height - border, *between, width - border)


def pyramid(images: Tensor, num_scales: int, window: Tensor) -> list[Level]:
    """What a pair needs to know of each image [N, C, H, W], finest scale first."""
    levels = []
    for scale in range(num_scales):
        if scale:
            # what lies beyond an odd border is black, as in pytorch_msssim
            padding = [size % 2 for size in images.shape[2:]]
            images = F.avg_pool2d(images - BLACK, 2, padding=padding) + BLACK
        pixels = images.permute(2, 0, 1, 3).contiguous()
        mean = windowed_mean(pixels, window, Workspace())
        variance = windowed_mean(pixels.square(), window, Workspace()) - mean.square()
        levels.append(Level(pixels, mean, variance / 2 + C2 / 4))
    return levels


def block_ms_ssim(
    levels: list[Level], weights: tuple[float, ...], window: Tensor, block: Block, space: Workspace
) -> Tensor:
    """MS-SSIM of every image in the block's rows with every one in its columns: [rows, columns]."""

    def one(images: Tensor) -> Tensor:
        return images[:, block.rows.start : block.rows.stop, None]

    def other(images: Tensor) -> Tensor:
        return images[:, None, block.columns.start : block.columns.stop]

    terms = []
    pairs = len(block.rows), len(block.columns)
    for scale, (level, weight) in enumerate(zip(levels, weights, strict=True)):
        # contrast and structure: (2 cov + C2) / (var + var + C2), both halved
        height, _, channels, width = level.pixels.shape
        products = space.empty("products", window, height, *pairs, channels, width)
        torch.mul(one(level.pixels), other(level.pixels), out=products)
        ratio = windowed_mean(products, window, space)
        ratio.addcmul_(one(level.mean), other(level.mean), value=-1).add_(C2 / 2)
        spread = space.empty("products", window, *ratio.shape)
        ratio.div_(torch.add(one(level.spread), other(level.spread), out=spread))
        if scale == len(levels) - 1:
            # luminance: (2 mean mean + C1) / (mean^2 + mean^2 + C1), both halved
            brightness = level.mean - BLACK
            energy = brightness.square() / 2 + C1 / 4
            ratio.mul_(one(brightness) * other(brightness) + C1 / 2).div_(one(energy) + other(energy))
        pixels = ratio.shape[0] * ratio.shape[-1]
        terms.append((ratio.sum(0).sum(-1) / pixels).relu() ** weight)
    return torch.stack(terms).prod(0).mean(-1)  # a product over scales, then a mean over channels


def blocks(num_images: int, pairs_per_block: int) -> list[Block]:
    """All pairs i < j, each in one block of at most ``pairs_per_block`` entries, few of them unused."""
    found = []
    first = 0
    while first < num_images - 1:
        # A strip: some rows from `first` on, all columns after `first`. It has more than one row only where
        # that still makes one block, and few enough for the unused corner (j <= i) to be small.
        columns = num_images - 1 - first
        rows = max(1, min(pairs_per_block // columns, 1 + columns // 8))
        parts = math.ceil(rows * columns / pairs_per_block)
        width = math.ceil(columns / parts)
        for start in range(first + 1, num_images, width):
            stop = min(start + width, num_images)
            found.append(Block(range(first, first + rows), range(start, stop)))
        first += rows
    return found


def checked(images: Tensor, class_name: str) -> Tensor:
    """``images`` in float32 or float64, or ValueError if no diversity can be had of them."""
    if images.ndim != 4:
        raise ValueError(
            f"class {class_name!r}: images have shape {list(images.shape)}; diversity needs "
            f"[number, channels, height, width]"
        )
    if len(images) < 2:
        raise ValueError(
            f"class {class_name!r} has {len(images)} image(s); diversity is a mean over pairs and needs at "
            f"least two images of a class: draw more samples of it, or leave it out of the average"
        )
    largest = images.abs().max().item()
    if not images.is_floating_point() or not largest <= 1.01:  # also where it is not a number
        raise ValueError(
            f"class {class_name!r}: images are {images.dtype} with values up to {largest:g}; diversity needs "
            f"floating-point images in [-1, 1]: rescale them first"
        )
    return images if images.dtype == torch.float64 else images.float()


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """No gradients and no TF32 or bf16 products, since a covariance is a small difference of large numbers.

    Autocast needs no switch: it leaves functions with ``out`` alone, and all matrix products here have it.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def computed_blocks(
    images: Tensor, rank: int, world_size: int, elements_per_block: int | None
) -> Iterator[tuple[Block, Tensor]]:
    """Every ``world_size``-th block, from block ``rank`` on, with its MS-SSIM [rows, columns]."""
    settings = settings_for(*images.shape[2:])
    if elements_per_block is None:
        elements_per_block = CPU_BLOCK if images.device.type == "cpu" else DEVICE_BLOCK
    share = blocks(len(images), max(1, elements_per_block // images[0].numel()))[rank::world_size]
    window, space = window_matrix(images), Workspace()
    levels = pyramid(images, settings.num_scales, window) if share else []
    for block in share:
        yield block, block_ms_ssim(levels, settings.weights, window, block, space)


def pairwise_ms_ssim(images: Tensor, *, elements_per_block: int | None = None) -> Tensor:
    """MS-SSIM of all pairs i < j of images [N, C, H, W] in [-1, 1].

    Returns [N (N - 1) / 2] in [0, 1], in the order of ``torch.triu_indices(N, N, 1)``, in the images' dtype
    (half precisions in float32) and on their device. ``elements_per_block`` bounds the largest intermediate;
    the result depends on it only by rounding.
    """
    images = checked(images, "images")
    n = len(images)
    values = images.new_empty(n, n)
    with full_precision():
        for block, result in computed_blocks(images, 0, 1, elements_per_block):
            values[block.rows.start : block.rows.stop, block.columns.start : block.columns.stop] = result
    first, second = torch.triu_indices(n, n, 1, device=images.device)
    return values[first, second]


def pair_sum(
    images: Tensor,
    class_name: str,
    *,
    rank: int = 0,
    world_size: int = 1,
    elements_per_block: int | None = None,
) -> PairSum:
    """The sum of MS-SSIM over one process's share of the pairs of a class, images [N, C, H, W] in [-1, 1].

    Every process gives the same images and ``elements_per_block``; the shares then add up to all pairs, none
    twice.

    Raises ValueError for fewer than two images, images outside [-1, 1], or smaller than the window.
    """
    images = checked(images, class_name)
    sums, num_pairs = [], 0
    with full_precision():
        for block, values in computed_blocks(images, rank, world_size, elements_per_block):
            sums.append(values.triu(block.diagonal).sum())
            num_pairs += block.num_pairs
    total = torch.stack(sums).cpu().double().sum().item() if sums else 0.0
    return PairSum(total, num_pairs)


def mean_diversity(classes: Iterable[PairSum]) -> float:
    """Eq. 12 averaged over classes, every class with the same weight."""
    return statistics.fmean(pairs.diversity for pairs in classes)
