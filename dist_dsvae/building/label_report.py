"""What ``index`` says of the labels it found: no class is empty, and no label changed, without a word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from pathlib import Path

from dist_dsvae.building.foreign_shard import ScannedShard
from dist_dsvae.core.errors import DataError
from dist_dsvae.data.shards.system_names import HEADING

_EXAMPLES = 5


def check_empty_classes(classes: Sequence[str], filled: Set[int], most: int | None, directory: Path) -> None:
    """Raise DataError if more classes than ``most`` (None: a tenth, at least one) have no sample."""
    empty = [label for label in range(len(classes)) if label not in filled]
    if len(empty) <= (max(1, len(classes) // 10) if most is None else most):
        return
    raise DataError(
        f"{len(empty):,} of the {len(classes):,} classes have no sample in {directory}: "
        f"{_named(classes, empty)}.{_from_one(empty)} Correct the labels; or, if they shall be empty, "
        f"allow it with --empty-classes {len(empty)}."
    )


def spoken_labels(
    shards: Sequence[ScannedShard],
    ids: Sequence[Sequence[int]],
    classes: Sequence[str],
    splits: Sequence[Path],
) -> Iterator[str]:
    """Lines on labels that were not plain ids from 0, on empty classes, and on what systems left behind.

    ids: for each shard, the class id of each sample.
    """
    decimals = sum(len(shard.decimals) for shard in shards)
    if decimals:
        yield f"{decimals:,} labels are written with a decimal point (1.0); they are taken as whole numbers"
    if any(isinstance(label, str) for shard in shards for label in shard.labels):
        yield f"labels are names; they get the class ids {_named(classes, range(len(classes)))}"
    filled = {label for of_shard in ids for label in of_shard}
    empty = [label for label in range(len(classes)) if label not in filled]
    if empty:
        yield f"classes without a sample, which stay empty: {_named(classes, empty)}.{_from_one(empty)}"
    for split in splits:
        here = {
            label
            for shard, own in zip(shards, ids, strict=True)
            if shard.path.parent == split
            for label in own
        }
        missing = sorted(filled - here)
        if missing:
            yield f"{split} has no sample of {len(missing):,} classes: {_named(classes, missing)}"
    found = [name for shard in shards for name in shard.system_files]
    if found:
        yield f"{HEADING}, left out: {len(found):,} ({_first(found)})"
    if unused := [name for shard in shards for name in shard.unused]:
        yield f"further images of samples that have one, not used: {len(unused):,} ({_first(unused)})"


def _from_one(empty: Sequence[int]) -> str:
    return " The ids seem to count from 1." if empty[0] == 0 and 1 not in empty else ""


def _named(classes: Sequence[str], labels: Sequence[int]) -> str:
    return _first([f"{label} ('{classes[label]}')" for label in labels])


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_EXAMPLES]) + (", ..." if len(names) > _EXAMPLES else "")
