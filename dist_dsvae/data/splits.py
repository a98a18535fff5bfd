"""The training and test split that a configuration names, opened and found to belong together."""

from __future__ import annotations

from pathlib import Path

from dist_dsvae import distributed
from dist_dsvae.config import DataConfig
from dist_dsvae.data.errors import DataError
from dist_dsvae.data.manifest import Manifest
from dist_dsvae.data.remote import is_remote
from dist_dsvae.data.split import open_split


def open_splits(config: DataConfig) -> tuple[Manifest, Manifest | None]:
    """The manifests of training and test split; called by all ranks.

    Raises DataError, with the command that builds them where they are missing.
    """
    splits = [config.train] + ([config.test] if config.test else [])
    for directory in splits:
        if config.build_command and not is_remote(directory) and not Path(directory).is_dir():
            raise DataError(
                f"There are no shards in {directory}. Build them with:\n    {config.build_command}"
            )
    manifests = [open_split(directory, config) for directory in splits]
    train = manifests[0]
    if len(set(distributed.gather_objects(train.fingerprint))) > 1:
        raise DataError(
            f"{train.location} differs between the processes: give every machine the same shards."
        )
    for test in manifests[1:]:
        if (test.classes, test.shape) != (train.classes, train.shape):
            raise DataError(
                f"{test.location} and {train.location} do not belong together: their classes or "
                "image sizes differ. Build both splits by one command."
            )
    return train, manifests[1] if len(manifests) > 1 else None
