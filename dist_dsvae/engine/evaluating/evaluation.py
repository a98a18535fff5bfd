"""Evaluation of a method's present weights by all ranks: which figures there are, and their settings.

held-out split --encode--> codes ----> accuracies, probes, reconstruction error     (``held_out``)
                              +------> swapped images -> classifier -> swap figures
                              +------> swapped images -> face network -> whom they resemble  (``identity``)
prior ---------> images ------+------> classifier -> Inception Score, label accuracy  (``scoring``)
real split ----> images ------+------> features -> FID, precision, recall
                              +------> pairs -> diversity
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dist_dsvae.config import DataConfig, EvaluationConfig
from dist_dsvae.core.errors import DataError
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.stream import one_pass
from dist_dsvae.engine.evaluating.judges import Judges, described, open_judges
from dist_dsvae.engine.evaluating.progress import Progress
from dist_dsvae.engine.evaluating.real_images import RealImages
from dist_dsvae.engine.evaluating.resemblance import Identity
from dist_dsvae.engine.evaluating.sampler import Sampler
from dist_dsvae.engine.evaluating.scoring import (
    OnProgress,
    add_up,
    diversity,
    inception_figures,
    neighbour_figures,
    shown,
)
from dist_dsvae.engine.evaluating.swapping import swap_figures
from dist_dsvae.engine.evaluating.test_codes import (
    Figures,
    TestCodes,
    held_out_figures,
    more_probe_figures,
    read_held_out,
)
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.evaluation.coverage import Points, coverage_figures
from dist_dsvae.evaluation.diversity import settings_for
from dist_dsvae.evaluation.frechet import frechet_distance
from dist_dsvae.evaluation.judging.scorers import Scorer
from dist_dsvae.methods.abilities import Autoencoding, Generative
from dist_dsvae.runs.measure_statistics import Measured, measure, measure_prior, using
from dist_dsvae.sampling.fitted_prior import FittedPrior, fit_prior
from dist_dsvae.sampling.temperature import PriorCodes, Temperatures


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
        self.corrupt_sample = data.corrupt_sample
        self.num_classes = train.num_classes
        self.judges: Judges | None = None
        if train.shape.is_image:
            self.judges = open_judges(config, train.classes, runtime.device)
            if self.judges is not None:
                settings_for(train.shape.height, train.shape.width)
        self.num_samples = config.samples_per_class * self.num_classes
        real, self.other = (test, train) if config.real_split == "test" else (train, test)
        self.identity = Identity(config, data, train, test, runtime)
        self.num_real = min(config.real_samples or self.num_samples, real.num_samples)
        self.real_images = RealImages(
            real, self.num_real, config, runtime, cache, skip_corrupt=data.corrupt_sample == "replace"
        )
        if self.judges is not None:
            self._check_judges(self.judges)

    def _check_judges(self, judges: Judges) -> None:
        """What would otherwise be found out after all images are drawn."""
        fewest = min(self.num_real, self.num_samples)
        if fewest < 4:
            raise DataError(
                f"evaluation.real_samples and evaluation.samples_per_class give {fewest} images of a kind; "
                "precision and recall need at least 4 of each."
            )
        judges.sums(self.num_samples, self.config, torch.device("cpu"), num_splits=self.config.splits)
        blank = torch.zeros(1, *self.train.shape, device=self.runtime.device)
        judges.classifier(blank)
        judges.feature_network(blank)

    def describe_judges(self) -> dict[str, Any] | None:
        """Names and hashes of all networks that judge, by role; None where there are none."""
        found = self.judges.describe() if self.judges else {}
        if self.identity.network is not None:
            found["identity_network"] = described(self.identity.network)
        return found or None

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
            "prior": c.prior,
            "diversity_samples": c.diversity_samples,
            "neighbour_samples": c.neighbour_samples,
            "precision": self.runtime.mixed_precision,
            "data_fingerprint": self.train.fingerprint,
            "test_fingerprint": self.test.fingerprint,
        }
        if c.batch_norm == "batch":
            found["batch_size"] = c.batch_size
        for name in ("temperature_zs", "temperature_zu"):
            if (temperature := getattr(c, name)) != 1:
                found[name] = temperature
        if self.judges is not None:
            ms_ssim = settings_for(self.train.shape.height, self.train.shape.width)
            found["ms_ssim_weights"] = list(ms_ssim.weights)
        else:
            found["radius"] = c.radius
        return found | self.identity.settings()

    def __call__(
        self,
        method: nn.Module,
        progress: Progress,
        on_progress: OnProgress,
        measured: Measured | None = None,
    ) -> tuple[Figures, Figures]:
        """Figures of the method, and those of real images under the same judges; in training mode after.

        measured: statistics of batch norm for "precise", where they are known already.
        """
        method.eval()
        if self.config.batch_norm != "precise":
            measured = Measured()
        elif measured is None:
            measured = measure(method, self.train, skip_corrupt=self.corrupt_sample == "replace")
        try:
            with using(method, measured):
                return self._figures(method, progress, on_progress)
        finally:
            method.train()

    def _figures(
        self, method: nn.Module, progress: Progress, on_progress: OnProgress
    ) -> tuple[Figures, Figures]:
        figures: Figures = {}

        @functools.cache
        def held_out() -> TestCodes:  # read if a part that needs it is not done yet
            splits, fitted = (self.train, self.test), self.config.prior == "fitted"
            return read_held_out(method, *splits, self.runtime, self.corrupt_sample, with_drawn_zs=fitted)

        def probes() -> dict[str, Tensor]:
            found = held_out_figures(held_out()) | more_probe_figures(held_out())
            return {name: torch.tensor(value, dtype=torch.float64) for name, value in found.items()}

        with shown("reading the test split and fitting probes", on_progress):
            figures |= {name: value.item() for name, value in progress.whole("held-out", probes).items()}
        figures["test_samples"] = int(figures["test_samples"])
        if self.judges is not None and self.judges.knows_labels and isinstance(method, Autoencoding):
            with shown("judging swapped images", on_progress):
                figures |= self._swaps(method, held_out, self.judges.classifier, progress)
        if not isinstance(method, Generative):
            return figures, {}
        prior = self._prior(method, held_out)
        sampler = self._sampler(method, prior, self.identity.num_samples(self.num_samples))
        resembling, real_pairs = self.identity(method, sampler, progress, on_progress)
        figures |= resembling
        if not self.train.shape.is_image:
            drawn_figures, real_figures = self._points(method, prior)
            return figures | drawn_figures, real_figures
        if self.judges is None:
            return figures, real_pairs

        sampler = self._sampler(method, prior, self.num_samples)
        judges = self.judges
        real, real_figures = self.real_images.scores(judges, progress, on_progress)
        drawn = add_up(
            sampler.share,
            sampler.num_batches,
            lambda: judges.sums(
                self.num_samples, self.config, self.runtime.device, num_splits=self.config.splits
            ),
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
        figures["diversity"] = diversity(
            sampler.of_classes,
            self.train.classes,
            self.config.diversity_samples,
            self.train.shape.num_values * 4,
            progress,
            "diversity",
            on_progress,
        )
        return figures, real_figures | real_pairs

    def _prior(self, method: Generative, held_out: Callable[[], TestCodes]) -> PriorCodes:
        """What samples are drawn from; "precise" statistics are made those of its codes."""
        c = self.config
        own: PriorCodes = method.prior_codes
        base = self._fitted_prior(held_out).codes if c.prior == "fitted" else own
        prior = Temperatures(c.temperature_zs, c.temperature_zu).tempered(base)
        if c.batch_norm == "precise" and prior is not own:
            method.decoding_network().set_statistics("prior", measure_prior(method, prior))
        return prior

    def _sampler(self, method: Generative, prior: PriorCodes, num_samples: int) -> Sampler:
        return Sampler(
            method,
            self.runtime,
            num_samples=num_samples,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            batch_norm=self.config.batch_norm,
            prior=prior,
        )

    def _swaps(
        self,
        method: Autoencoding,
        held_out: Callable[[], TestCodes],
        classifier: Scorer,
        progress: Progress,
    ) -> Figures:
        def swaps() -> dict[str, Tensor]:
            test, batch_size = held_out().test, self.config.batch_size
            found = swap_figures(method, test, classifier, self.runtime, self.config.seed, batch_size)
            return {name: torch.tensor(value, dtype=torch.float64) for name, value in found.items()}

        return {name: value.item() for name, value in progress.whole("swaps", swaps).items()}

    def _fitted_prior(self, held_out: Callable[[], TestCodes]) -> FittedPrior:
        fit = held_out().fit
        if not fit:
            raise DataError(
                "evaluation.prior is 'fitted', but this method does not encode images, so there are no codes "
                "to fit a prior to. Evaluate it with --set evaluation.prior=model."
            )
        return fit_prior(fit["drawn_zs"], fit["zu"], fit["labels"], self.num_classes)

    def _points(self, method: Generative, prior: PriorCodes) -> tuple[Figures, Figures]:
        """Coverage of real points by drawn ones, and by as many of the other split."""
        sampler = Sampler(
            method,
            self.runtime,
            num_samples=self.num_samples,
            batch_size=self.num_samples,
            seed=self.config.seed,
            prior=prior,
        )
        drawn = sampler.draw(torch.arange(self.num_samples))
        points, labels = drawn.images.cpu(), drawn.labels.cpu()
        skip = self.corrupt_sample == "replace"
        real = _points_of(self.real_images.split, self.num_real, skip_corrupt=skip)
        other = _points_of(self.other, self.num_samples, skip_corrupt=skip)
        radius = self.config.radius
        return (
            {**coverage_figures(real, Points(points, labels), radius)},
            {**coverage_figures(real, other, radius)},
        )


def _points_of(manifest: Manifest, limit: int, *, skip_corrupt: bool) -> Points:
    hosts = list(one_pass(manifest, 1024, limit=limit, skip_corrupt=skip_corrupt))
    return Points(torch.cat([host.images for host in hosts]), torch.cat([host.labels for host in hosts]))
