"""From a source of photographs to a source of aligned crops, with a report of what became of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dist_dsvae.building.faces.choose_face import choose
from dist_dsvae.building.faces.contact_sheet import Sheet, SheetEntry, sheet_file, write_sheet
from dist_dsvae.building.faces.duplicates import near_duplicates
from dist_dsvae.building.faces.options import FaceOptions
from dist_dsvae.building.faces.survey import Seen, SeenFace, image_of, survey
from dist_dsvae.building.faces.work_cache import WorkCache
from dist_dsvae.building.parallel import run_tasks
from dist_dsvae.building.sources.own_images.found import divide
from dist_dsvae.building.sources.source import Source
from dist_dsvae.building.writer import Sample, UnreadableError
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.faces.align import Alignment
from dist_dsvae.core.faces.crop_record import RECORD_KEY, FaceCrops
from dist_dsvae.core.faces.detect import Detector
from dist_dsvae.core.faces.face import ImageOfPerson, Point
from dist_dsvae.core.images import Codec, EncodedImage, flatten, open_encoded, open_image, why_unreadable
from dist_dsvae.core.types import ImageShape
from dist_dsvae.data.shards.manifest import UNLABELLED

SHEETS_FOLDER = "contact-sheets"
NO_FACE, UNDECODABLE, DUPLICATE = "no face", "undecodable", "duplicate"

# A progress bar: what is counted, how many -> a context that gives the function to advance it.
ProgressOf = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True, slots=True)
class FaceCrop:
    """The face with these landmarks in this picture, upright as its EXIF says."""

    image: EncodedImage
    landmarks: Sequence[Point]


@dataclass(frozen=True, slots=True)
class FaceEncoder:
    """Encodes the FaceCrop at ``sample.reference``."""

    alignment: Alignment
    channels: int
    codec: Codec

    def __call__(self, sample: Sample[FaceCrop]) -> tuple[bytes, dict[str, object]]:
        crop = sample.reference
        try:
            with open_encoded(crop.image) as stream, open_image(stream) as opened:
                image = self.alignment.crop(flatten(opened), crop.landmarks)
        except Exception as error:  # a file that changed since the survey can raise anything
            raise UnreadableError(why_unreadable(error, crop.image)) from error
        packed = self.codec.pack(image if self.channels == 3 else image.convert("L"))
        return packed, {"landmarks": crop.landmarks}


def crop_faces(
    source: Source,
    options: FaceOptions,
    detector: Detector,
    cache: WorkCache,
    *,
    num_workers: int,
    progress_of: ProgressOf,
) -> Source:
    """One aligned face of each picture of ``source``, near-duplicates left out.

    source: its samples' references are EncodedImage or BoxedImage.
    Of near-duplicates one outside the split "train" is kept, else the one whose face is largest, also
    across classes: no two samples of the result are near-duplicates of each other.
    Raises DataError if no picture shows a face, or a test fraction is asked of a source with a test split.
    """
    if options.test_fraction and "test" in source.splits:
        raise DataError(
            f"The source has the split 'test' already, so a test fraction of {options.test_fraction} "
            "cannot be taken. Set --test-fraction 0, or give the training pictures alone."
        )
    samples = [(split, sample) for split, members in source.splits.items() for sample in members]
    images = [sample.reference for _, sample in samples]
    with progress_of("photographs searched for faces", len(images)) as progress:
        seen = survey(images, detector, cache, num_workers=num_workers, progress=progress)
    fates = _decide(source, samples, seen, options)
    kept: dict[str, list[Sample[Any]]] = {split: [] for split in source.splits}
    for (split, sample), fate in zip(samples, fates, strict=True):
        if fate.face is not None:
            kept[split].append(replace(sample, reference=fate.crop))
    if not any(kept.values()):
        raise DataError(
            f"None of the {len(samples):,} pictures shows a face of {options.min_face:g} pixels or more"
            f"{_example(fates)}. Give photographs of people, or a smaller --min-face."
        )
    splits: Mapping[str, Sequence[Sample[Any]]] = kept
    if options.test_fraction:
        splits = divide(kept["train"], len(source.classes), options.test_fraction)
    face_crops = FaceCrops(alignment=Alignment(options.size), detector=detector.record)
    return replace(
        source,
        splits=splits,
        encode=FaceEncoder(face_crops.alignment, options.channels, options.codec),
        shape=ImageShape(options.channels, options.size, options.size),
        extension=options.codec.extension,
        left_out={**source.left_out, **_left_out(fates)},
        notes=[*source.notes, *_remarks(fates)],
        companion=FaceCompanion(_names(source), fates, face_crops, cache, num_workers),
        face_crops=face_crops,
    )


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a picture of a class: a face that was kept, or a heading and a reason."""

    sample: Sample[Any]
    class_name: str
    face: SeenFace | None
    heading: str = "kept"
    reason: str = ""

    @property
    def crop(self) -> FaceCrop:
        assert self.face is not None, "only a kept picture has a crop"
        return FaceCrop(image_of(self.sample.reference), self.face.face.landmarks)

    @property
    def line(self) -> str:
        return f"{self.sample.name} ({self.reason})" if self.reason else self.sample.name


