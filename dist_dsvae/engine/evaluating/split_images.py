"""Scores of a split's images: of the real ones beside generated ones, and of any beside real ones.

images --+-> judges -> Inception Score; where the classes are the judge's, label accuracy and diversity too
real ----+-> judges -> FID, precision, recall

The sums over real images are computed once, and kept for others.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dist_dsvae.config import DataConfig, EvaluationConfig
from dist_dsvae.config.reading import ConfigError
from dist_dsvae.core import distributed
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.types import Batch
from dist_dsvae.data.open_split import cache_root, open_split
from dist_dsvae.data.pick import first_of_classes
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.stream import one_pass
from dist_dsvae.data.transforms import normalise, to_device_batch
from dist_dsvae.engine.evaluating.judges import Judges, open_judges
from dist_dsvae.engine.evaluating.progress import OnProgress, Progress, load_tensors, save_tensors
from dist_dsvae.engine.evaluating.scoring import (
    add_up,
    diversity,
    inception_figures,
    neighbour_figures,
)
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.evaluation.diversity import settings_for
from dist_dsvae.evaluation.frechet import frechet_distance
from dist_dsvae.evaluation.image_sums import ImageSums
from dist_dsvae.evaluation.metrics import Figures

FORMAT = "dist_dsvae-image-scores/1"
_VERSION = 2  # of what is computed; another one forgets what was kept

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class SplitImages:
    """``num_images`` images of a split, evenly spread over it.

    cache: folder where sums wait for the next evaluation. skip_corrupt: as ``stream.one_pass``.
    part: what progress calls them. compares_pairs: whether diversity is among the figures.
    keeps: whether these sums go into the cache.
    """

    split: Manifest
    num_images: int
    config: EvaluationConfig
    runtime: Runtime
    cache: Path
    _: KW_ONLY
    skip_corrupt: bool
    part: str = "real"
    compares_pairs: bool = True
    keeps: bool = True

    def scores(self, judges: Judges, progress: Progress) -> tuple[ImageSums, Figures]:
        """Sums and figures, from the cache where they are there. Called by all ranks."""
        place = self._place(judges)
        saved = load_tensors(place)
        if saved is None:
            saved = self._computed(judges, progress)
            if self.keeps:
                self._keep(place, saved)
        sums = judges.sums(self.num_images, self.config, self.runtime.device)
        sums.merge(saved, saved["kept"])
        figures = inception_figures(sums)
        if "diversity" in saved:
            figures["diversity"] = saved["diversity"].item()
        return sums, figures

    def _keep(self, place: Path, sums: dict[str, Tensor]) -> None:
        try:
            save_tensors(place, sums)
        except OSError as error:  # it would only have saved time
            logger.warning("the sums over real images cannot be kept in %s: %s", place.parent, error.strerror)

    def _place(self, judges: Judges) -> Path:
        """A name for all that the sums depend on."""
        c = self.config
        key = [_VERSION, self.split.fingerprint, self.num_images, judges.describe(), judges.knows_labels]
        key += [c.neighbour_samples, c.seed, c.diversity_samples, self.skip_corrupt, self.runtime.device.type]
        key += [] if self.compares_pairs else ["without diversity"]
        return self.cache / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]}.safetensors"

    def _computed(self, judges: Judges, progress: Progress) -> dict[str, Tensor]:
        sums = add_up(
            self._share,
            -(-self.num_images // self.config.batch_size),
            lambda: judges.sums(self.num_images, self.config, self.runtime.device),
            progress,
            self.part,
        )
        found = {"kept": sums.kept} | sums.state()
        wanted = self.config.diversity_samples
        per_class = min(wanted, self._smallest_class()) if self.compares_pairs else 0
        if per_class >= 2:
            value = diversity(
                self._of_classes,
                self.split.classes,
                per_class,
                self.split.shape.num_values * 4,
                progress,
                f"{self.part}-diversity",
            )
            found["diversity"] = torch.tensor(value, dtype=torch.float64)
        return found

    def _share(self, first_batch: int) -> Iterator[Batch]:
        """This rank's batches, their positions counted from 0."""
        rank, world_size = self.runtime.rank, self.runtime.world_size
        hosts = one_pass(
            self.split,
            self.config.batch_size,
            rank,
            world_size,
            first_batch=first_batch,
            limit=self.num_images,
            skip_corrupt=self.skip_corrupt,
        )
        for turn, host in enumerate(hosts):
            batch = to_device_batch(host, self.runtime.device)
            start = (first_batch + rank + turn * world_size) * self.config.batch_size
            positions = start + torch.arange(len(batch.labels), device=self.runtime.device)
            yield batch._replace(positions=positions)

    def _smallest_class(self) -> int:
        """How many images every class has in the whole split."""
        if not self.skip_corrupt:
            return min(self.split.samples_per_class)
        counts = torch.zeros(self.split.num_classes, dtype=torch.int64)
        for host in one_pass(self.split, 256, self.runtime.rank, self.runtime.world_size, skip_corrupt=True):
            counts += torch.bincount(host.labels, minlength=self.split.num_classes)
        return int(torch.stack(distributed.gather_objects(counts)).sum(0).min())

    def _of_classes(self, classes: Sequence[int], per_class: int) -> dict[int, Tensor]:
        """The split's first ``per_class`` images [N, C, H, W] of each class."""
        found = first_of_classes(self.split, classes, per_class, skip_corrupt=self.skip_corrupt)
        return {label: normalise(images.to(self.runtime.device)) for label, images in found.items()}


