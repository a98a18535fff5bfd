"""What the evaluators of an evaluation are given, and the one shape that all of them have."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from dist_dsvae.config import DataConfig, EvaluationConfig
from dist_dsvae.core.errors import DataError
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.engine.evaluating.progress import Progress
from dist_dsvae.engine.evaluating.sampler import Sampler
from dist_dsvae.engine.evaluating.test_codes import TestCodes, read_test_codes
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.evaluation.metrics import Figures
from dist_dsvae.methods.abilities import Autoencoding, Generative
from dist_dsvae.runs.measure_statistics import measure_prior
from dist_dsvae.sampling.fitted_prior import FittedPrior, fit_prior
from dist_dsvae.sampling.temperature import PriorCodes, Temperatures


@dataclass(frozen=True)
class EvaluationInputs:
    """What figures depend on beside the weights. data: how the splits were opened and are read."""

    config: EvaluationConfig
    data: DataConfig
    train: Manifest
    test: Manifest
    runtime: Runtime

    @property
    def skip_corrupt(self) -> bool:
        """As ``stream.one_pass`` takes it."""
        return self.data.replaces_corrupt

    @property
    def num_samples(self) -> int:
        """How many samples are drawn."""
        return self.config.samples_per_class * self.train.num_classes

    @property
    def real(self) -> Manifest:
        """The split that samples are compared with."""
        return self.test if self.config.real_split == "test" else self.train

    @property
    def num_real(self) -> int:
        """How many of its samples."""
        return min(self.config.real_samples or self.num_samples, self.real.num_samples)


@dataclass(frozen=True)
class Scored:
    """Figures of a method, and those that real images have in their place, under the same names."""

    figures: Figures
    real: Figures = field(default_factory=dict)


class Evaluator(ABC):
    """Figures of one kind. Made before anything is drawn, so that what does not fit is found out then.

    needs: the ability (``methods.abilities``) without which a method is passed by.
    """

    needs: type = nn.Module

    def settings(self) -> dict[str, Any]:
        """What its figures depend on, beside the weights and ``Evaluation.settings``."""
        return {}

    def judges(self) -> dict[str, Any]:
        """Names and hashes of the networks that it asks, by role."""
        return {}

    @abstractmethod
    def __call__(self, candidate: Candidate) -> Scored:
        """Called by all ranks, with a method in evaluation mode."""


@dataclass(eq=False)
class Candidate:
    """A method in evaluation mode while it is scored, and what evaluators share. Used by all ranks alike."""

    method: nn.Module
    inputs: EvaluationInputs
    progress: Progress

    @functools.cached_property
    def codes(self) -> TestCodes:
        """Read when an evaluator first asks: none may, where all that needs them was done before."""
        inputs = self.inputs
        return read_test_codes(
            self.method,
            inputs.train,
            inputs.test,
            inputs.runtime,
            skip_corrupt=inputs.skip_corrupt,
            with_drawn_zs=inputs.config.prior == "fitted",
        )

    @functools.cached_property
    def prior(self) -> PriorCodes:
        """What samples are drawn from; measured statistics of the prior are made those of its codes."""
        method, config = self.method, self.inputs.config
        assert isinstance(method, Generative)
        own: PriorCodes = method.prior_codes
        base = self._fitted_prior().codes if config.prior == "fitted" else own
        temperatures = Temperatures(config.temperature_zs, config.temperature_zu)
        if not temperatures.apply_to(method):
            raise DataError(
                "evaluation.temperature_zs is set, but this method has one code, which "
                "evaluation.temperature_zu is of. Leave it out."
            )
        prior = temperatures.tempered(base)
        as_images = config.samples_as_images and isinstance(method, Autoencoding)
        if config.measures_batch_norm and not as_images and prior is not own:
            method.decoding_network().set_statistics("prior", measure_prior(method, prior))
        return prior

    def _fitted_prior(self) -> FittedPrior:
        if not (fit := self.codes.fit):
            raise DataError(
                "evaluation.prior is 'fitted', but this method does not encode images, so there are no codes "
                "to fit a prior to. Evaluate it with --set evaluation.prior=model."
            )
        return fit_prior(fit["drawn_zs"], fit["zu"], fit["labels"], self.inputs.train.num_classes)

    def sampler(self, num_samples: int, batch_size: int | None = None) -> Sampler:
        """Draws ``num_samples`` of ``prior``, by default in batches of the configured size."""
        method, config = self.method, self.inputs.config
        assert isinstance(method, Generative)
        return Sampler(
            method,
            self.inputs.runtime,
            num_samples=num_samples,
            batch_size=batch_size or config.batch_size,
            seed=config.seed,
            batch_norm=config.batch_norm,
            prior=self.prior,
        )

    def whole(self, part: str, compute: Callable[[], Mapping[str, float]]) -> Figures:
        """The figures of a part that is computed in one piece, or was before."""

        def tensors() -> dict[str, torch.Tensor]:
            return {name: torch.tensor(value, dtype=torch.float64) for name, value in compute().items()}

        return {name: value.item() for name, value in self.progress.whole(part, tensors).items()}