def _names(source: Source) -> tuple[str, ...]:
    """The classes of all splits, each once."""
    return tuple(dict.fromkeys(name for split in source.splits for name in source.classes_of(split)))


def _identities(source: Source, samples: Sequence[tuple[str, Sample[Any]]]) -> list[int]:
    """Equal numbers for pictures of one person, as far as that is known: not at all without labels."""
    numbers = {name: number for number, name in enumerate(_names(source))}
    found = []
    for place, (split, sample) in enumerate(samples):
        classes = source.classes_of(split)
        found.append(len(numbers) + place if classes == UNLABELLED else numbers[classes[sample.label]])
    return found


def _decide(
    source: Source, samples: Sequence[tuple[str, Sample[Any]]], seen: Sequence[Seen], options: FaceOptions
) -> list[Fate]:
    boxes = [
        sample.reference.box if isinstance(sample.reference, ImageOfPerson) else None for _, sample in samples
    ]
    identities = _identities(source, samples)
    chosen = choose(seen, identities, boxes, how=options.choice, min_face=options.min_face)
    fates = []
    for (split, sample), one, face in zip(samples, seen, chosen, strict=True):
        name = source.classes_of(split)[sample.label]
        if one.error is not None:
            fates.append(Fate(sample, name, None, UNDECODABLE, one.error))
        elif isinstance(face, str):
            fates.append(Fate(sample, name, None, NO_FACE, "" if face == NO_FACE else face))
        else:
            fates.append(Fate(sample, name, face))
    if options.duplicate_bits < 0:
        return fates
    faces = {place: fate.face for place, fate in enumerate(fates) if fate.face is not None}
    order = sorted(faces, key=lambda place: (samples[place][0] == "train", -faces[place].face.edge, place))
    hashes = [faces[place].hash for place in order]
    looks = np.array([faces[place].look_vector() for place in order], dtype=np.float32)
    for repeat, first in near_duplicates(hashes, looks, options.duplicate_bits).items():
        reason = f"of {fates[order[first]].sample.name}"
        fates[order[repeat]] = replace(fates[order[repeat]], face=None, heading=DUPLICATE, reason=reason)
    return fates


def _left_out(fates: Sequence[Fate]) -> dict[str, list[str]]:
    headings: dict[str, list[str]] = {}
    for fate in fates:
        if fate.face is None:
            headings.setdefault(fate.heading, []).append(fate.line)
    return headings


def _remarks(fates: Sequence[Fate]) -> list[str]:
    repeats = sum(fate.heading == DUPLICATE for fate in fates)
    if not repeats:
        return []
    return [
        f"Duplicates ({repeats:,}) are pictures whose face looks like that of another one, which was kept "
        "and which their lines name: one photograph in several sizes, cuts or qualities. --duplicate-bits -1 "
        "keeps all"
    ]


def _example(fates: Sequence[Fate]) -> str:
    return next((f"; {fate.sample.name}: {fate.reason or fate.heading}" for fate in fates), "")


@dataclass(frozen=True, slots=True)
class FaceCompanion:
    """The entries "faces" and "face_crops" of report.json, and OUT/contact-sheets/<class>.png."""

    classes: Sequence[str]
    fates: Sequence[Fate]
    face_crops: FaceCrops
    cache: WorkCache
    num_workers: int

    def report(self) -> dict[str, object]:
        faces: dict[str, dict[str, list[str]]] = {
            name: {"kept": [], NO_FACE: [], UNDECODABLE: [], DUPLICATE: []} for name in self.classes
        }
        for fate in self.fates:
            faces[fate.class_name][fate.heading].append(fate.line)
        return {RECORD_KEY: self.face_crops.to_tree(), "faces": faces}

    def write(self, directory: Path) -> None:
        (directory / SHEETS_FOLDER).mkdir()
        per_class: dict[str, list[Fate]] = {name: [] for name in self.classes}
        for fate in self.fates:
            per_class[fate.class_name].append(fate)
        sheets = [
            _sheet(directory / SHEETS_FOLDER / sheet_file(name), name, fates)
            for name, fates in per_class.items()
        ]
        run_tasks(write_sheet, sheets, self.num_workers)

    def finish(self) -> None:
        self.cache.remove()


def _sheet(path: Path, name: str, fates: Sequence[Fate]) -> Sheet:
    kept = [fate for fate in fates if fate.face is not None]
    left_out = sorted((fate for fate in fates if fate.face is None), key=lambda fate: fate.heading)
    return Sheet(
        path,
        f"{name}: {len(kept)} kept of {len(fates)}",
        [SheetEntry(fate.crop.image, fate.sample.name, fate.crop.landmarks) for fate in kept],
        [
            SheetEntry(image_of(fate.sample.reference), fate.sample.name, caption=fate.heading)
            for fate in left_out
        ],
    )
