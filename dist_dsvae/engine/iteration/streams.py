"""Streams: the endless batches that a method's updates draw from, one stream per split.

    train       3 stage-1 batches, 1 joint batch, 3, 1, ...       order and noise by the run's seed
    unlabelled  1 batch per unlabelled update, ...                  by a seed of its own

An iteration draws the same number of batches from each stream every time, so that the number of
iterations, and with it ``samples_seen``, tells where every stream stands.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor, nn

from dist_dsvae.config import DataConfig
from dist_dsvae.config.reading import ConfigError
from dist_dsvae.core.noise import Noise, seed_of
from dist_dsvae.core.types import Batch
from dist_dsvae.data.feed import Feed
from dist_dsvae.data.open_splits import Splits
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.stream import Inputs, Slice
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.methods.update import Method, Split

ToBatch = Callable[[Sequence[Tensor], Noise], Batch]


def splits_drawn(method: nn.Module) -> tuple[Split, ...]:
    """The split of each batch of one iteration, in the order in which the updates take them."""
    assert isinstance(method, Method)
    return tuple(update.split for update in method.updates for _ in range(update.num_batches))


class Drawn:
    """The splits that a method draws from, in the order in which it first does."""

    def __init__(self, method: nn.Module, splits: Splits) -> None:
        self.order = splits_drawn(method)
        # ``config.checks``: none of them is missing
        self.manifests: dict[Split, Manifest] = {s: getattr(splits, s) for s in dict.fromkeys(self.order)}

    @property
    def num_samples(self) -> int:
        """Of all of them: one epoch."""
        return sum(manifest.num_samples for manifest in self.manifests.values())

    @property
    def fingerprint(self) -> str:
        """Of everything that decides content and order of the samples."""
        return "+".join(manifest.fingerprint for manifest in self.manifests.values())


class Streams(Drawn):
    """The batches of one rank on its device, of the splits that the method draws from. seed: of the run."""

    def __init__(
        self,
        method: nn.Module,
        splits: Splits,
        config: DataConfig,
        part: Slice,
        runtime: Runtime,
        *,
        seed: int,
    ) -> None:
        super().__init__(method, splits)
        self._global_batch_size = part.global_batch_size
        self._feeds = {
            split: Feed(manifest, config, seed_of(split, seed), part, runtime.device, runtime.dtype)
            for split, manifest in self.manifests.items()
        }
        self.to_batch: Mapping[Split, ToBatch] = {split: feed.to_batch for split, feed in self._feeds.items()}

    def check_batch(self) -> None:
        """Raise ConfigError if a batch is larger than a split that it is drawn from.

        A run of an earlier version may have begun with such batches, so one that is resumed is not checked.
        """
        for manifest in self.manifests.values():
            if self._global_batch_size > manifest.num_samples:
                raise ConfigError(
                    f"data.batch_size is {self._global_batch_size:,}, but {manifest.location} has "
                    f"{manifest.num_samples:,} samples, so every batch would hold some of them twice. Set it "
                    f"to {manifest.num_samples} or less."
                )

    def iterations(self, first: int) -> Iterator[list[Inputs]]:
        """The batches of iteration ``first`` and of all after it, each in the order of the updates."""
        streams = {
            split: self._feeds[split].batches(first * count * self._global_batch_size, copies_ahead=count)
            for split, count in Counter(self.order).items()
        }
        for _ in itertools.count():
            yield [next(streams[split]) for split in self.order]
