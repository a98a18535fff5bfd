"""What can be told of a split's files without reading them: that they are there, of the right size."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from dist_dsvae.core.errors import DataError
from dist_dsvae.data.shards.table import ShardTable

_NPY_HEADER_BYTES = 128


def check_files(directory: Path, shards: ShardTable, remedy: str) -> list[int]:
    """The numbers of the shards whose index is missing or of another size.

    Raises DataError, ending with ``remedy``, for a tar that is missing or of another size.
    """
    suspicious = []
    folder = f"{directory}{os.sep}"
    for number, (tar, index, num_samples, num_bytes) in enumerate(shards.files()):
        _check_tar(folder + tar, num_bytes, remedy)
        try:
            found = os.stat(folder + index).st_size  # noqa: PTH116 - of a million; a Path takes longer
        except OSError:
            found = -1
        if found != _NPY_HEADER_BYTES + 24 * num_samples:
            suspicious.append(number)
    return suspicious


def _check_tar(tar: str, num_bytes: int, remedy: str) -> None:
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
