"""The codes that a method gives the test split, read by all ranks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dist_dsvae.core import distributed
from dist_dsvae.core.noise import Draw, Noise
from dist_dsvae.core.types import Batch
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.stream import one_pass
from dist_dsvae.data.transforms import to_device_batch
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.methods.abilities import Autoencoding, Classifying
from dist_dsvae.models.encoder import sample_gaussian

PROBE_TRAIN_SAMPLES, PROBE_TRAIN_SAMPLES_PER_CLASS = 10_000, 10  # at most: the larger number of both
_EVALUATION_BATCH = 256


class TestCodes(NamedTuple):
    """What ``read_out`` gives of the test split, and of the part of the training split that probes fit."""

    test: dict[str, Tensor]
    fit: dict[str, Tensor]
    num_classes: int


def read_test_codes(
    method: nn.Module,
    train: Manifest,
    test: Manifest,
    runtime: Runtime,
    *,
    skip_corrupt: bool,
    with_drawn_zs: bool = False,
) -> TestCodes:
    """Read both splits with a method in evaluation mode. Called by all ranks.

    with_drawn_zs: of the training split, for a prior that is fitted to it; it encodes that split once more.
    """
    # Noise of its own: a probe could know a test sample by that of the training sample at its position, where
    # splits are ordered alike.
    found = read_out(method, test, runtime, None, skip_corrupt, seed=1)
    probed = isinstance(method, Autoencoding)
    fit: dict[str, Tensor] = {}
    if probed:
        limit = max(PROBE_TRAIN_SAMPLES, PROBE_TRAIN_SAMPLES_PER_CLASS * train.num_classes)
        fit = read_out(method, train, runtime, limit, skip_corrupt, seed=0, with_drawn_zs=with_drawn_zs)
    return TestCodes(found, fit, test.num_classes)


@torch.no_grad()
def read_out(
    method: nn.Module,
    manifest: Manifest,
    runtime: Runtime,
    limit: int | None,
    skip_corrupt: bool,
    *,
    seed: int,
    with_drawn_zs: bool = False,
) -> dict[str, Tensor]:
    """What the method makes of a split (or ``limit`` of its samples), row by row; called by all ranks.

    labels [N] always; predicted [N], the likeliest label, of a method that classifies; zs [N, zs_dim],
    zu (a sample) and zu_mean [N, zu_dim] and squared_error [N] of one that encodes, and drawn_zs
    [N, zs_dim], a sample of zs's posterior, if it is asked for. Encoded by all ranks, each
    its share of the batches, and gathered in the split's order.

    seed: of the noise of drawn codes.
    """
    rows: dict[str, list[Tensor]] = {}
    share = (runtime.rank, runtime.world_size)
    for host in one_pass(manifest, _EVALUATION_BATCH, *share, limit=limit, skip_corrupt=skip_corrupt):
        batch = to_device_batch(host, runtime.device, runtime.dtype)
        for name, values in _read_batch(method, batch, runtime, seed, with_drawn_zs).items():
            rows.setdefault(name, []).append(values)
    own = {name: torch.cat(rows.pop(name)) for name in [*rows]}  # what was put together goes at once
    # a rank without a batch learns from the others what to send none of
    known = {name: (values.shape[1:], values.dtype) for name, values in own.items()}
    shapes = next(found for found in distributed.gather_objects(known) if found)
    for name, (shape, dtype) in shapes.items():
        own.setdefault(name, torch.empty(0, *shape, dtype=dtype, device=runtime.device))
    order = distributed.gather_rows(own["positions"]).argsort()  # the split's, however many ranks there are
    return {name: distributed.gather_rows(own.pop(name))[order] for name in shapes if name != "positions"}


def _read_batch(
    method: nn.Module, batch: Batch, runtime: Runtime, seed: int, with_drawn_zs: bool
) -> dict[str, Tensor]:
    found = {"positions": batch.positions, "labels": batch.labels}
    if isinstance(method, Classifying):
        with runtime.autocast():
            found["predicted"] = method.log_posterior(batch.images).argmax(dim=1)
    if isinstance(method, Autoencoding):
        with runtime.autocast():
            zs, posterior = method.encode(batch.images, batch.labels)
            rebuilt = method.decode(torch.cat([zs, posterior.mean], dim=1), "images")
        noise = Noise(seed, batch.positions, runtime.dtype)
        found["zs"], found["zu_mean"] = zs, posterior.mean
        found["zu"] = sample_gaussian(posterior, noise.normal(Draw.POSTERIOR_ZU, method.zu_dim))
        if with_drawn_zs:
            with runtime.autocast():
                drawn = method.draw_codes(batch.images, batch.labels, noise)
            found["drawn_zs"] = drawn[:, : zs.shape[1]]
        found["squared_error"] = (rebuilt.to(batch.images.dtype) - batch.images).square().flatten(1).mean(1)
    return found
