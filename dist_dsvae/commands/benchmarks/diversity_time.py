"""MS-SSIM of all pairs of images of a class: ours against pytorch_msssim called on every pair."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dist_dsvae.commands.benchmarks.timing import in_turn, seconds
from dist_dsvae.evaluation.diversity import pairwise_ms_ssim, settings_for

PEER_BATCHES = {"cpu": (4, 8, 16, 32, 64, 128), "cuda": (64, 256, 1024)}  # pairs per call


def random_images(num_images: int, side: int) -> Tensor:
    """Coarse random structure with noise on it, in [-1, 1]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(num_images, 3, 8, 8, generator=generator)
    noise = torch.randn(num_images, 3, side, side, generator=generator)
    return (0.5 * F.interpolate(coarse, size=side, mode="bicubic") + 0.1 * noise).clamp(-1, 1)


def peer_ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """pytorch_msssim on pairs [N, C, H, W] in [-1, 1]; where it refuses small images, its parts."""
    from pytorch_msssim import ms_ssim  # the peer of this command alone: pip install pytorch-msssim
    from pytorch_msssim.ssim import _fspecial_gauss_1d, _ssim

    settings = settings_for(*x.shape[2:])
    x, y = x - settings.black, y - settings.black  # it counts values from 0
    if settings.num_scales == 5:
        similarity: Tensor = ms_ssim(x, y, data_range=settings.data_range, size_average=False)
        return similarity
    window = _fspecial_gauss_1d(settings.window_size, settings.window_sigma).to(x)
    window = window.repeat(x.shape[1], 1, 1, 1)
    result = x.new_ones(())
    for scale, weight in enumerate(settings.weights):
        if scale:
            padding = [size % 2 for size in x.shape[2:]]
            x, y = F.avg_pool2d(x, 2, padding=padding), F.avg_pool2d(y, 2, padding=padding)
        full, contrast = _ssim(x, y, settings.data_range, window, size_average=False)
        term = full if scale == settings.num_scales - 1 else contrast
        result = result * term.relu() ** weight
    return result.mean(1)


def peer_on_every_pair(images: Tensor, pairs_per_call: int) -> Tensor:
    first, second = torch.triu_indices(len(images), len(images), 1, device=images.device)
    chunks = zip(first.split(pairs_per_call), second.split(pairs_per_call), strict=True)
    return torch.cat([peer_ms_ssim(images[i], images[j]) for i, j in chunks])


def best_batch(images: Tensor) -> int:
    """The number of pairs per call at which the peer is fastest, per pair, the best of three calls."""

    def per_pair(batch: int) -> float:
        x, y = images[:1].repeat(batch, 1, 1, 1), images[1:2].repeat(batch, 1, 1, 1)
        return min(seconds(lambda: peer_ms_ssim(x, y))() for _ in range(3)) / batch

    return min(PEER_BATCHES[images.device.type], key=per_pair)


@torch.no_grad()
def run(args: argparse.Namespace) -> dict[str, Any]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = random_images(args.images, args.side).to(device)
    pairs_per_call = best_batch(images)
    computations: dict[str, Callable[[], Tensor]] = {
        "pytorch_msssim on every pair": lambda: peer_on_every_pair(images, pairs_per_call),
        "ours": lambda: pairwise_ms_ssim(images),
    }
    results = {name: compute() for name, compute in computations.items()}
    difference = results["ours"] - results["pytorch_msssim on every pair"]

    medians = in_turn({name: seconds(compute) for name, compute in computations.items()}, args.rounds)
    return {
        "benchmark": "diversity",
        "images": args.images,
        "side": args.side,
        "scales": settings_for(args.side, args.side).num_scales,
        "peer_pairs_per_call": pairs_per_call,
        "seconds": {name: round(value, 4) for name, value in medians.items()},
        "largest_difference": difference.abs().max().item(),
        "ratio": round(medians["pytorch_msssim on every pair"] / medians["ours"], 2),
    }
