"""The codes that a decoder's batch norms are measured on (``models.statistics``), kind by kind.

prior   labels in turn, noise far from that of any sample --prior--> codes
images  pictures of the training split --encoders--> zs, and zu sampled from its posterior as in training

``NUM_CODES`` of each go through the decoder in batches of ``BATCH_SIZE``; where there are fewer pictures, all
whole batches of them, and at least one of two. Everything is a function of the weights and the pictures.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from dist_dsvae.methods.abilities import Autoencoding, Generative
from dist_dsvae.models.decoder import Decoder
from dist_dsvae.models.encoder import sample_gaussian
from dist_dsvae.models.statistics import Statistics, batch_sums, statistics_of
from dist_dsvae.noise import Draw, Noise, permutation
from dist_dsvae.sampling.temperature import PriorCodes
from dist_dsvae.types import Batch

NUM_CODES = 4096
FEW_CODES = 1024  # where somebody waits, and for pictures to look at while a run trains
BATCH_SIZE = 128
_SEED = 0
# Far from the positions of samples, and from those of paths.
_FIRST_POSITION = 2**61


def in_batches(codes: Tensor) -> tuple[Tensor, ...]:
    """Codes [N, code_dim] as batches of one size; what is left over is left out. None of fewer than 2."""
    size = min(BATCH_SIZE, len(codes))
    if size < 2:
        return ()
    return torch.split(codes[: len(codes) // size * size], size)


@torch.no_grad()
def prior_codes(method: Generative, prior: PriorCodes, num_codes: int) -> Tensor:
    """[num_codes, code_dim], every stretch spread over the classes. prior: the method's, or another."""
    device, dtype = _place_of(method.decoding_network())
    number = torch.arange(num_codes, device=device)
    few_classes = method.num_classes <= num_codes
    labels = number % method.num_classes if few_classes else number * method.num_classes // num_codes
    noise = Noise(_SEED, _FIRST_POSITION + number, dtype)
    return prior(labels, noise, noise)


@torch.no_grad()
def image_codes(method: Autoencoding, batch: Batch) -> Tensor:
    """What the decoder is given of pictures in training: zs, and a sample of zu's posterior [B, code_dim]."""
    codes = method.encode(batch.images, batch.labels)
    noise = Noise(_SEED, _FIRST_POSITION + batch.positions, batch.images.dtype)
    zu = sample_gaussian(codes.zu, noise.normal(Draw.POSTERIOR_ZU, method.zu_dim))
    return torch.cat([codes.zs, zu], dim=1)


def shuffled(codes: Tensor) -> Tensor:
    """Codes in an order of their own: a split may be sorted by class, and batches must not be."""
    return codes[permutation(len(codes), _SEED, Draw.POSTERIOR_ZU).to(codes.device)]


def sums_of(decoder: Decoder, batches: Iterable[Tensor]) -> Tensor:
    """``batch_sums`` of the decoder, in evaluation mode, added up over batches of codes; 0 without one."""
    device, _ = _place_of(decoder)
    channels = sum(len(moments.mean) for moments in decoder.blank_statistics())
    total = torch.zeros(1 + 2 * channels, dtype=torch.float64, device=device)
    for codes in batches:
        total += batch_sums(decoder.layers, codes)
    return total


def prior_statistics(method: Generative, prior: PriorCodes, num_codes: int = NUM_CODES) -> Statistics:
    """The statistics of ``prior``'s codes, by one process; none of a decoder without batch norm."""
    if not method.decoding_network().has_batch_norm:
        return ()
    sums = sums_of(method.decoding_network(), in_batches(prior_codes(method, prior, num_codes)))
    return statistics_of(method.decoding_network().layers, sums)


def _place_of(decoder: Decoder) -> tuple[torch.device, torch.dtype]:
    parameter = next(decoder.parameters())
    return parameter.device, parameter.dtype
