"""Measuring the batch norms of a method's encoders and decoder on a run's pictures and on its prior.

    training split --a share per rank--> bytes, gathered, shuffled --> batches, a share per rank
    batches --each encoder--> sums --added up over the ranks--> statistics of the encoders
    batches --encode, by those statistics--> codes --decode--> sums --added up--> of the decoder, for images
    prior --> batches of codes, a share per rank --decode--> sums --added up--> of the decoder, for the prior

Batches do not depend on the number of ranks, so the statistics do not either, up to rounding. Encoders see
one kind of inputs, images, so theirs take the place of the running ones; a decoder has some per kind.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn

from dist_dsvae.core import distributed
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.types import Batch, CodeKind
from dist_dsvae.data.decode import empty_batch
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.stream import HostBatch, one_pass
from dist_dsvae.data.transforms import to_device_batch
from dist_dsvae.methods.abilities import Autoencoding, Generative
from dist_dsvae.models.norm_statistics import Statistics, batch_norms, replace_running, statistics_of
from dist_dsvae.sampling.statistics_codes import (
    BATCH_SIZE,
    NUM_CODES,
    image_codes,
    in_batches,
    prior_codes,
    shuffled,
    sums_of,
)
from dist_dsvae.sampling.temperature import PriorCodes

logger = logging.getLogger(__name__)

_IMAGES_PER_SHARD = 64  # from those that have so many: shards from afar are not all fetched for a few each
_T = TypeVar("_T")


@dataclass(frozen=True)
class Measured:
    """Statistics of a method's networks, of those that have batch norm and could be measured.

    decoder: of each kind of codes. encoders: of images, by ``Autoencoding.encoding_networks``' names.
    """

    decoder: Mapping[CodeKind, Statistics] = field(default_factory=dict)
    encoders: Mapping[str, Statistics] = field(default_factory=dict)


def measure(
    method: nn.Module,
    train: Manifest | None,
    *,
    skip_corrupt: bool,
    num_codes: int | None = None,
    alone: bool = False,
    kinds: Sequence[CodeKind] = ("images", "prior"),
) -> Measured:
    """What there is to measure of ``method``, which is in evaluation mode; it is left as it was.

    train: the split that it was trained on; without it those of images, the encoders' among them, are left
    out. num_codes: of each kind (default: ``NUM_CODES``). alone: by this process for itself; else called by
    all ranks, and the same on all. Raises DataError as ``one_pass`` does.
    """
    if not isinstance(method, Generative):
        return Measured()
    num_codes = num_codes or NUM_CODES
    measured, encoding = Measured(), _encoding(method)
    if "images" in kinds and train is not None and encoding is not None and _depends_on_images(encoding):
        device = next(method.parameters()).device
        batches = _training_batches(train, num_codes, device, skip_corrupt=skip_corrupt, alone=alone)
        measured = _measure_images(encoding, _share(batches, alone=alone), alone=alone)
    if "prior" in kinds and (prior := measure_prior(method, method.prior_codes, num_codes, alone=alone)):
        measured = dataclasses.replace(measured, decoder={**measured.decoder, "prior": prior})
    return measured


def for_samples(measured: Measured, *, as_images: bool) -> Measured:
    """``measured`` as samples are decoded: as_images gives them the statistics of images' codes.

    A method that encodes none, or whose images could not be read, keeps those of its prior.
    """
    if not as_images or "images" not in measured.decoder:
        return measured
    images = measured.decoder["images"]
    return dataclasses.replace(measured, decoder={"images": images, "prior": images})


def measure_or_warn(
    method: nn.Module, train: Callable[[], Manifest], *, skip_corrupt: bool, num_codes: int | None = None
) -> Measured:
    """``measure`` alone; where the pictures cannot be had, a warning in place of their statistics.

    train: opens the training split.
    """
    found = Measured()
    try:
        if isinstance(method, Autoencoding) and _depends_on_images(method):
            found = measure(
                method, train(), skip_corrupt=skip_corrupt, num_codes=num_codes, alone=True, kinds=["images"]
            )
    except (DataError, OSError) as error:
        logger.warning(
            "Pictures are encoded and decoded with the running statistics of training, because the training "
            "pictures, on which precise ones are measured, cannot be read: %s",
            error,
        )
    prior = measure(method, None, skip_corrupt=skip_corrupt, num_codes=num_codes, alone=True, kinds=["prior"])
    return dataclasses.replace(found, decoder={**found.decoder, **prior.decoder})


def measure_prior(
    method: Generative, prior: PriorCodes, num_codes: int | None = None, *, alone: bool = False
) -> Statistics:
    """The decoder's statistics of the codes of ``prior``, the method's own or another; as ``measure``."""
    batches = in_batches(prior_codes(method, prior, num_codes or NUM_CODES))
    return _statistics(method.decoding_network(), _share(batches, alone=alone), alone=alone)


def adopt(method: nn.Module, measured: Measured) -> None:
    """From now on, in evaluation mode, the method's networks normalise by these statistics."""
    if isinstance(method, Generative):
        for kind, statistics in measured.decoder.items():
            method.decoding_network().set_statistics(kind, statistics)
    if isinstance(method, Autoencoding):
        for name, statistics in measured.encoders.items():
            replace_running(method.encoding_networks()[name], statistics)


