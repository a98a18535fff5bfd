"""What can be told of a split's files without reading them: that they are there, of the right size, and later
that they are still the same."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from dist_dsvae.core.errors import DataError
from dist_dsvae.data.shards.store import Shard
from dist_dsvae.data.shards.table import ShardTable

_NPY_HEADER_BYTES = 128


def check_files(directory: Path, shards: ShardTable, remedy: str) -> tuple[list[int], npt.NDArray[np.int64]]:
    """The numbers of the shards whose index is missing or of another size, and when each tar was changed.

    That is int64 [number of shards], in nanoseconds, for ``check_unchanged``.

    Raises DataError, ending with ``remedy``, for a tar that is missing or of another size.
    """
    suspicious = []
    modified_ns = np.empty(len(shards), np.int64)
    folder = f"{directory}{os.sep}"
    for number, (tar, index, num_samples, num_bytes) in enumerate(shards.files()):
        modified_ns[number] = _check_tar(folder + tar, num_bytes, remedy)
        if not _is_of_size(folder + index, num_samples):
            suspicious.append(number)
    return suspicious, modified_ns


def suspicious_indexes(directory: Path, shards: ShardTable) -> list[int]:
    """The numbers of the shards whose index is missing or of another size; their tars may be elsewhere."""
    folder = f"{directory}{os.sep}"
    indexes = ((index, num_samples) for _, index, num_samples, _ in shards.files())
    return [number for number, (index, n) in enumerate(indexes) if not _is_of_size(folder + index, n)]


def check_unchanged(
    tar: BinaryIO, number: int, shard: Shard, modified_ns: npt.NDArray[np.int64], name: str
) -> None:
    """Compare the open tar of a shard with what ``check_files`` saw: its size and time, which cost nothing.

    Where these are others the content decides, by its hash, and its time is noted in ``modified_ns``. Inodes
    are not compared: some network file systems number files anew.
    name: of the tar, for messages. Raises DataError if it was replaced by another one meanwhile.
    """
    status = os.fstat(tar.fileno())
    if (status.st_size, status.st_mtime_ns) == (shard.num_bytes, modified_ns[number]):
        return
    if hashlib.file_digest(tar, "sha256").hexdigest() != shard.sha256:  # type: ignore[arg-type]
        raise DataError(
            f"The shard {name} was replaced while its split was being read, and its content is another. Put "
            "the old shards back and start again, or begin anew with the new ones."
        )
    modified_ns[number] = status.st_mtime_ns


def _is_of_size(index: str, num_samples: int) -> bool:
    try:
        found = os.stat(index).st_size  # noqa: PTH116 - of a million; a Path takes longer
    except OSError:
        return False
    return found == _NPY_HEADER_BYTES + 24 * num_samples


def _check_tar(tar: str, num_bytes: int, remedy: str) -> int:
    """When it was changed last, in nanoseconds."""
    try:
        status = os.stat(tar)  # noqa: PTH116
    except FileNotFoundError:
        status = None
    if status is None or not stat.S_ISREG(status.st_mode):
        raise DataError(f"The shard {tar} is named by its manifest but does not exist. {remedy}")
    if status.st_size != num_bytes:
        raise DataError(
            f"The shard {tar} has {status.st_size:,} bytes, but its manifest says {num_bytes:,}: "
            f"the tar is incomplete or was replaced. {remedy}"
        )
    return status.st_mtime_ns
