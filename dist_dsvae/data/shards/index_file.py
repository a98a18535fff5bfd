"""A shard's index: where its images lie, and whether that agrees with the manifest.

int64 [n, 3], in the order of the tar: offset of the image's bytes in the *uncompressed* tar stream,
their number, class id.
"""

from __future__ import annotations

import hashlib
import io
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dist_dsvae.core.errors import DataError
from dist_dsvae.data.shards.store import Shard
from dist_dsvae.data.shards.unpacked import TAR_SUFFIXES

# numpy parses headers by Python's own parser, which fails now and then in several threads (3.11)
_ONE_AT_A_TIME = threading.Lock()

Index = npt.NDArray[np.int64]


def index_file_of(file: str) -> str:
    """The name of a shard's index: 000000.tar.gz -> 000000.index.npy."""
    for suffix in TAR_SUFFIXES:
        if file.endswith(suffix):
            return f"{file.removesuffix(suffix)}.index.npy"
    raise DataError(f"{file} is not a shard; known are {', '.join(TAR_SUFFIXES)}.")


def read_index(path: Path, shard: Shard, num_classes: int, remedy: str) -> Index:
    """The index in a file, compared with what the manifest says of its shard.

    Raises DataError, ending with ``remedy``, if it is missing or disagrees.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"The index file {path} is missing. {remedy}") from error
    except OSError as error:
        raise DataError(f"The index file {path} cannot be read ({error}). {remedy}") from error
    return check_index(content, shard, num_classes, name=str(path), remedy=remedy)


def parse_index(content: bytes, name: str, remedy: str) -> Index:
    """The index in a file's bytes. Raises DataError, ending with ``remedy``, if it cannot be used."""
    try:
        with _ONE_AT_A_TIME:
            index = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"The index file {name} cannot be read ({error}). {remedy}") from error
    if index.dtype != np.int64 or index.shape[1:] != (3,):
        raise DataError(f"The index file {name} is not an int64 table of three columns. {remedy}")
    return index


def check_index(content: bytes, shard: Shard, num_classes: int, *, name: str, remedy: str) -> Index:
    """The index in a file's bytes, compared with what the manifest says of its shard; no tar is opened.

    name: path or URL of the index. Raises DataError at the first disagreement.
    """
    index = parse_index(content, name, remedy)
    if len(index) != shard.num_samples:
        raise DataError(
            f"The index {name} has {len(index):,} rows, but the manifest says that {shard.file} "
            f"holds {shard.num_samples:,} samples. {remedy}"
        )
    labels = np.asarray(index[:, 2])
    outside = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if outside.size:
        row = int(outside[0])
        raise DataError(
            f"Sample {row} of the shard {shard.file} has, by the index {name}, the label {labels[row]}; "
            f"allowed are 0 to {num_classes - 1} ({num_classes} classes in the manifest). {remedy}"
        )
    if shard.samples_per_class is not None:
        found, counts = np.unique(labels, return_counts=True)
        if dict(zip(found.tolist(), counts.tolist(), strict=True)) != {
            label: count for label, count in shard.samples_per_class.items() if count
        }:
            raise DataError(
                f"The labels in {name} are not those that the manifest counts per class. {remedy}"
            )
    ends = index[:, 0] + index[:, 1]
    beyond_end = shard.file.endswith(".tar") and int(ends.max(initial=0)) > shard.num_bytes
    if beyond_end or int(index[:, :2].min(initial=0)) < 0:
        raise DataError(f"The index {name} points outside the shard {shard.file}. {remedy}")
    found_sha256 = hashlib.sha256(content).hexdigest()
    if shard.index_sha256 not in (None, found_sha256):
        raise DataError(
            f"The index {name} is not as it was written: its sha256 is {found_sha256[:16]}..., but the "
            f"manifest says {str(shard.index_sha256)[:16]}.... {remedy}"
        )
    return index