@contextmanager
def using(method: nn.Module, measured: Measured) -> Iterator[None]:
    """Inside, the method's networks have these statistics; after, the ones that they had, and no trace."""
    if not isinstance(method, Generative):
        yield
        return
    decoder = method.decoding_network()
    before: dict[CodeKind, Statistics | None] = {
        "images": decoder.statistics_of("images"),
        "prior": decoder.statistics_of("prior"),
    }
    for kind, statistics in measured.decoder.items():
        decoder.set_statistics(kind, statistics)
    try:
        with _encoding_by(method, measured.encoders):
            yield
    finally:
        for kind, former in before.items():
            decoder.set_statistics(kind, former)


@contextmanager
def _encoding_by(method: object, encoders: Mapping[str, Statistics]) -> Iterator[None]:
    """Inside, the encoders have these running statistics; after, the very tensors that they had."""
    networks = method.encoding_networks() if isinstance(method, Autoencoding) else {}
    former = {name: replace_running(networks[name], statistics) for name, statistics in encoders.items()}
    try:
        yield
    finally:
        for name, statistics in former.items():
            replace_running(networks[name], statistics)


def _encoding(method: object) -> Autoencoding | None:
    return method if isinstance(method, Autoencoding) else None


def _depends_on_images(method: Autoencoding) -> bool:
    networks = (method.decoding_network(), *method.encoding_networks().values())
    return any(batch_norms(network) for network in networks)


def _measure_images(method: Autoencoding, own: Sequence[HostBatch], *, alone: bool) -> Measured:
    """Of the encoders on images, and of the decoder on what they make of them. own: this rank's share."""
    parameter = next(method.decoding_network().parameters())

    def batches() -> Iterator[Batch]:
        for host in own:
            yield to_device_batch(host, parameter.device, parameter.dtype)

    encoders = {}
    for name, network in method.encoding_networks().items():
        inputs = (method.encoding_input(batch.images, batch.labels) for batch in batches())
        if statistics := _statistics(network, inputs, alone=alone):
            encoders[name] = statistics
    with _encoding_by(method, encoders):
        codes = (image_codes(method, batch.images, batch.labels) for batch in batches())
        decoder = _statistics(method.decoding_network(), codes, alone=alone)
    return Measured({"images": decoder} if decoder else {}, encoders)


def _statistics(network: nn.Module, own: Iterable[Tensor], *, alone: bool) -> Statistics:
    """Of all ranks' batches, of which ``own`` are this one's; none where nobody has any."""
    if not batch_norms(network):
        return ()
    sums = sums_of(network, own)
    if not alone:
        distributed.all_reduce_sum(sums)
    return statistics_of(network, sums) if sums[0] else ()


def _share(batches: Sequence[_T], *, alone: bool) -> Sequence[_T]:
    """This rank's of the batches that all ranks have alike."""
    return batches if alone else batches[distributed.rank() :: distributed.world_size()]


def _training_batches(
    train: Manifest, num_images: int, device: torch.device, *, skip_corrupt: bool, alone: bool
) -> list[HostBatch]:
    """Pictures evenly spread over the split, shuffled, the same batches on every rank, in host memory.

    There they are bytes: 50 MB for 4,096 of 64 x 64. device: for what the ranks tell each other.
    """
    rank, world_size = (0, 1) if alone else (distributed.rank(), distributed.world_size())
    read = list(
        one_pass(
            train,
            BATCH_SIZE,
            rank,
            world_size,
            limit=num_images,
            max_shards=math.ceil(num_images / min(_IMAGES_PER_SHARD, train.num_samples / len(train.shards))),
            skip_corrupt=skip_corrupt,
        )
    )
    if not alone:
        read = _gathered(read, train, device)
    images, labels, positions = (torch.cat(columns) for columns in zip(*(b[:3] for b in read), strict=True))
    order = shuffled(positions.argsort())
    columns = zip(
        in_batches(images[order]), in_batches(labels[order]), in_batches(positions[order]), strict=True
    )
    return [HostBatch(*rows, 0) for rows in columns]


def _gathered(own: Sequence[HostBatch], train: Manifest, device: torch.device) -> list[HostBatch]:
    """All ranks' batches on every rank; one of each at a time, as a device has little room to spare."""
    none = torch.zeros(0, dtype=torch.int64)
    nothing = HostBatch(torch.from_numpy(empty_batch(train.shape, 0)), none, none, 0)
    rounds = max(distributed.gather_objects(len(own)))
    gathered = []
    for host in [*own, *[nothing] * (rounds - len(own))]:
        images, labels, positions = (distributed.gather_rows(rows.to(device)).cpu() for rows in host[:3])
        gathered.append(HostBatch(images, labels, positions, 0))
    return gathered
