"""Pictures that were found, wherever that was, become a source: with their labels, or without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from dist_dsvae.building.sources.file_encoder import FileEncoder
from dist_dsvae.building.sources.source import Source
from dist_dsvae.building.sources.unlabelled import HeldOutChoice, without_labels
from dist_dsvae.building.writer import Sample
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.images import EncodedImage
from dist_dsvae.core.noise import Draw, permutation

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundImages:
    """What a place holds; the labels of the samples are not used.

    origin: where it was found, for messages.
    splits: "train" and perhaps "test" -> class -> pictures in a fixed order; no class without one.
    loose: pictures of no class; only a source without labels takes them.
    left_out, notes: as in ``Source``.
    """

    origin: str
    splits: Mapping[str, Mapping[str, Sequence[Sample[EncodedImage]]]]
    loose: Sequence[Sample[EncodedImage]] = ()
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: Sequence[str] = ()


def with_labels(
    name: str, found: FoundImages, encoder: FileEncoder, *, test_fraction: float, min_images: int
) -> Source:
    """A source called ``name``, whose classes are the sorted names.

    test_fraction: share (0 to below 1) of each class that becomes the split "test", if none was found; which
        ones is decided by a hash of their place.
    min_images: leave out classes with fewer, all splits together.
    Raises DataError if there are two test splits to be, or no class is large enough.
    """
    if test_fraction and "test" in found.splits:
        raise DataError(
            f"{found.origin} has the split 'test' already, so a test fraction of {test_fraction} cannot be "
            "taken. Leave --test-fraction out, or give the training split alone."
        )
    names = sorted({name for images in found.splits.values() for name in images})
    counts = {name: sum(len(images.get(name, ())) for images in found.splits.values()) for name in names}
    left_out = dict(found.left_out)
    classes = _large_enough(counts, min_images, found.origin, left_out)
    splits: dict[str, Sequence[Sample[EncodedImage]]] = {
        split: [
            replace(sample, label=label)
            for label, class_ in enumerate(classes)
            for sample in images.get(class_, ())
        ]
        for split, images in found.splits.items()
    }
    if test_fraction:
        splits = divide(splits["train"], len(classes), test_fraction)
    return Source(
        name=name,
        classes=classes,
        splits=splits,
        encode=encoder,
        shape=encoder.shape,
        extension=encoder.codec.extension,
        left_out=left_out,
        notes=[*found.notes, *_alike(classes)],
    )


def _alike(classes: Sequence[str]) -> Iterator[str]:
    """A note on each group of classes that a person may have meant as one."""
    spellings: dict[str, list[str]] = {}
    for name in classes:
        spellings.setdefault(name.casefold(), []).append(name)
    for names in spellings.values():
        if len(names) > 1:
            listed = " and ".join(repr(name) for name in names)
            yield f"{listed} are classes of their own, though capital letters alone tell them apart"


def as_unlabelled(
    name: str, found: FoundImages, encoder: FileEncoder, choice: HeldOutChoice, *, min_images: int
) -> Source:
    """The split "train" without labels, and perhaps "held-out" (``without_labels``).

    min_images: leave out classes with fewer; pictures of no class are always taken.
    Raises DataError if there are no pictures, or not what ``choice`` asks for.
    """
    images = found.splits.get("train", {})
    counts = {class_: len(samples) for class_, samples in images.items()}
    left_out = dict(found.left_out)
    kept = _large_enough(counts, min_images, found.origin, left_out) if counts else ()
    source = without_labels(
        name,
        found.origin,
        {class_: images[class_] for class_ in kept},
        choice,
        encoder,
        left_out,
        loose=found.loose,
    )
    return replace(source, notes=found.notes)


def _large_enough(
    counts: Mapping[str, int], min_images: int, origin: str, left_out: dict[str, Sequence[str]]
) -> tuple[str, ...]:
    kept = tuple(name for name, count in counts.items() if count >= min_images)
    few = [f"{name} ({count})" for name, count in counts.items() if count < min_images]
    if few:
        left_out[f"classes of fewer than {min_images} pictures"] = few
    if not kept:
        raise DataError(
            f"No class of {origin} has {min_images:,} pictures; the largest has "
            f"{max(counts.values()):,}. Ask for fewer with --min-pictures."
        )
    return kept


def divide(
    samples: Sequence[Sample[T]], num_classes: int, test_fraction: float
) -> dict[str, Sequence[Sample[T]]]:
    """Train and test, class by class; each class keeps at least one training sample.

    Raises DataError if no class is large enough to give a test sample.
    """
    per_class: list[list[Sample[T]]] = [[] for _ in range(num_classes)]
    for sample in samples:
        per_class[sample.label].append(sample)
    train: list[Sample[T]] = []
    test: list[Sample[T]] = []
    for label, members in enumerate(per_class):
        num_test = min(round(test_fraction * len(members)), len(members) - 1)
        shuffled = permutation(len(members), int(Draw.BUILD_SPLIT), label).tolist()
        chosen = set(shuffled[:num_test])
        for place, sample in enumerate(members):
            (test if place in chosen else train).append(sample)
    if not test:
        raise DataError(
            f"A test fraction of {test_fraction} leaves no test sample: the largest class has "
            f"{max(map(len, per_class))} pictures. Take a larger fraction or leave it out."
        )
    return {"train": train, "test": test}
