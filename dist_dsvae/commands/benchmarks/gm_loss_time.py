"""GM loss and its gradients against plain broadcasting, by number of classes, at d = 512."""

from __future__ import annotations

import argparse

import torch
from torch import Tensor
from torch.nn import functional as F

from dist_dsvae.commands.benchmarks.timing import Result, in_turn, rounded, seconds
from dist_dsvae.models import losses
from dist_dsvae.models.mixture_prior import MixturePrior

_DIM = 512


def ours(prior: MixturePrior, zs: Tensor, labels: Tensor) -> Tensor:
    log_densities = prior.log_densities(zs)
    own = log_densities.gather(1, labels[:, None])
    return losses.classification(log_densities, labels) - 0.1 * own.mean()


def broadcasting(prior: MixturePrior, zs: Tensor, labels: Tensor) -> Tensor:
    """As one would write Eq. 9 down: a [B, C, d] tensor of differences."""
    difference = zs[:, None, :] - prior.mean[None]
    log_densities = -0.5 * (difference**2 / prior.log_variance.exp() + prior.log_variance).sum(2)
    own = log_densities.gather(1, labels[:, None])
    return F.cross_entropy(log_densities, labels) - 0.1 * own.mean()


def compare(num_classes: int, batch_size: int, rounds: int) -> dict[str, float]:
    """Milliseconds of loss and gradients by side."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    prior = MixturePrior(num_classes, _DIM, -10.0).to(device)
    zs = torch.randn(batch_size, _DIM, device=device, requires_grad=True)
    labels = torch.randint(num_classes, (batch_size,), device=device)
    targets = [zs, prior.mean, prior.log_variance]
    sides = {"ours": seconds(lambda: torch.autograd.grad(ours(prior, zs, labels), targets))}
    # autograd keeps several [B, C, d] tensors at once: beyond a few GB there is nothing to compare
    if 3 * 4 * batch_size * num_classes * _DIM < 8e9:
        sides["broadcasting"] = seconds(lambda: torch.autograd.grad(broadcasting(prior, zs, labels), targets))
    return {name: 1e3 * value for name, value in in_turn(sides, rounds).items()}


def run(args: argparse.Namespace) -> Result:
    by_size = {f"{n:,} classes": compare(n, args.batch_size, args.rounds) for n in args.classes}
    return {
        "benchmark": "gm-loss",
        "batch_size": args.batch_size,
        "milliseconds_forward_and_backward": {name: rounded(value) for name, value in by_size.items()},
        "ratio": {
            name: round(value["broadcasting"] / value["ours"], 1)
            for name, value in by_size.items()
            if "broadcasting" in value
        },
    }
