"""Random access into tar shards by the manifest's indexes.

The split's store opens a tar, and fetches it first if it is not on this machine. An uncompressed tar
is memory-mapped; a compressed one (.gz, .xz) is unpacked into memory when it is first needed, as far
as its index says that there are samples. A bounded number of shards stays open or unpacked, which the
plan's windows make enough.
"""

from __future__ import annotations

import collections
import lzma
import mmap
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dist_dsvae.core.errors import CorruptSampleError, DataError
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.shards.presence import check_unchanged
from dist_dsvae.data.shards.tar_members import BLOCK, promises
from dist_dsvae.data.shards.unpacked import open_uncompressed

_MOST_UNPACKED_BYTES = 2**31


class _OpenShard(NamedTuple):
    content: memoryview  # of the uncompressed tar
    rows: list[list[int]]  # offset, size, label of each sample; plain numbers are quicker than an array


class ShardReader:
    """Reads samples of one split by (shard number, row). Not shared between processes."""

    def __init__(self, manifest: Manifest, max_open_shards: int) -> None:
        self.manifest = manifest
        self._max_open = max_open_shards
        self._open: collections.OrderedDict[int, _OpenShard] = collections.OrderedDict()
        self._prefetcher = manifest.store.prefetcher()

    def close(self) -> None:
        """Fetch nothing ahead any more."""
        self._prefetcher.close()

    def expect(self, shard_numbers: Sequence[int]) -> None:
        """Say which shards are needed next, so that those from afar are here by then."""
        self._prefetcher.expect([self.manifest.shards[number] for number in shard_numbers])

    def read(self, shard_number: int, row: int) -> tuple[memoryview, int]:
        """The image member's bytes, and the label.

        Raises CorruptSampleError where the tar does not hold a member of the indexed size at that
        place, and DataError where the whole shard cannot be had.
        """
        shard = self._shard(shard_number)
        offset, size, label = shard.rows[row]
        content = shard.content
        # The header before the data must be one, and promise the size that the index has.
        if not promises(content[offset - BLOCK : offset], size):
            raise CorruptSampleError(
                f"{self._name(shard_number)} does not hold sample {row} where its index says: it is not the "
                f"tar that the manifest was made for. {self.manifest.store.remedy}"
            )
        return content[offset : offset + size], label

    def describe(self, shard_number: int, row: int) -> str:
        """The sample's name and shard, for messages."""
        shard = self._shard(shard_number)
        header = shard.rows[row][0] - BLOCK
        name = bytes(shard.content[header : header + 100]).rstrip(b"\0").decode("utf-8", "replace")
        return f"Sample {name} of {self._name(shard_number)}"

    def _name(self, shard_number: int) -> str:
        return self.manifest.store.name(self.manifest.shards[shard_number].file)

    def _shard(self, number: int) -> _OpenShard:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        if len(self._open) >= self._max_open:  # first, or there would be one more for a while
            self._open.popitem(last=False)
        index = self.manifest.index(number)
        end = int((index[:, 0] + index[:, 1]).max(initial=0))
        self._open[number] = _OpenShard(self._content(number, end), index.tolist())
        return self._open[number]

    def _content(self, number: int, end: int) -> memoryview:
        """A shard's uncompressed tar up to ``end`` at least, and no further if it has to be unpacked."""
        shard = self.manifest.shards[number]
        try:
            # the map keeps the file open, and with it the store's hold on it
            with self.manifest.store.open(shard) as file:
                if self.manifest.modified_ns is not None:
                    check_unchanged(file, number, shard, self.manifest.modified_ns, self._name(number))
                if shard.file.endswith(".tar"):
                    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
                if end > _MOST_UNPACKED_BYTES:
                    raise ValueError(
                        f"it unpacks to {end:,} bytes by its index, and at most {_MOST_UNPACKED_BYTES:,} are "
                        "held in memory: pack its samples as several shards, or as a plain .tar"
                    )
                with open_uncompressed(Path(file.name)) as unpacked:
                    content = unpacked.read(end)
                if len(content) < end:
                    raise EOFError("it ends before its last sample")
                return memoryview(content)
        except DataError:
            raise
        except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
            raise DataError(
                f"{self._name(number)} cannot be read ({error}). It may be truncated; build or copy it again."
            ) from error
