"""Whom swapped, reconstructed and generated faces resemble; of persons that training saw, and of others.

test split -------+--> ``evaluation.identity.SwapSums`` -----> identity_*
samples ----------+--> ``EmbeddingSums``  -------------------> identity_sample_to_*
held-out persons -+--> the same, of a method that encodes without labels --> held_out_*
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from dist_dsvae.config import DataConfig
from dist_dsvae.core import distributed
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.types import Batch, Codes, ImageShape
from dist_dsvae.data.open_split import open_split
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.stream import one_pass
from dist_dsvae.data.transforms import to_device_batch
from dist_dsvae.engine.evaluating.evaluator import Candidate, EvaluationInputs, Evaluator, Scored
from dist_dsvae.engine.evaluating.judges import described
from dist_dsvae.engine.evaluating.scoring import add_up
from dist_dsvae.evaluation.identity import (
    IDENTITY_MEANS,
    EmbeddingSums,
    EncodeZs,
    SwapSums,
    other_class_cosine,
    own_class_cosine,
)
from dist_dsvae.evaluation.judging.judge import Judge
from dist_dsvae.evaluation.judging.own_classifier import open_judge
from dist_dsvae.evaluation.judging.weight_files import JudgeError
from dist_dsvae.evaluation.metrics import Figures
from dist_dsvae.methods.abilities import Autoencoding, Generative, LabelFree
from dist_dsvae.sampling.pixels import as_saved

# Pictures that swap codes among themselves. Part of the result, so the same for any number of processes and
# any memory; embedding them takes a core some seconds, and an evaluation can be stopped in between.
_BATCH = 32
_ERROR_BATCH = 256

# What a pair of real pictures scores where the method's figure has the value beside it
_REAL_PAIRS = {
    "swap_to_zs": "same_person",
    "swap_to_zu": "other_person",
    "sample_to_class": "same_person",
    "sample_to_others": "other_person",
}


class Identity(Evaluator):
    """Measures a method, in evaluation mode; nothing where the configuration names no network and no split.

    network: the face network, or None. held_out: the split of unknown persons, or None.
    Raises DataError or JudgeError where one cannot be had, or does not fit the data.
    """

    needs = Generative

    def __init__(self, inputs: EvaluationInputs) -> None:
        self.inputs = inputs
        config, train = inputs.config, inputs.train
        self.network = _open_network(config.identity_network, train.shape, inputs.runtime.device)
        self.held_out = open_held_out(config.held_out, inputs.data, train)

    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self.network is not None:
            found["identity_samples"] = self.inputs.config.identity_samples
            found["identity_means"] = IDENTITY_MEANS
        if self.held_out is not None:
            found["held_out_fingerprint"] = self.held_out.fingerprint
        return found

    def judges(self) -> dict[str, Any]:
        return {} if self.network is None else {"identity_network": described(self.network)}

    def __call__(self, candidate: Candidate) -> Scored:
        scores = Scored({})
        method = cast(Generative, candidate.method)
        if self.network is not None:
            encode = method.encode if isinstance(method, Autoencoding) else None
            swaps = self._swaps(candidate, method, encode, self.inputs.test, "identity")
            known = swaps.figures() | self._samples(candidate, swaps.real)
            _include("identity_", known, scores)
        if self.held_out is not None and isinstance(method, LabelFree):
            unknown = self.held_out
            error = candidate.whole("held-out-error", lambda: {"error": self._error(method, unknown)})
            scores.figures["held_out_reconstruction_error"] = error["error"]
            if self.network is not None:

                def encode_unlabelled(images: Tensor, labels: Tensor) -> Codes:
                    return method.encode_unlabelled(images)

                swaps = self._swaps(candidate, method, encode_unlabelled, unknown, "held-out-identity")
                _include("held_out_identity_", swaps.figures(), scores)
        return scores

    def _swaps(
        self, candidate: Candidate, method: Generative, encode: EncodeZs | None, split: Manifest, part: str
    ) -> SwapSums:
        network, runtime, config = self.network, self.inputs.runtime, self.inputs.config
        assert network is not None

        def decode(codes: Tensor) -> Tensor:
            with runtime.autocast():
                return as_saved(method.decode(codes, "images"))

        def encode_mixed(images: Tensor, labels: Tensor) -> Codes:
            assert encode is not None
            with runtime.autocast():
                return encode(images, labels)

        def make_sums() -> SwapSums:
            return SwapSums(
                network,
                None if encode is None else encode_mixed,
                decode,
                num_classes=split.num_classes,
                seed=config.seed,
                device=runtime.device,
            )

        num_images = min(config.identity_samples or split.num_samples, split.num_samples)

        def batches(first_batch: int) -> Iterator[Batch]:
            return self._read(split, _BATCH, first_batch, num_images)

        num_batches = -(-num_images // _BATCH)
        return add_up(batches, num_batches, make_sums, candidate.progress, part)

    def _samples(self, candidate: Candidate, real: EmbeddingSums) -> Figures:
        network, inputs = self.network, self.inputs
        assert network is not None
        fewer = inputs.config.identity_samples or inputs.num_samples
        sampler = candidate.sampler(min(fewer, inputs.num_samples))
        drawn = add_up(
            sampler.share,
            sampler.num_batches,
            lambda: EmbeddingSums(network, inputs.train.num_classes, inputs.runtime.device),
            candidate.progress,
            "identity-samples",
        )
        found = {
            "sample_to_class": own_class_cosine(drawn, real),
            "sample_to_others": other_class_cosine(drawn, real),
        }
        return {name: value for name, value in found.items() if value is not None}

    @torch.no_grad()
    def _error(self, method: LabelFree, split: Manifest) -> float:
        """As ``reconstruction_error`` of the test split: the mean squared error per value, over all of it."""
        sums = torch.zeros(2, dtype=torch.float64, device=self.inputs.runtime.device)
        for batch in self._read(split, _ERROR_BATCH):
            with self.inputs.runtime.autocast():
                codes = method.encode_unlabelled(batch.images)
                rebuilt = method.decode(torch.cat([codes.zs, codes.zu.mean], dim=1), "images")
            sums[0] += (rebuilt.to(batch.images.dtype) - batch.images).double().square().sum()
            sums[1] += batch.images.numel()
        distributed.all_reduce_sum(sums)
        return (sums[0] / sums[1]).item()

    def _read(
        self, split: Manifest, batch_size: int, first_batch: int = 0, limit: int | None = None
    ) -> Iterator[Batch]:
        """This rank's batches of a split's pictures."""
        share = (self.inputs.runtime.rank, self.inputs.runtime.world_size)
        skip = self.inputs.skip_corrupt
        for host in one_pass(
            split, batch_size, *share, first_batch=first_batch, limit=limit, skip_corrupt=skip
        ):
            yield to_device_batch(host, self.inputs.runtime.device, self.inputs.runtime.dtype)


def _include(prefix: str, found: Figures, scores: Scored) -> None:
    for name, value in found.items():
        scores.figures[prefix + name] = value
        if (pair := _REAL_PAIRS.get(name)) in found:
            scores.real[prefix + name] = found[pair]


def _open_network(place: str | None, shape: ImageShape, device: torch.device) -> Judge | None:
    """The network that a configuration names, tried on a blank image."""
    if place is None:
        return None
    if not shape.is_image:
        raise DataError(
            f"evaluation.identity_network is {place!r}, but the data are points: a face network looks at "
            "pictures. Set it to null."
        )
    path = place if Path(place).exists() else place.partition("=")[2] or place
    if not Path(path).exists():
        raise JudgeError(
            f"evaluation.identity_network is {place!r}, but there is no file {path}. Give a face network's "
            "weights in facenet-pytorch's layout, as PATH or KIND=PATH, or null to leave identity unmeasured."
        )
    network, _ = open_judge(place, device)
    network(torch.zeros(1, *shape, device=device))  # or it would be found out after other long parts
    return network


def open_held_out(location: str | None, data: DataConfig, train: Manifest) -> Manifest | None:
    """The split of unknown persons that a configuration names, if it names one.

    Raises DataError where it does not fit ``train``, or is of persons that training sees.
    """
    if location is None:
        return None
    split = open_split(location, data)
    if split.shape != train.shape:
        raise DataError(
            f"evaluation.held_out, {split.location}, has samples of the shape {list(split.shape)}, but "
            f"{train.location} of {list(train.shape)}. Build it with the same size."
        )
    shared = sorted(_persons(split) & _persons(train))
    if shared:
        raise DataError(
            f"evaluation.held_out, {split.location}, has {len(shared)} classes that are trained on "
            f"({', '.join(shared[:3])}{', ...' if len(shared) > 3 else ''}): give a split of others, which "
            "training never saw. The test split's known ones are measured without it."
        )
    return split


def _persons(split: Manifest) -> set[str]:
    """The names of the classes that have samples."""
    return {name for name, count in zip(split.classes, split.samples_per_class, strict=True) if count}
