"""Where the tars of a split are: a store gives each shard as an open local file.

    LocalStore     the split's own directory
    RemoteStore    (module ``remote_store``) a URL, with a bounded cache of this machine before it

Readers ask the store and never build a path themselves. A store is a value: it can be sent to
worker processes; what runs in the background belongs to the prefetcher that each process asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One tar file of a split.

    file, index_file: names inside the split's directory.
    num_bytes: size of the (possibly compressed) tar on disk.
    index_sha256: of the index; None in a manifest of version 1.
    samples_per_class: class id -> samples, classes without a sample left out; None where only the index
        tells, which is verified by its hash.
    """

    file: str
    index_file: str
    num_samples: int
    num_bytes: int
    sha256: str
    index_sha256: str | None = None
    samples_per_class: Mapping[int, int] | None = None


class Prefetcher(Protocol):
    """Brings shards near before they are needed."""

    def expect(self, shards: Sequence[Shard]) -> None:
        """These are needed next, in place of those named before."""

    def close(self) -> None:
        """Let go of everything."""


class ShardStore(Protocol):
    """Where the tars are, and what to say of them."""

    @property
    def remedy(self) -> str:
        """What a person can do if the files and the manifest disagree."""

    def name(self, file: str) -> str:
        """Path or URL of a file of the split, for messages; "" names the split itself."""

    def open(self, shard: Shard) -> BinaryIO:
        """The tar, to read from its start; its ``name`` is its path for as long as it is open.

        Raises OSError, or DataError where it cannot be fetched.
        """

    def prefetcher(self) -> Prefetcher: ...


@dataclass(frozen=True, slots=True)
class LocalStore:
    """A split that lies in a directory."""

    directory: Path

    @property
    def remedy(self) -> str:
        return (
            "Copy it again or build the split again; if the new files are meant, run "
            f"`dsvae build index {self.directory}`."
        )

    def name(self, file: str) -> str:
        return str(self.directory / file)

    def open(self, shard: Shard) -> BinaryIO:
        return (self.directory / shard.file).open("rb")

    def prefetcher(self) -> Prefetcher:
        return _NothingToFetch()


class _NothingToFetch:
    def expect(self, shards: Sequence[Shard]) -> None:
        pass

    def close(self) -> None:
        pass
