"""Measuring a decoder's batch norms for codes of a run's pictures and of its prior.

    training split --encode, a share of the batches per rank--> codes, gathered, shuffled --+
    prior ------------------------------------------------------------------------> codes --+
    batches of codes, a share per rank --decode--> sums --added up over the ranks--> statistics

Batches do not depend on the number of ranks, so the statistics do not either, up to rounding.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dist_dsvae import distributed
from dist_dsvae.data.errors import DataError
from dist_dsvae.data.manifest import Manifest
from dist_dsvae.data.stream import one_pass
from dist_dsvae.data.transforms import to_device_batch
from dist_dsvae.methods.abilities import Autoencoding, Generative
from dist_dsvae.models.decoder import Decoder
from dist_dsvae.models.statistics import Statistics, statistics_of
from dist_dsvae.sampling.statistics import (
    BATCH_SIZE,
    NUM_CODES,
    image_codes,
    in_batches,
    prior_codes,
    shuffled,
    sums_of,
)
from dist_dsvae.sampling.temperature import PriorCodes
from dist_dsvae.types import CodeKind

logger = logging.getLogger(__name__)

Measured = dict[CodeKind, Statistics]
_CODES_PER_SHARD = 64  # from those that have so many: shards from afar are not all fetched for a few each


def measure(
    method: nn.Module,
    train: Manifest | None,
    *,
    skip_corrupt: bool,
    num_codes: int | None = None,
    alone: bool = False,
    kinds: Sequence[CodeKind] = ("images", "prior"),
) -> Measured:
    """The statistics of each kind of codes that ``method``, in evaluation mode, has batch norms for.

    train: the split that it was trained on; without it those of images are left out. num_codes: of each kind
    (default: ``NUM_CODES``). alone: by this process for itself; else called by all ranks, and the same on
    all. Raises DataError as ``one_pass`` does.
    """
    measured: Measured = {}
    if not isinstance(method, Generative) or not method.decoding_network().has_batch_norm:
        return measured
    num_codes = num_codes or NUM_CODES
    encoding = _encoding(method)
    if "images" in kinds and train is not None and encoding is not None:
        codes = shuffled(_codes_of(encoding, train, num_codes, skip_corrupt=skip_corrupt, alone=alone))
        measured["images"] = _statistics(method.decoding_network(), codes, alone=alone)
    if "prior" in kinds:
        measured["prior"] = measure_prior(method, method.prior_codes, num_codes, alone=alone)
    return {kind: statistics for kind, statistics in measured.items() if statistics}


def measure_or_warn(
    method: nn.Module, train: Callable[[], Manifest], *, skip_corrupt: bool, num_codes: int | None = None
) -> Measured:
    """``measure`` alone; where the pictures cannot be had, a warning in place of their statistics.

    train: opens the training split.
    """
    found: Measured = {}
    try:
        if isinstance(method, Autoencoding) and method.decoding_network().has_batch_norm:
            found = measure(
                method, train(), skip_corrupt=skip_corrupt, num_codes=num_codes, alone=True, kinds=["images"]
            )
    except (DataError, OSError) as error:
        logger.warning(
            "Pictures that start from pictures are decoded with the running statistics of training, because "
            "the training pictures, on which precise ones are measured, cannot be read: %s",
            error,
        )
    return found | measure(
        method, None, skip_corrupt=skip_corrupt, num_codes=num_codes, alone=True, kinds=["prior"]
    )


def measure_prior(
    method: Generative, prior: PriorCodes, num_codes: int | None = None, *, alone: bool = False
) -> Statistics:
    """The statistics of the codes of ``prior``, the method's own or another; as ``measure``."""
    return _statistics(
        method.decoding_network(), prior_codes(method, prior, num_codes or NUM_CODES), alone=alone
    )


def _encoding(method: object) -> Autoencoding | None:
    return method if isinstance(method, Autoencoding) else None


@contextmanager
def using(method: nn.Module, measured: Mapping[CodeKind, Statistics]) -> Iterator[None]:
    """Inside, the method's decoder has these statistics; after, the ones that it had, and no trace."""
    if not isinstance(method, Generative):
        yield
        return
    decoder = method.decoding_network()
    before: dict[CodeKind, Statistics | None] = {
        "images": decoder.statistics_of("images"),
        "prior": decoder.statistics_of("prior"),
    }
    for kind, statistics in measured.items():
        decoder.set_statistics(kind, statistics)
    try:
        yield
    finally:
        for kind, former in before.items():
            decoder.set_statistics(kind, former)


def _statistics(decoder: Decoder, codes: Tensor, *, alone: bool) -> Statistics:
    """Of codes that all ranks hold alike; none where there is no batch of two."""
    batches = in_batches(codes)
    if not decoder.has_batch_norm or not batches:
        return ()
    rank, world_size = (0, 1) if alone else (distributed.rank(), distributed.world_size())
    sums = sums_of(decoder, batches[rank::world_size])
    if not alone:
        distributed.all_reduce_sum(sums)
    return statistics_of(decoder.layers, sums)


def _codes_of(
    method: Autoencoding, train: Manifest, num_codes: int, *, skip_corrupt: bool, alone: bool
) -> Tensor:
    """Codes [N, code_dim] of pictures evenly spread over the split, in its order, on every rank."""
    rank, world_size = (0, 1) if alone else (distributed.rank(), distributed.world_size())
    parameter = next(method.decoding_network().parameters())
    # a rank without a batch has none of as many columns as the others
    codes = [prior_codes(method, method.prior_codes, 1)[:0]]
    positions = [torch.zeros(0, dtype=torch.int64, device=parameter.device)]
    hosts = one_pass(
        train,
        BATCH_SIZE,
        rank,
        world_size,
        limit=num_codes,
        max_shards=math.ceil(num_codes / min(_CODES_PER_SHARD, train.num_samples / len(train.shards))),
        skip_corrupt=skip_corrupt,
    )
    for host in hosts:
        batch = to_device_batch(host, parameter.device, parameter.dtype)
        positions.append(batch.positions)
        codes.append(image_codes(method, batch))
    if alone:
        return torch.cat(codes)
    order = distributed.gather_rows(torch.cat(positions)).argsort()
    return distributed.gather_rows(torch.cat(codes))[order]
