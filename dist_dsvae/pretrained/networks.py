"""A trained method's networks on a device: what they can do, in chunks, in the precision asked for."""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from dist_dsvae.config.fields import MAX_TEMPERATURE
from dist_dsvae.core.noise import Noise
from dist_dsvae.core.types import CodeKind, Codes, Gaussian
from dist_dsvae.methods.abilities import Autoencoding, Classifying, Generative, LabelFree, PriorDensity
from dist_dsvae.methods.published import Published
from dist_dsvae.models.norm_statistics import Moments, Statistics
from dist_dsvae.pretrained.image_kinds import Kind, to_network
from dist_dsvae.pretrained.requests import ClassNames, RequestError, at_least_one, class_ids
from dist_dsvae.sampling.statistics_codes import FEW_CODES, prior_statistics
from dist_dsvae.sampling.temperature import AT_ONE, PriorCodes, Temperatures

logger = logging.getLogger(__name__)

Precision = Literal["no", "bf16"]
_KEPT_TEMPERATURES = 8


class Networks:
    """The networks of ``published`` in evaluation mode. device, batch_size, bf16: may be changed."""

    def __init__(self, published: Published, batch_size: int, mixed_precision: Precision) -> None:
        if mixed_precision not in get_args(Precision):
            raise RequestError(f'mixed_precision is {mixed_precision!r}; allowed are "no" and "bf16".')
        published.method.float().eval().requires_grad_(False)
        self._published = published
        self.name = published.config.name
        self.classes = published.classes
        self.device = torch.device("cpu")
        self.batch_size = at_least_one("batch_size", batch_size)
        self.bf16 = mixed_precision == "bf16"
        self._tempered: dict[Temperatures, Statistics] = {}

    @property
    def method(self) -> nn.Module:
        """Of ``published``, which goes to other processes (``Published.__reduce__``)."""
        return self._published.method

    def generative(self) -> Generative:
        """The method; raises RequestError if it cannot draw."""
        if not isinstance(self.method, Generative):
            raise self._cannot("make pictures")
        return self.method

    def autoencoding(self) -> Autoencoding:
        """The method; raises RequestError if it cannot encode."""
        if not isinstance(self.method, Autoencoding):
            raise self._cannot("encode pictures")
        return self.method

    def prior_density(self) -> PriorDensity:
        """The method; raises RequestError if it does not know how likely codes are."""
        if not isinstance(self.method, PriorDensity):
            raise self._cannot("tell how likely codes are")
        return self.method

    def classifying(self) -> Classifying:
        """The method; raises RequestError if it cannot classify."""
        if not isinstance(self.method, Classifying):
            raise self._cannot("classify pictures")
        return self.method

    def _cannot(self, doing: str) -> RequestError:
        kinds = {
            "make pictures": Generative,
            "encode pictures": Autoencoding,
            "tell how likely codes are": PriorDensity,
            "classify pictures": Classifying,
        }
        able = [other for other, ability in kinds.items() if isinstance(self.method, ability)]
        return RequestError(
            f"This model is a {self.name}, which cannot {doing}; it can {' and '.join(able)}."
        )

    @property
    def can_encode(self) -> bool:
        """Whether the method has an encoder."""
        return isinstance(self.method, Autoencoding)

    @property
    def encodes_without_labels(self) -> bool:
        """Whether ``labels`` may be left out; then zs is a code, and not the label."""
        return isinstance(self.method, LabelFree)

    @property
    def code_dims(self) -> tuple[int, int]:
        """Dimensions of zs and of zu."""
        method = self.generative()
        one = torch.zeros(1, dtype=torch.int64, device=self.device)
        whole = method.prior_codes(one, Noise(0, one), Noise(0, one)).shape[1]
        return whole - method.zu_dim, method.zu_dim

    def run(self, function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[Tensor, ...]:
        """``function`` of ``inputs`` [N, ...], ``batch_size`` rows at a time (``in_chunks``)."""
        casting = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)
        with torch.no_grad(), casting:
            return in_chunks(function, inputs, self.batch_size, self.device)

    def decode(self, codes: Tensor, kind: Kind, code_kind: CodeKind) -> Tensor:
        """Images of codes [N, code_dim] of one kind, stored as ``kind``."""
        method = self.generative()
        return self.run(lambda rows: (kind.stored(method.decode(rows, code_kind)),), codes)[0]

    def prior(self, temperatures: Temperatures) -> tuple[PriorCodes, Statistics | None]:
        """The prior at ``temperatures``, and the statistics of its codes (None: those of the running norm).

        Those of the last few temperatures other than 1 are kept. Where samples are decoded as images are
        (``evaluation.batch_norm``), they are at every temperature. Raises RequestError for what is none.
        """
        method = self.generative()
        for name, temperature in temperatures._asdict().items():
            if not 0 < temperature <= MAX_TEMPERATURE:
                raise RequestError(
                    f"temperature_{name} is {temperature}; it must be above 0 and at most "
                    f"{MAX_TEMPERATURE:g} (1 is the prior as it is)."
                )
        if not temperatures.apply_to(method):
            raise RequestError(
                f"A {self.name} has one code, which temperature_zu is of. Leave out temperature_zs."
            )
        prior = temperatures.tempered(method.prior_codes)
        if temperatures == AT_ONE or self._samples_as_images:
            return prior, method.decoding_network().statistics_of("prior")
        statistics = self._tempered.get(temperatures)
        if statistics is None:
            statistics = prior_statistics(method, prior, FEW_CODES)
            self._tempered = dict([*self._tempered.items(), (temperatures, statistics)][-_KEPT_TEMPERATURES:])
        return prior, tuple(Moments(*(t.to(self.device) for t in moments)) for moments in statistics)

    @functools.cached_property
    def _samples_as_images(self) -> bool:
        decoder = self.generative().decoding_network()
        prior, images = decoder.statistics_of("prior"), decoder.statistics_of("images")
        if not prior or not images:
            return False
        pairs = zip(itertools.chain(*prior), itertools.chain(*images), strict=True)
        return all(torch.equal(one, other) for one, other in pairs)

    def encode(self, images: Tensor, kind: Kind, labels: ClassNames | None) -> Codes:
        """Codes of pictures as ``read_images`` gave them, in float32 on the caller's device."""
        method = self.autoencoding()

        def encode(images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, ...]:
            zs, (mean, log_variance) = self.posterior(method, to_network(images), labels)
            return tuple(part.to(kind.device) for part in (zs, mean, log_variance))

        ids = self.known_labels(labels, len(images))  # looked at where they are not needed, too
        zs, mean, log_variance = self.run(encode, images, *ids)
        return Codes(zs, Gaussian(mean, log_variance))

    def probabilities(self, images: Tensor, kind: Kind) -> Tensor:
        """Of the classes [N, num_classes], on the caller's device."""
        method = self.classifying()

        def classify(images: Tensor) -> tuple[Tensor]:
            return (method.log_posterior(to_network(images)).float().exp().to(kind.device),)

        return self.run(classify, images)[0]

    def posterior(self, method: Autoencoding, images: Tensor, labels: Tensor | None) -> Codes:
        """Codes of a chunk in float32; ``labels`` are not looked at where they need not be."""
        if isinstance(method, LabelFree):
            zs, zu = method.encode_unlabelled(images)
        else:
            assert labels is not None
            zs, zu = method.encode(images, labels)
        return Codes(zs.float(), Gaussian(zu.mean.float(), zu.log_variance.float()))

    def known_labels(self, labels: ClassNames | None, count: int) -> tuple[Tensor, ...]:
        """One int64 [count], of the pictures to encode; none where they are neither given nor needed.

        Raises RequestError where they are needed and missing, or not as many as the pictures.
        """
        if labels is None and self.encodes_without_labels:
            return ()
        if labels is None:
            raise RequestError(
                f"This model is a {self.name}, whose encoder is told the label: give each picture's class as "
                "labels (--labels), by name or number."
            )
        ids = class_ids(labels, self.classes)
        ids = ids * count if len(ids) == 1 else ids
        if len(ids) != count:
            raise RequestError(f"There are {len(ids)} labels for {count} pictures; give one for each.")
        return (torch.tensor(ids, dtype=torch.int64),)


