"""Reads all of a split and compares it with its manifest and indexes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from dist_dsvae.building.foreign_shard import class_ids, common_encoding, places_of, scan_shard
from dist_dsvae.building.tar_scan import find_tars
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.files import sha256_of
from dist_dsvae.data.shards.manifest import MANIFEST_FILE, Manifest
from dist_dsvae.data.shards.store import Shard
from dist_dsvae.data.shards.table import fingerprint_of


def verify(manifest: Manifest, progress: Callable[[int], None] = lambda num_shards: None) -> None:
    """Check the sha256 of every shard, and every row of its index against the tar.

    progress: called with the number of shards done since the last call.
    Raises DataError at the first disagreement, naming the shard and the sample.
    """
    if manifest.remote is None:
        named = {shard.file for shard in manifest.shards}
        strangers = [path for path in find_tars(manifest.directory) if path.name not in named]
        if strangers:
            raise DataError(
                f"The manifest of {manifest.directory} does not name the shard {strangers[0].name}, so its "
                f"samples are not read. Index the shards anew (`dsvae build index "
                f"{manifest.directory}`), or move it away."
            )
    places = places_of(manifest.classes)
    counted: list[Shard] = []
    for number, shard in enumerate(manifest.shards):
        with manifest.store.open(shard) as file:
            labels = _verify_shard(manifest, places, number, Path(file.name))
        counted.append(replace(shard, samples_per_class=Counter(labels)))
        progress(1)
    if fingerprint_of(manifest.classes, manifest.shape, counted) != manifest.fingerprint:
        raise DataError(
            f"The fingerprint in {manifest.store.name(MANIFEST_FILE)} is not that of its shards: the file "
            f"was edited. {manifest.store.remedy}"
        )


def _verify_shard(manifest: Manifest, places: Mapping[str, int], number: int, path: Path) -> list[int]:
    """The labels of its samples. path: where the shard's tar is on this machine."""
    shard, remedy = manifest.shards[number], manifest.store.remedy
    name = manifest.store.name(shard.file)
    found = sha256_of(path)
    if found != shard.sha256:
        raise DataError(
            f"The shard {name} has the sha256 {found[:16]}..., but its manifest says "
            f"{shard.sha256[:16]}...: its content was changed. {remedy}"
        )
    index = manifest.index(number)
    scanned = scan_shard(path)
    rows = np.column_stack([np.array(scanned.spans), class_ids(scanned, places)])
    if len(rows) != len(index):
        raise DataError(
            f"The shard {name} holds {len(rows):,} samples, but its index {shard.index_file} has "
            f"{len(index):,} rows. {remedy}"
        )
    different = np.flatnonzero((rows != index).any(axis=1))
    if different.size:
        row = int(different[0])
        raise DataError(
            f"The sample '{scanned.keys[row]}' of the shard {name} has (offset, size, label) "
            f"{tuple(rows[row].tolist())}, but its index {shard.index_file} says "
            f"{tuple(index[row].tolist())}. {remedy}"
        )
    expected = manifest.shape
    for shape, key in scanned.shapes.items():
        if shape[1:] != expected[1:] or shape.channels > expected.channels:
            raise DataError(
                f"The sample '{key}' of the shard {name} has the shape {tuple(shape)}, but the manifest "
                f"says {tuple(expected)} (channels, height, width). {remedy}"
            )
    if manifest.encoding not in ("mixed", common_encoding([scanned])):
        raise DataError(
            f"The images of the shard {name} are {common_encoding([scanned])}, but the manifest says "
            f"{manifest.encoding}. {remedy}"
        )
    labels: list[int] = rows[:, 2].tolist()
    return labels
