"""What can be told of a split's files without reading them: that they are there, of the right size."""

from __future__ import annotations

from pathlib import Path

from dist_dsvae.core.errors import DataError
from dist_dsvae.data.shards.store import Shard

_NPY_HEADER_BYTES = 128


def has_index(directory: Path, shard: Shard) -> bool:
    """Whether there is an index of the right size."""
    try:
        found = (directory / shard.index_file).stat().st_size
    except OSError:
        return False
    return found == _NPY_HEADER_BYTES + 24 * shard.num_samples


def check_tar(directory: Path, shard: Shard, remedy: str) -> None:
    """What can be checked without reading the tar."""
    tar = directory / shard.file
    if not tar.is_file():
        raise DataError(f"The shard {tar} is named by its manifest but does not exist. {remedy}")
    found_bytes = tar.stat().st_size
    if found_bytes != shard.num_bytes:
        raise DataError(
            f"The shard {tar} has {found_bytes:,} bytes, but its manifest says {shard.num_bytes:,}: "
            f"the tar is incomplete or was replaced. {remedy}"
        )
