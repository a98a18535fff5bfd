"""What one tar holds: each sample's image, its place in the tar, its label as it was written.

Accepted are samples with one image (jpg, jpeg, png, webp, bmp, ppm, pgm, or npy for a point) and a
label: a member .cls with a number or a name, or an entry label, cls, class or class_name of .json.
What training would refuse later is refused here, by the same functions (``decode``, ``tar_members``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dist_dsvae.building.tar_labels import Label, label_of, members_of
from dist_dsvae.building.tar_scan import Member, TarSample, scan
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.types import ImageShape
from dist_dsvae.data.decode import decode_into, empty_batch, shape_of

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "ppm", "pgm", "npy")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScannedShard:
    """What a tar holds, before the labels of all tars are brought together.

    spans: (offset, size) of each sample's image. names: what json members call numbered classes.
    shapes, encodings: each one found -> the key of the first sample that has it.
    decimals: keys of samples whose label is a whole number with a decimal point, such as 1.0.
    system_files: members that a system left behind, "tar: member". unused: further images of samples.
    """

    path: Path
    keys: list[str]
    spans: list[tuple[int, int]]
    labels: list[Label]
    names: dict[int, str]
    shapes: dict[ImageShape, str]
    encodings: dict[str, str]
    decimals: list[str] = field(default_factory=list)
    system_files: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)


def scan_shard(path: Path) -> ScannedShard:
    """Read one tar from end to end, and decode every image as training does.

    Raises DataError for anything that training could not use.
    """
    shard = ScannedShard(path=path, keys=[], spans=[], labels=[], names={}, shapes={}, encodings={})
    for sample in scan(path, shard.system_files):
        extension, image = _image_of(sample, path, shard.unused)
        found = label_of(sample, path)
        label, name = found.label, found.name
        if found.is_decimal:
            shard.decimals.append(sample.key)
        shard.keys.append(sample.key)
        shard.spans.append((image.offset, len(image.content)))
        shard.labels.append(label)
        shard.shapes.setdefault(_shape_of(extension, image.content, sample.key, path), sample.key)
        shard.encodings.setdefault("jpg" if extension == "jpeg" else extension, sample.key)
        if isinstance(label, int) and name is not None and shard.names.setdefault(label, name) != name:
            raise two_names(label, shard.names[label], name, f"sample '{sample.key}' of {path}")
    if not shard.keys:
        raise DataError(f"The shard {path} holds no sample. Remove it, or write it again.")
    return shard


def places_of(classes: Sequence[str]) -> dict[str, int]:
    """Class name -> its id; made once for all shards, for there may be many classes."""
    return {name: place for place, name in enumerate(classes)}


def class_ids(shard: ScannedShard, places: Mapping[str, int]) -> list[int]:
    """The class id of each sample of a shard. Raises DataError for a label that is none of ``places``."""
    ids = []
    for key, label in zip(shard.keys, shard.labels, strict=True):
        if isinstance(label, str) and label not in places:
            raise DataError(
                f"The sample '{key}' of the shard {shard.path} has the label '{label}', which is not one of "
                f"the {len(places)} classes. Correct the label, or the list of class names."
            )
        if isinstance(label, int) and not 0 <= label < len(places):
            raise DataError(
                f"The sample '{key}' of the shard {shard.path} has the label {label}; allowed are 0 to "
                f"{len(places) - 1}. Correct the label, or the list of class names."
            )
        ids.append(places[label] if isinstance(label, str) else label)
    return ids


def common_encoding(shards: Sequence[ScannedShard]) -> str:
    """The extension of all image members, or "mixed"."""
    encodings = {encoding for shard in shards for encoding in shard.encodings}
    return encodings.pop() if len(encodings) == 1 else "mixed"


def two_names(label: int, one: str, other: str, where: str) -> DataError:
    """A class id that is called by two names."""
    return DataError(
        f"The class id {label} has the name '{one}' in one place and '{other}' in another ({where}). "
        "Give the names with --classes FILE, one name a line in the order of the ids."
    )


def _image_of(sample: TarSample, path: Path, unused: list[str]) -> tuple[str, Member]:
    """The extension and the member. unused: gets the names of other images: x.seg.png beside x.jpg."""
    found = members_of(sample, IMAGE_EXTENSIONS)
    if len(found) != 1:
        files = ", ".join(f".{extension}" for extension in sample.members)
        count = "no image" if not found else f"{len(found)} images"
        raise DataError(
            f"The sample '{sample.key}' of the shard {path} has {count} (its files: {files}). Every sample "
            f"needs exactly one file with an extension of {', '.join(IMAGE_EXTENSIONS)}; files whose names "
            "are the same up to their first dot are one sample."
        )
    others = [e for e in sample.members if e.rpartition(".")[2] in IMAGE_EXTENSIONS and e != found[0]]
    labels = {e.rpartition(".")[0] for e in sample.members if e.rpartition(".")[2] == "cls"}
    for other in others:
        if other.rpartition(".")[0] in labels - {found[0].rpartition(".")[0]}:
            raise DataError(
                f"The sample '{sample.key}' of the shard {path} holds .{found[0]} and .{other}, which has a "
                "label of its own. Files whose names are the same up to their first dot are one sample: "
                "rename them."
            )
    unused += [f"{path.name}: {sample.key}.{other}" for other in others]
    return found[0].rpartition(".")[2], sample.members[found[0]]


def _shape_of(extension: str, content: bytes, key: str, path: Path) -> ImageShape:
    try:
        shape = shape_of(memoryview(content))
        decode_into(memoryview(content), empty_batch(shape, 1)[0])
        return shape
    except DataError as error:
        raise DataError(
            f"The .{extension} of sample '{key}' of the shard {path} cannot be read ({error}). Replace or "
            "remove the sample."
        ) from error
