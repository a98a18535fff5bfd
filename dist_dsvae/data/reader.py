"""Random access into tar shards by the manifest's indexes.

An uncompressed tar is memory-mapped; a compressed one (.gz, .xz) is unpacked into memory when it
is first needed. A bounded number of shards stays open, which the plan's windows make enough.
"""

from __future__ import annotations

import collections
import gzip
import lzma
import mmap
import zlib
from typing import NamedTuple

from dist_dsvae.data.manifest import DataError, Manifest

_BLOCK = 512  # a tar member's header is the block before its data


class _OpenShard(NamedTuple):
    content: memoryview  # of the uncompressed tar
    rows: list[list[int]]  # offset, size, label of each sample; plain numbers are quicker than an array


class ShardReader:
    """Reads samples of one split by (shard number, row). Not shared between processes."""

    def __init__(self, manifest: Manifest, max_open_shards: int) -> None:
        self.manifest = manifest
        self._max_open = max_open_shards
        self._open: collections.OrderedDict[int, _OpenShard] = collections.OrderedDict()

    def read(self, shard_number: int, row: int) -> tuple[memoryview, int]:
        """The image member's bytes, and the label.

        Raises DataError where the tar does not hold a member of the indexed size at that place.
        """
        shard = self._shard(shard_number)
        offset, size, label = shard.rows[row]
        content = shard.content
        # The header before the data must be one, and promise the size that the index has.
        header = offset - _BLOCK
        if bytes(content[header + 257 : header + 262]) != b"ustar" or (
            int(bytes(content[header + 124 : header + 135]).strip(b" \0") or b"-1", 8) != size
        ):
            raise DataError(
                f"{self._path(shard_number)} does not hold sample {row} where its index says: it is not the "
                f"tar that the manifest was made for. Run `python shards/build.py index "
                f"{self.manifest.directory}` to index it anew, or build the shards again."
            )
        return content[offset : offset + size], label

    def describe(self, shard_number: int, row: int) -> str:
        """The sample's name and shard, for messages."""
        shard = self._shard(shard_number)
        header = shard.rows[row][0] - _BLOCK
        name = bytes(shard.content[header : header + 100]).rstrip(b"\0").decode("utf-8", "replace")
        return f"Sample {name} of {self._path(shard_number)}"

    def _path(self, shard_number: int) -> str:
        return str(self.manifest.directory / self.manifest.shards[shard_number].file)

    def _shard(self, number: int) -> _OpenShard:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        shard = _OpenShard(self._content(number), self.manifest.index(number).tolist())
        self._open[number] = shard
        if len(self._open) > self._max_open:
            self._open.popitem(last=False)
        return shard

    def _content(self, number: int) -> memoryview:
        path = self.manifest.directory / self.manifest.shards[number].file
        try:
            if path.suffix == ".xz":
                return memoryview(lzma.decompress(path.read_bytes()))
            if path.suffix in (".gz", ".tgz"):
                return memoryview(gzip.decompress(path.read_bytes()))
            with path.open("rb") as file:
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
            raise DataError(
                f"{path} cannot be read ({error}). It may be truncated; build or copy it again."
            ) from error
