"""What a configuration leaves to the data, chosen once: a run's config.json has no choice left.

A run that is resumed keeps what it began with.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from dist_dsvae.config import DSVAEConfig, ExperimentConfig
from dist_dsvae.config.checks import without_effect
from dist_dsvae.core import distributed
from dist_dsvae.data.mixing import measure_mixing, warning_about
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.runs.auto_augmentation import without_auto

logger = logging.getLogger(__name__)


def with_choices_made(
    config: ExperimentConfig, train: Manifest, record: ExperimentConfig | None
) -> ExperimentConfig:
    """``config`` with augmentation and shuffle window chosen; warns if batches see few of the classes, of
    pictures that no update takes, and of keys without effect.

    record: of the run that is resumed, as it trained; its ``init_from`` stays. Raises ConfigError if points
    are to be augmented.
    """
    if record is not None:
        config = _keep_origin(config, record)
    config = without_auto(config, train.shape, train.num_samples, record)
    window = config.data.shuffle_window_shards
    if window is None and record is not None:
        window = record.data.window_shards
    mixing = measure_mixing(train, config.data.batch_size, window)
    warnings = [warning_about(train, config.data.batch_size, mixing), _warning_about_unlabelled(config)]
    for warning in (*warnings, *without_effect(config)):
        if warning is not None and distributed.is_main():
            logger.warning("%s", warning)
    return replace(config, data=replace(config.data, shuffle_window_shards=mixing.window_shards))


def _keep_origin(config: ExperimentConfig, record: ExperimentConfig) -> ExperimentConfig:
    """``config`` with where the weights came from at first: a run that is resumed has its own by now."""
    if config.init_from not in (None, record.init_from) and distributed.is_main():
        logger.warning(
            "init_from is %s, but this run is resumed: it began from %s, and goes on with its own weights. A "
            "new run needs another --run-dir.",
            config.init_from,
            record.init_from or "none",
        )
    return replace(config, init_from=record.init_from)


def _warning_about_unlabelled(config: ExperimentConfig) -> str | None:
    takes_some = isinstance(config.method, DSVAEConfig) and config.method.unlabelled_updates > 0
    if config.data.unlabelled is None or takes_some:
        return None
    return "No update takes the pictures of data.unlabelled: that is method.unlabelled_updates, of dsvae."
