"""Evaluation of a method's present weights by all ranks: which figures there are, and their settings.

held-out split --encode--> codes ----> accuracies, probes, reconstruction error     (``held_out``)
                              +------> swapped images -> classifier -> swap figures
prior ---------> images ------+------> classifier -> Inception Score, label accuracy  (``scoring``)
real split ----> images ------+------> features -> FID, precision, recall
                              +------> pairs -> diversity
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dist_dsvae import distributed
from dist_dsvae.config import DataConfig, EvaluationConfig
from dist_dsvae.data.errors import DataError
from dist_dsvae.data.manifest import Manifest
from dist_dsvae.data.stream import one_pass
from dist_dsvae.data.transforms import to_device_batch
from dist_dsvae.engine.held_out import (
    Figures,
    HeldOut,
    held_out_figures,
    more_probe_figures,
    read_held_out,
)
from dist_dsvae.engine.progress import Progress, load_tensors, save_tensors
from dist_dsvae.engine.runtime import Runtime
from dist_dsvae.engine.sampler import Sampler
from dist_dsvae.engine.scoring import OnProgress, add_up, diversity, neighbour_figures
from dist_dsvae.engine.swapping import swap_figures
from dist_dsvae.evaluation.coverage import Points, coverage_figures
from dist_dsvae.evaluation.diversity import settings_for
from dist_dsvae.evaluation.frechet import frechet_distance
from dist_dsvae.evaluation.image_sums import ImageSums
from dist_dsvae.evaluation.own_classifier import open_scorer
from dist_dsvae.evaluation.scorers import Scorer
from dist_dsvae.evaluation.weight_files import ScorerError
from dist_dsvae.methods.abilities import Autoencoding, Generative
from dist_dsvae.types import Batch


@dataclass(frozen=True)
class Judges:
    """The networks that score images. knows_labels: the classifier's classes are the data set's."""

    classifier: Scorer
    feature_network: Scorer
    knows_labels: bool

    def describe(self) -> dict[str, Any]:
        return {
            name: {"name": scorer.name, "sha256": scorer.sha256}
            for name, scorer in (("classifier", self.classifier), ("feature_network", self.feature_network))
        }


def open_judges(config: EvaluationConfig, classes: Sequence[str], device: torch.device) -> Judges | None:
    """The networks that a configuration names; None where it names none.

    Raises ScorerError if one cannot be had, or is a classifier of other classes than ``classes``.
    """
    if config.classifier is None:
        return None
    classifier, known = open_scorer(config.classifier, device)
    if known is not None and known != tuple(classes):
        raise ScorerError(
            f"{config.classifier} tells {len(known)} classes apart ({', '.join(known[:3])}, ...), but the "
            f"data have {len(classes)} ({', '.join(classes[:3])}, ...). Give a classifier of this data set, "
            "or a file of weights for the Inception Score alone."
        )
    features = classifier
    if config.fid_network is not None:
        features, _ = open_scorer(config.fid_network, device)
    return Judges(classifier, features, known is not None)


class Evaluation:
    """Scores a method against a data set. Made, and called, by all ranks.

    train, test: the splits. cache: folder for the sums of real images, which other runs need as well.
    Raises DataError, ScorerError or ValueError where settings, data and networks do not fit together.
    """

    def __init__(
        self,
        config: EvaluationConfig,
        data: DataConfig,
        train: Manifest,
        test: Manifest,
        runtime: Runtime,
        cache: Path,
    ) -> None:
        self.config, self.train, self.test, self.runtime = config, train, test, runtime
        self.cache = cache
        self.corrupt_sample = data.corrupt_sample
        self.num_classes = train.num_classes
        self.judges: Judges | None = None
        if train.shape.is_image:
            self.judges = open_judges(config, train.classes, runtime.device)
            settings_for(train.shape.height, train.shape.width)
        self.num_samples = config.samples_per_class * self.num_classes
        self.real = test if config.real_split == "test" else train
        self.num_real = min(config.real_samples or self.num_samples, self.real.num_samples)
        if config.diversity_samples > config.samples_per_class:
            raise DataError(
                f"evaluation.diversity_samples is {config.diversity_samples}, more than the "
                f"{config.samples_per_class} of evaluation.samples_per_class. Lower it, or raise that."
            )

    def settings(self) -> dict[str, Any]:
        """What the figures depend on, beside the weights."""
        c = self.config
        found: dict[str, Any] = {
            "samples": self.num_samples,
            "samples_per_class": c.samples_per_class,
            "real_samples": self.num_real,
            "real_split": c.real_split,
            "splits": c.splits,
            "seed": c.seed,
            "batch_norm": c.batch_norm,
            "diversity_samples": c.diversity_samples,
            "neighbour_samples": c.neighbour_samples,
            "precision": self.runtime.mixed_precision,
            "data_fingerprint": self.train.fingerprint,
        }
        if c.batch_norm == "batch":
            found["batch_size"] = c.batch_size
        if self.train.shape.is_image:
            ms_ssim = settings_for(self.train.shape.height, self.train.shape.width)
            found["ms_ssim_weights"] = list(ms_ssim.weights)
        return found

    def __call__(
        self, method: nn.Module, progress: Progress, on_progress: OnProgress
    ) -> tuple[Figures, Figures]:
        """Figures of the method, and those of real images under the same judges; in training mode after."""
        method.eval()
        try:
            return self._figures(method, progress, on_progress)
        finally:
            method.train()

    def _figures(
        self, method: nn.Module, progress: Progress, on_progress: OnProgress
    ) -> tuple[Figures, Figures]:
        held_out = read_held_out(method, self.train, self.test, self.runtime, self.corrupt_sample)
        figures: Figures = {}

        def probes() -> dict[str, Tensor]:
            found = held_out_figures(held_out) | more_probe_figures(held_out)
            return {name: torch.tensor(value, dtype=torch.float64) for name, value in found.items()}

        figures |= {name: value.item() for name, value in progress.whole("held-out", probes).items()}
        figures["test_samples"] = int(figures["test_samples"])
        if self.judges is not None and self.judges.knows_labels and isinstance(method, Autoencoding):
            figures |= self._swaps(method, held_out, self.judges.classifier, progress)
        if not isinstance(method, Generative):
            return figures, {}
        if not self.train.shape.is_image:
            drawn_figures, real_figures = self._points(method)
            return figures | drawn_figures, real_figures
        if self.judges is None:
            return figures, {}

        sampler = Sampler(
            method,
            self.runtime,
            num_samples=self.num_samples,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            batch_norm=self.config.batch_norm,
        )
        real, real_figures = self._real(self.judges, progress, on_progress)
        drawn = add_up(
            sampler.share,
            sampler.num_batches,
            lambda: self._sums(self.num_samples, self.config.splits),
            progress,
            "generated",
            on_progress,
        )
        figures |= inception_figures(drawn)
        if drawn.inception is not None and self.config.splits > 1:
            mean, std = drawn.inception.splits
            figures |= {"inception_score_splits_mean": mean, "inception_score_splits_std": std}
        figures["fid"] = frechet_distance(real.moments, drawn.moments)
        figures |= neighbour_figures(real, drawn)._asdict()
        figures["diversity"] = self._diversity(sampler.of_classes, progress, "diversity", on_progress)
        return figures, real_figures

    def _sums(self, num_images: int, num_splits: int) -> ImageSums:
        assert self.judges is not None
        return ImageSums(
            self.judges.classifier,
            self.judges.feature_network,
            num_images,
            seed=self.config.seed,
            num_splits=num_splits,
            num_kept=self.config.neighbour_samples,
            knows_labels=self.judges.knows_labels,
            device=self.runtime.device,
        )

    def _swaps(
        self, method: Autoencoding, held_out: HeldOut, classifier: Scorer, progress: Progress
    ) -> Figures:
        def swaps() -> dict[str, Tensor]:
            test, batch_size = held_out.test, self.config.batch_size
            found = swap_figures(method, test, classifier, self.runtime, self.config.seed, batch_size)
            return {name: torch.tensor(value, dtype=torch.float64) for name, value in found.items()}

        return {name: value.item() for name, value in progress.whole("swaps", swaps).items()}

    def _diversity(
        self,
        images_of: Any,
        progress: Progress,
        part: str,
        on_progress: OnProgress,
        per_class: int | None = None,
    ) -> float:
        shape = self.train.shape
        return diversity(
            images_of,
            self.train.classes,
            per_class or self.config.diversity_samples,
            shape.num_values * 4,
            progress,
            part,
            on_progress,
        )

    def _points(self, method: Generative) -> tuple[Figures, Figures]:
        """Coverage of the held-out points by drawn ones, and by as many of the training split."""
        sampler = Sampler(
            method,
            self.runtime,
            num_samples=self.num_samples,
            batch_size=self.num_samples,
            seed=self.config.seed,
        )
        drawn = sampler.draw(torch.arange(self.num_samples))
        points, labels = drawn.images.cpu(), drawn.labels.cpu()
        held_out = _points_of(self.test, self.num_real)
        other = _points_of(self.train, self.num_samples)
        radius = self.config.radius
        return (
            {**coverage_figures(held_out, Points(points, labels), radius)},
            {**coverage_figures(held_out, other, radius)},
        )

    # Real images

    def _real(self, judges: Judges, progress: Progress, on_progress: OnProgress) -> tuple[ImageSums, Figures]:
        """Sums and figures of real images, from the cache where another evaluation left them there."""
        c = self.config
        key = [self.real.fingerprint, c.real_split, self.num_real, judges.describe(), c.neighbour_samples]
        key += [c.diversity_samples, judges.knows_labels, self.corrupt_sample, str(self.runtime.device.type)]
        place = self.cache / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]}.safetensors"
        sums = self._sums(self.num_real, 1)
        saved = load_tensors(place)
        if saved is None:
            sums = add_up(
                self._real_share,
                -(-self.num_real // c.batch_size),
                lambda: self._sums(self.num_real, 1),
                progress,
                "real",
                on_progress,
            )
            saved = {"kept": sums.kept} | sums.state()
            per_class = self._per_class()
            if per_class >= 2:
                value = self._diversity(
                    self._real_of_classes, progress, "real-diversity", on_progress, per_class
                )
                saved["diversity"] = torch.tensor(value, dtype=torch.float64)
            save_tensors(place, saved)
        else:
            sums.merge(saved, saved["kept"])
        figures = inception_figures(sums)
        if "diversity" in saved:
            figures["diversity"] = saved["diversity"].item()
        return sums, figures

    def _real_share(self, first_batch: int) -> Iterator[Batch]:
        ranks = (self.runtime.rank, self.runtime.world_size)
        hosts = one_pass(
            self.real,
            self.config.batch_size,
            *ranks,
            first_batch=first_batch,
            limit=self.num_real,
            skip_corrupt=self.corrupt_sample == "replace",
        )
        for turn, host in enumerate(hosts):
            batch = to_device_batch(host, self.runtime.device)
            start = (first_batch + ranks[0] + turn * ranks[1]) * self.config.batch_size
            positions = start + torch.arange(len(batch.labels), device=self.runtime.device)
            yield batch._replace(positions=positions)

    def _per_class(self) -> int:
        """How many real images every class has, at most as many as are wanted."""
        counts = torch.zeros(self.num_classes, dtype=torch.int64)
        for host in one_pass(
            self.real, 1024, *(self.runtime.rank, self.runtime.world_size), skip_corrupt=True
        ):
            counts += host.labels.bincount(minlength=self.num_classes)
        total = sum(distributed.gather_objects(counts))
        assert isinstance(total, Tensor)
        return min(self.config.diversity_samples, int(total.min()))

    def _real_of_classes(self, classes: Sequence[int], per_class: int) -> dict[int, Tensor]:
        found: dict[int, list[Tensor]] = {label: [] for label in classes}
        for host in one_pass(self.real, self.config.batch_size, skip_corrupt=True):
            if all(len(images) == per_class for images in found.values()):
                break
            batch = to_device_batch(host, self.runtime.device)
            for image, label in zip(batch.images, host.labels.tolist(), strict=True):
                if label in found and len(found[label]) < per_class:
                    found[label].append(image)
        return {label: torch.stack(images) for label, images in found.items()}


def _points_of(manifest: Manifest, limit: int) -> Points:
    hosts = list(one_pass(manifest, 1024, limit=limit))
    return Points(torch.cat([host.images for host in hosts]), torch.cat([host.labels for host in hosts]))


def inception_figures(sums: ImageSums) -> Figures:
    """What a classifier says of a set of images, as far as it has logits and knows the labels."""
    figures: Figures = {}
    if sums.inception is not None:
        figures["inception_score"] = sums.inception.score
        if sums.knows_labels:
            figures["label_accuracy"] = sums.label_accuracy
    return figures