def in_chunks(
    function: Callable[..., tuple[Tensor, ...]],
    inputs: tuple[Tensor, ...],
    chunk_size: int,
    device: torch.device,
) -> tuple[Tensor, ...]:
    """``function`` of inputs [N, ...] on ``device``, ``chunk_size`` rows at a time; its results in one.

    function: rows in, tensors of as many rows out, wherever the whole of them shall lie. An empty batch
    is passed once. Where a chunk does not fit into the device's memory, it and all that follow are halved.
    Raises torch.OutOfMemoryError if a single row does not fit.
    """
    total, first = len(inputs[0]), 0
    results: list[tuple[Tensor, ...]] = []
    while first < total or not results:
        rows = [tensor[first : first + chunk_size].to(device) for tensor in inputs]
        try:
            part = function(*rows)
        except torch.OutOfMemoryError:
            if chunk_size == 1 or total == 0:
                raise
            part = None
        if part is None:  # only now is what the chunk held let go: the exception had its frames
            chunk_size = max(1, min(chunk_size, len(rows[0])) // 2)
            logger.warning("out of memory: going on with %d at a time", chunk_size)
            del rows
            if device.type == "cuda":
                torch.cuda.empty_cache()
            continue
        results.append(part)
        first += chunk_size
    return tuple(torch.cat(parts) for parts in zip(*results, strict=True))