def real_cache(data: DataConfig) -> Path:
    """Where sums over real images wait for other evaluations of the same data by the same judges."""
    return cache_root(data.cache_dir) / "real-images"


def score_images(
    images_location: str,
    real_location: str,
    config: EvaluationConfig,
    runtime: Runtime,
    on_progress: OnProgress,
) -> dict[str, Any]:
    """Figures of all images of one split and of as many of the other. Called by all ranks.

    config: its judges, real_samples, diversity_samples, neighbour_samples, batch_size and seed count.
    Raises DataError, JudgeError or ConfigError with a sentence.
    """
    begin = time.perf_counter()
    data = DataConfig(train=real_location)
    images, real = open_split(images_location, data), open_split(real_location, data)
    judges = open_judges(config, real.classes, runtime.device)
    if judges is None:
        raise ConfigError("Nothing judges the images: give --classifier.")
    num_images = images.num_samples
    num_real = min(config.real_samples or num_images, real.num_samples)
    _check(images, real, min(num_images, num_real))
    same_classes = images.classes == real.classes
    judges = replace(judges, knows_labels=judges.knows_labels and same_classes)

    def scores(part: str, split: Manifest, count: int, keeps: bool) -> tuple[ImageSums, Figures]:
        stored = SplitImages(
            split,
            count,
            config,
            runtime,
            real_cache(data),
            skip_corrupt=False,
            part=part,
            compares_pairs=same_classes,  # pairs of classes that mean nothing to the other split say nothing
            keeps=keeps,
        )
        return stored.scores(judges, Progress(tell=on_progress))

    # The real ones first, so that a split beside itself is read once. Others are hardly asked for again, and
    # nobody empties the cache.
    reference, real_figures = scores("real", real, num_real, keeps=True)
    drawn, figures = scores("images", images, num_images, keeps=False)
    figures["fid"] = frechet_distance(reference.moments, drawn.moments)
    figures |= neighbour_figures(reference, drawn)._asdict()
    return {
        "format": FORMAT,
        "images": images_location,
        "data": real_location,
        "settings": {
            "samples": num_images,
            "real_samples": num_real,
            "seed": config.seed,
            "diversity_samples": config.diversity_samples,
            "neighbour_samples": config.neighbour_samples,
            "ms_ssim": settings_for(real.shape.height, real.shape.width).recorded(),
            "precision": runtime.mixed_precision,
            "images_fingerprint": images.fingerprint,
            "real_fingerprint": real.fingerprint,
        },
        "judges": judges.describe(),
        "figures": figures,
        "real": real_figures,
        "processes": runtime.world_size,
        "seconds": round(time.perf_counter() - begin, 1),
    }


def _check(images: Manifest, real: Manifest, fewest: int) -> None:
    if not images.shape.is_image:
        raise DataError(f"--images {images.location} holds points; give a split of images.")
    if images.shape != real.shape:
        raise DataError(
            f"--images {images.location} has images of the shape {list(images.shape)}, but --real "
            f"{real.location} of {list(real.shape)}. Build both with the same --size."
        )
    if fewest < 4:
        raise DataError(
            f"--images {images.location} and --real {real.location} give {fewest} images of a kind; "
            "precision and recall need at least 4 of each."
        )
