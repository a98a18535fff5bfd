"""What batch norms are measured on (``models.norm_statistics``), kind by kind.

images  pictures of the training split, shuffled ------------------------------> encoders
images  the same --encoders, by the statistics just measured--> zs, mean of zu --> decoder
prior   labels in turn, noise far from that of any sample --prior--> codes ------> decoder

That is what drawing decodes: pictures are rebuilt, swapped and filled in from the means of their posteriors.
``NUM_CODES`` of each go through a network in batches of ``BATCH_SIZE``; where there are fewer pictures, all
whole batches of them, and at least one of two. Everything is a function of the weights and the pictures.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dist_dsvae.core.noise import Draw, Noise, permutation
from dist_dsvae.methods.abilities import Autoencoding, Generative
from dist_dsvae.models.norm_statistics import Statistics, batch_norms, batch_sums, statistics_of
from dist_dsvae.sampling.temperature import PriorCodes

NUM_CODES = 4096
FEW_CODES = 1024  # where somebody waits, and for pictures to look at while a run trains
BATCH_SIZE = 128
_SEED = 0
# Far from the positions of samples, and from those of paths.
_FIRST_POSITION = 2**61


def in_batches(rows: Tensor) -> tuple[Tensor, ...]:
    """Rows [N, ...] as batches of one size; what is left over is left out. None of fewer than 2."""
    size = min(BATCH_SIZE, len(rows))
    if size < 2:
        return ()
    return torch.split(rows[: len(rows) // size * size], size)


@torch.no_grad()
def prior_codes(method: Generative, prior: PriorCodes, num_codes: int) -> Tensor:
    """[num_codes, code_dim], every stretch spread over the classes. prior: the method's, or another."""
    parameter = next(method.decoding_network().parameters())
    number = torch.arange(num_codes, device=parameter.device)
    few_classes = method.num_classes <= num_codes
    labels = number % method.num_classes if few_classes else number * method.num_classes // num_codes
    noise = Noise(_SEED, _FIRST_POSITION + number, parameter.dtype)
    return prior(labels, noise, noise)


@torch.no_grad()
def image_codes(method: Autoencoding, images: Tensor, labels: Tensor) -> Tensor:
    """What drawing decodes of images [B, C, H, W]: their zs and the mean of zu's posterior [B, code_dim]."""
    zs, zu = method.encode(images, labels)
    return torch.cat([zs, zu.mean], dim=1)


def shuffled(rows: Tensor) -> Tensor:
    """Rows [N, ...] in an order of their own: a split may be sorted by class, and batches must not be."""
    return rows[permutation(len(rows), _SEED, Draw.POSTERIOR_ZU).to(rows.device)]


def sums_of(network: nn.Module, batches: Iterable[Tensor]) -> Tensor:
    """``batch_sums`` of a network in evaluation mode, added up over batches of its inputs; 0 without one."""
    norms = batch_norms(network)
    channels = sum(norm.num_features for norm in norms)
    total = torch.zeros(1 + 2 * channels, dtype=torch.float64, device=norms[0].weight.device)
    for inputs in batches:
        total += batch_sums(network, inputs)
    return total


def prior_statistics(method: Generative, prior: PriorCodes, num_codes: int = NUM_CODES) -> Statistics:
    """The statistics of ``prior``'s codes, by one process; none of a decoder without batch norm."""
    decoder = method.decoding_network()
    if not batch_norms(decoder):
        return ()
    return statistics_of(decoder, sums_of(decoder, in_batches(prior_codes(method, prior, num_codes))))
