"""What every source hands to the writer, and the choice of a part of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dist_dsvae.building.writer import Encode, Sample
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.faces.crop_record import FaceCrops
from dist_dsvae.core.noise import Draw, permutation
from dist_dsvae.core.types import ImageShape


class Companion(Protocol):
    """What a source adds to a build beside its samples."""

    def report(self) -> Mapping[str, object]:
        """Further entries of report.json."""
        ...

    def write(self, directory: Path) -> None:
        """Write further files into ``directory``, which is about to become OUT."""
        ...

    def finish(self) -> None:
        """Called when OUT is complete: remove what was kept for the case that the build is killed."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A raw data set.

    name: goes into the manifests.
    classes: sorted names, one list for all splits but those in ``other_classes``.
    splits: "train" and perhaps "test" or "held-out" -> samples in a fixed order.
    encode: makes the image member, of extension ``extension`` and shape ``shape``, of a sample.
    left_out: heading -> names of what was found but not used.
    other_classes: split -> its sorted names, where they differ from ``classes``: identities that are
        held out are none of those trained on.
    notes: sentences on what was made of the raw data, for the report.
    companion: what the build leaves beside the splits; None for nothing.
    face_crops: how its images were cut out of photographs, if they are faces.
    """

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, Sequence[Sample[Any]]]
    encode: Encode[Any]
    shape: ImageShape
    extension: str
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    other_classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    companion: Companion | None = None
    face_crops: FaceCrops | None = None

    def classes_of(self, split: str) -> tuple[str, ...]:
        """The names that the labels of ``split`` are places in."""
        return self.other_classes.get(split, self.classes)


def take_balanced(samples: Sequence[Sample[Any]], count: int | None, split: str) -> Sequence[Sample[Any]]:
    """``count`` of the samples, evenly over the classes (to within one); all of them if None.

    Which ones is decided by a hash of their place. They keep their order.
    Raises DataError if a class has too few.
    """
    if count is None:
        return samples
    if not 1 <= count <= len(samples):
        raise DataError(
            f"{count:,} samples were asked for in the split '{split}', which has {len(samples):,}. "
            f"Ask for 1 to {len(samples):,}."
        )
    labels = np.array([sample.label for sample in samples])
    shuffled = permutation(len(samples), int(Draw.BUILD_SPLIT)).numpy()
    rank_in_class = np.empty(len(samples), dtype=np.int64)
    for label in np.unique(labels):
        places = shuffled[labels[shuffled] == label]
        rank_in_class[places] = np.arange(len(places))
    chosen = np.lexsort((labels, rank_in_class))[:count]
    return [samples[place] for place in sorted(chosen.tolist())]
