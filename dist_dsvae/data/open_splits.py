"""The splits that a configuration names, opened and found to belong together."""

from __future__ import annotations

import logging
from typing import NamedTuple

from dist_dsvae.config import DataConfig
from dist_dsvae.core import distributed
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.shipped import at_hand
from dist_dsvae.data.decode import slow_jpeg
from dist_dsvae.data.open_split import open_split
from dist_dsvae.data.remote.location import is_remote
from dist_dsvae.data.remote.shard_patterns import names_shards
from dist_dsvae.data.shards.manifest import Manifest

logger = logging.getLogger(__name__)


class Splits(NamedTuple):
    """The classes of ``train`` are those of ``test``; ``unlabelled`` shares the shape of the images alone."""

    train: Manifest
    test: Manifest | None
    unlabelled: Manifest | None


def open_splits(config: DataConfig) -> Splits:
    """The manifests of the splits; called by all ranks.

    Raises DataError, on all ranks, with the command that builds them where they are missing.
    """
    train, test, unlabelled = distributed.on_all_ranks(lambda: _opened(config))
    for split in filter(None, [train, test, unlabelled]):
        if len(set(distributed.gather_objects(split.fingerprint))) > 1:
            raise DataError(
                f"{split.location} differs between the processes: give every machine the same shards."
            )
    holds_jpegs = train.encoding in ("jpg", "jpeg", "mixed")
    if holds_jpegs and distributed.is_main() and (sentence := slow_jpeg()):
        logger.warning(sentence)
    if test and (test.classes, test.shape) != (train.classes, train.shape):
        raise DataError(
            f"{test.location} and {train.location} do not belong together: their classes or "
            "image sizes differ. Build both splits by one command."
        )
    if unlabelled and unlabelled.shape != train.shape:
        raise DataError(
            f"{unlabelled.location} holds samples of {_edges(unlabelled)} values, {train.location} of "
            f"{_edges(train)}. Build the unlabelled shards with the same --size and --channels."
        )
    return Splits(train, test, unlabelled)


def _opened(config: DataConfig) -> Splits:
    for directory in filter(None, [config.train, config.test, config.unlabelled]):
        is_directory = not is_remote(directory) and not names_shards(directory)
        if config.build_command and is_directory and not at_hand(directory).is_dir():
            raise DataError(
                f"There are no shards in {directory}. Build them with:\n    {config.build_command}"
            )
    return Splits(
        open_split(config.train, config),
        open_split(config.test, config) if config.test else None,
        open_split(config.unlabelled, config) if config.unlabelled else None,
    )


def _edges(split: Manifest) -> str:
    return " x ".join(map(str, split.shape))
