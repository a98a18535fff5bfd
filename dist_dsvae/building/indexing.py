"""Adds manifests and indexes to shards that other tools made.

tars --scan (worker processes)--> offsets, raw labels, shapes --all splits together--> classes
     --> per split: index files, then manifest.json
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from dist_dsvae.building.foreign_shard import (
    ScannedShard,
    class_ids,
    common_encoding,
    places_of,
    scan_shard,
    two_names,
)
from dist_dsvae.building.label_report import check_empty_classes, spoken_labels
from dist_dsvae.building.parallel import run_tasks
from dist_dsvae.building.tar_labels import composed
from dist_dsvae.building.tar_scan import find_splits, find_tars, folders_with_manifests, is_manifest
from dist_dsvae.building.writer import index_tar
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.faces.crop_record import FaceCrops
from dist_dsvae.core.files import write_together
from dist_dsvae.core.text import TextError, read_json, read_text
from dist_dsvae.core.types import ImageShape
from dist_dsvae.data.shards.index_file import index_file_of, parse_index
from dist_dsvae.data.shards.manifest import MANIFEST_FILE, Manifest
from dist_dsvae.data.shards.table import TABLE_FILE

_MOST_CLASSES = 1_000_000


def index(
    directory: Path,
    *,
    command: str,
    names: Sequence[str] | None = None,
    max_empty_classes: int | None = None,
    num_workers: int = 1,
    progress: Callable[[int], None] = lambda num_shards: None,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Manifest]:
    """Write a manifest into ``directory``, or into its sub-folders if those hold the tars.

    names: of the classes in the order of their ids; by default they come from the shards, and where those
    have numbers from the manifests that are replaced. How faces were cut out is kept, too.
    max_empty_classes: so many may have no sample in any split; None for a tenth of them, but at least one.
    All splits get the same list of classes and must have the same image shape.
    progress: called with the number of shards done since the last call.
    tell: called with a line on what was made of labels and files, where that is not plain.
    Raises DataError for anything about the shards that is not as it must be.
    """
    splits = find_splits(directory)
    for emptied in folders_with_manifests(directory):
        if not find_tars(emptied):
            raise DataError(
                f"{emptied} has a {MANIFEST_FILE}, but none of its shards. Bring them back, or move that "
                "folder away."
            )
    tars = [tar for split in splits for tar in find_tars(split)]
    _check_index_names(tars)
    for split in splits:
        _check_replaceable(split)
    known = {split: _known(split) for split in splits}
    shards = run_tasks(scan_shard, tars, num_workers, lambda tar: progress(1))
    classes = tuple(names) if names is not None else _name_classes(shards, [*known.values()])
    shape = _common_shape(shards)
    places = places_of(classes)
    ids = [class_ids(shard, places) for shard in shards]
    check_empty_classes(
        classes, {label for of_shard in ids for label in of_shard}, max_empty_classes, directory
    )
    for line in spoken_labels(shards, ids, classes, splits):
        tell(line)
    described = [
        _describe(
            split,
            [pair for pair in zip(shards, ids, strict=True) if pair[0].path.parent == split],
            classes,
            shape,
            command,
            known[split],
        )
        for split in splits
    ]
    # an interrupt, or a full disk, leaves the labels of before under the classes of before
    write_together([file for _, files in described for file in files])
    return [manifest for manifest, _ in described]


def read_class_names(path: Path) -> list[str]:
    """The lines of a file, one class name each in the order of the ids."""
    try:
        names = [composed(line.strip()) for line in read_text(path).splitlines()]
    except (OSError, TextError) as error:
        raise DataError(f"The class names cannot be read from {path} ({error}). Correct the path.") from error
    while names and not names[-1]:
        names.pop()
    if not names or not all(names) or len(set(names)) < len(names):
        raise DataError(
            f"{path} must hold one class name a line, each only once, without empty lines in between; it "
            f"has {len(names)} lines and {len(set(names) - {''})} different names."
        )
    return names


def _check_index_names(tars: Sequence[Path]) -> None:
    taken: dict[Path, Path] = {}
    for tar in tars:
        other = taken.setdefault(tar.with_name(index_file_of(tar.name)), tar)
        if other != tar:
            raise DataError(
                f"{other} and {tar.name} differ only in their compression. Keep one of them: they "
                "would count every sample twice."
            )


def _check_replaceable(split: Path) -> None:
    """Raise DataError if a manifest or an index would replace a file of another program.

    Damaged ones of our own are replaced, for that is how they are mended.
    """
    manifest, table = split / MANIFEST_FILE, split / TABLE_FILE
    said = manifest.read_bytes() if manifest.is_file() else b""
    foreign = None if not said or is_manifest(said) else manifest
    if table.is_file() and table.stat().st_size:
        if not said:
            foreign = table
        said += table.read_bytes()  # of version 2, it has the names of the tars
    for tar in find_tars(split):
        path = split / index_file_of(tar.name)
        if path.is_file() and path.stat().st_size and tar.name.encode() not in said:
            try:
                parse_index(path.read_bytes(), str(path), "")
            except DataError:
                foreign = path
    if foreign is not None:
        raise DataError(
            f"{foreign} exists already, and is not of this program's making: indexing would replace it. Move "
            "it away, or link the tars into another folder and index that."
        )


def _known(split: Path) -> Mapping[str, Any]:
    """What the manifest that is there says, whatever else is damaged; empty where it says nothing."""
    try:
        document = read_json(split / MANIFEST_FILE)
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _known_classes(
    known: Sequence[Mapping[str, Any]], shards: Sequence[ScannedShard]
) -> tuple[str, ...] | None:
    """The one list of classes of the manifests that were there, if all labels of the shards fit it.

    One that only counts says no more than the shards do, which may be of fewer classes now.
    """
    lists = {tuple(map(str, classes)) for each in known if isinstance(classes := each.get("classes"), list)}
    if len(lists) != 1:
        return None
    (classes,) = lists
    numbers = {label for shard in shards for label in shard.labels if isinstance(label, int)}
    named = [item for shard in shards for item in shard.names.items()]
    fits = min(numbers) >= 0 and max(numbers) < len(classes) == len(set(classes))
    fits = fits and classes != _counted(len(classes))
    return classes if fits and all(classes[label] == name for label, name in named) else None


def _known_crops(known: Mapping[str, Any], fingerprint: str) -> FaceCrops | None:
    """How faces were cut out, by the manifest that was there, if that was of the very same samples."""
    with suppress(DataError):
        return FaceCrops.from_document(known) if known.get("fingerprint") == fingerprint else None
    return None


def _common_shape(shards: Sequence[ScannedShard]) -> ImageShape:
    """The one height and width; one channel if all images are grey, otherwise three."""
    first: tuple[ImageShape, str, Path] | None = None
    channels = 0
    for shard in shards:
        for shape, key in shard.shapes.items():
            first = first or (shape, key, shard.path)
            if _extent(shape) != _extent(first[0]):
                raise DataError(
                    f"The sample '{key}' of the shard {shard.path} is {_spoken(shape)}, but '{first[1]}' of "
                    f"{first[2]} is {_spoken(first[0])}. All images must have one height and width: scale "
                    "them, for example by unpacking and `dsvae build folder`."
                )
            channels = max(channels, shape.channels)
    assert first is not None, "scan_shard refuses a shard without a sample"
    return first[0]._replace(channels=channels)


def _extent(shape: ImageShape) -> tuple[int, int, int]:
    """What all samples must share: grey and colour images may be mixed."""
    return (shape.height, shape.width, 0 if shape.is_image else shape.channels)


def _spoken(shape: ImageShape) -> str:
    if shape.is_image:
        return f"{shape.width} pixels wide and {shape.height} high"
    return f"a point of {shape.channels} coordinates"


def _counted(count: int) -> tuple[str, ...]:
    """Names of classes without any: numbers of equal length."""
    width = len(str(count - 1))
    return tuple(f"{label:0{width}d}" for label in range(count))


def _name_classes(shards: Sequence[ScannedShard], known: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Class names from the shards: sorted names, or names by number, of ``known`` manifests if they fit."""
    texts = {label for shard in shards for label in shard.labels if isinstance(label, str)}
    numbers = {label for shard in shards for label in shard.labels if isinstance(label, int)}
    if texts and numbers:
        raise DataError(
            f"Some labels are numbers (such as {min(numbers)}) and some are names (such as "
            f"'{min(texts)}'). Use one kind, or give the names with --classes FILE, one name a line."
        )
    if texts:
        return tuple(sorted(texts))
    if min(numbers) < 0 or max(numbers) >= _MOST_CLASSES:
        worst = min(numbers) if min(numbers) < 0 else max(numbers)
        shard = next(shard for shard in shards if worst in shard.labels)
        raise DataError(
            f"The sample '{shard.keys[shard.labels.index(worst)]}' of the shard {shard.path} has the label "
            f"{worst}; class ids count from 0 and stay below {_MOST_CLASSES:,}. Correct the label."
        )
    if (classes := _known_classes(known, shards)) is not None:
        return classes
    names: dict[int, str] = {}
    for shard in shards:
        for label, name in shard.names.items():
            if names.setdefault(label, name) != name:
                raise two_names(label, names[label], name, str(shard.path))
    classes = tuple(names.get(i, number) for i, number in enumerate(_counted(max(numbers) + 1)))
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice:
        ids = [label for label, name in enumerate(classes) if name == twice[0]]
        raise DataError(
            f"The class ids {', '.join(map(str, ids))} have the same name '{twice[0]}'. "
            "Give the names with --classes FILE, one name a line in the order of the ids."
        )
    return classes


def _describe(
    split: Path,
    scanned: Sequence[tuple[ScannedShard, list[int]]],
    classes: tuple[str, ...],
    shape: ImageShape,
    command: str,
    known: Mapping[str, Any],
) -> tuple[Manifest, list[tuple[Path, bytes]]]:
    """A split's manifest, and all files to write, the manifest last."""
    shards, files = [], []
    for shard, labels in scanned:
        rows = [(offset, size, label) for (offset, size), label in zip(shard.spans, labels, strict=True)]
        described, content = index_tar(shard.path, rows)
        shards.append(described)
        files.append((split / described.index_file, content))
    manifest = Manifest.of(
        directory=split,
        classes=classes,
        shape=shape,
        encoding=common_encoding([shard for shard, _ in scanned]),
        shards=shards,
        command=command,
        source="index",
    )
    manifest = replace(manifest, face_crops=_known_crops(known, manifest.fingerprint))
    return manifest, [*files, *manifest.files()]
