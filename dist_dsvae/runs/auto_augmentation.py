"""What ``method.augmentation`` "auto" stands for: only a run knows how much data it has.

A run's config.json never says "auto". Where it does not say anything, the key came after the run, which
trained without augmentation; a run that is resumed keeps what it began with.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from dist_dsvae.config import CGANConfig, CVAEGANConfig, DSVAEConfig, ExperimentConfig, MethodConfig
from dist_dsvae.config.reading import ConfigError
from dist_dsvae.core.types import ImageShape

# Fewer training images than that are augmented.
SMALL_DATA_SAMPLES = 5_000

_AUGMENTING = (DSVAEConfig, CGANConfig, CVAEGANConfig)


def as_trained(record: ExperimentConfig) -> ExperimentConfig:
    """A run's record with the augmentation that it trained with, also if it is older than the key."""
    return _instead_of_auto(record, "off")


def without_auto(
    config: ExperimentConfig, shape: ImageShape, num_samples: int, record: ExperimentConfig | None
) -> ExperimentConfig:
    """``config`` with augmentation "on" or "off" where the method has the choice.

    shape, num_samples: of the training split. record: of the run that is resumed, ``as_trained``.
    Raises ConfigError if points are to be augmented.
    """
    method = config.method
    keys = () if shape.is_image else ("augmentation", "stage_1_augmentation")
    for key in (key for key in keys if getattr(method, key, "off") == "on"):
        raise ConfigError(
            f'method.{key} is "on", but {config.data.train} holds points, and only images can be augmented. '
            'Set it to "off".'
        )
    if record is not None and isinstance(record.method, _AUGMENTING):
        kept = record.method.augmentation
        assert kept != "auto"
        return _instead_of_auto(config, kept)
    small = shape.is_image and num_samples < SMALL_DATA_SAMPLES
    return _instead_of_auto(config, "on" if small else "off")


def is_augmented(method: MethodConfig) -> bool:
    """Whether the discriminator of a run without "auto" sees augmented images."""
    return isinstance(method, _AUGMENTING) and method.augmentation == "on"


def _instead_of_auto(config: ExperimentConfig, setting: Literal["on", "off"]) -> ExperimentConfig:
    method = config.method
    if not isinstance(method, _AUGMENTING) or method.augmentation != "auto":
        return config
    return replace(config, method=replace(method, augmentation=setting))
