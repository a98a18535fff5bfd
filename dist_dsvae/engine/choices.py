"""What a configuration leaves to the data, chosen once: a run's config.json has no choice left.

A run that is resumed keeps what it began with.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from dist_dsvae.config import ExperimentConfig
from dist_dsvae.config.reading import ConfigError
from dist_dsvae.core import distributed
from dist_dsvae.data.mixing import measure_mixing, warning_about
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.runs.auto_augmentation import without_auto

logger = logging.getLogger(__name__)


def with_choices_made(
    config: ExperimentConfig, train: Manifest, record: ExperimentConfig | None
) -> ExperimentConfig:
    """``config`` with augmentation and shuffle window chosen; warns if batches see few of the classes.

    record: of the run that is resumed, as it trained; its ``init_from`` stays. Raises ConfigError if points
    are to be augmented, or other weights taken by a run that has some.
    """
    if record is not None:
        config = replace(config, init_from=_origin(config, record))
    config = without_auto(config, train.shape, train.num_samples, record)
    window = config.data.shuffle_window_shards
    if window is None and record is not None:
        window = record.data.window_shards
    mixing = measure_mixing(train, config.data.batch_size, window)
    warning = warning_about(train, config.data.batch_size, mixing)
    if warning is not None and distributed.is_main():
        logger.warning("%s", warning)
    return replace(config, data=replace(config.data, shuffle_window_shards=mixing.window_shards))


def _origin(config: ExperimentConfig, record: ExperimentConfig) -> str | None:
    """Where the weights of a run that is resumed come from."""
    asked, before = (
        None if place is None else Path(place).resolve() for place in (config.init_from, record.init_from)
    )
    if asked not in (None, before):
        began = "without weights of another" if before is None else f"with the weights of {record.init_from}"
        raise ConfigError(
            f"init_from is {config.init_from}, but this run began {began}, and goes on with its own. Leave "
            "--init-from out, or start a new run with another --run-dir."
        )
    return record.init_from
