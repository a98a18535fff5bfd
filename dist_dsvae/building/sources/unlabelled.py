"""Classes lose their labels; some others keep them, held out to measure how alike one person stays.

pictures of classes --without the excluded names--> chosen by seed --+--> train: label 0, "unlabelled"
                                                                     +--> held-out: classes of their own

What tells a class is gone from the unlabelled split (see ``writer``); ``report.json`` names the classes
that were left out, so that what was taken can be checked.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dist_dsvae.building.indexing import read_class_names
from dist_dsvae.building.sources.file_encoder import FileEncoder
from dist_dsvae.building.sources.source import Source
from dist_dsvae.building.tar_scan import find_splits
from dist_dsvae.building.writer import Sample
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.images import EncodedImage
from dist_dsvae.core.noise import Draw, permutation
from dist_dsvae.data.shards.manifest import UNLABELLED, Manifest

# Class -> its pictures; the labels of the samples are not used.
UnlabelledImages = Mapping[str, Sequence[Sample[EncodedImage]]]

HELD_OUT = "held-out"
_WITHOUT_MARKS = ("LATIN", "GREEK", "CYRILLIC", "ARABIC", "HEBREW")  # scripts, as letters' names begin
_VARIANTS = ("VARIATION SELECTOR",)
_FEWEST_HELD_OUT = 2  # pictures of a class, for at least one pair


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOutChoice:
    """Which classes become the unlabelled split and which the split "held-out".

    num_unlabelled: so many, or None for all that are not held out.
    num_held_out: so many others, each of at least 2 pictures.
    excluded: names that neither split may have (compared by ``plain``).
    seed: decides which ones. The unlabelled ones of a given number do not depend on ``num_held_out``.
    """

    num_unlabelled: int | None = None
    num_held_out: int = 0
    excluded: Sequence[str] = ()
    seed: int = 0


def without_labels(
    name: str,
    origin: str,
    images: UnlabelledImages,
    choice: HeldOutChoice,
    encoder: FileEncoder,
    left_out: Mapping[str, Sequence[str]],
    *,
    loose: Sequence[Sample[EncodedImage]] = (),
    persons: Mapping[str, str] | None = None,
) -> Source:
    """A source whose "train" is unlabelled, with "held-out" if classes are held out.

    name: of the source. origin: the raw data, for messages.
    loose: pictures of no class; they join the unlabelled ones.
    persons: class -> name to compare with the excluded ones; None if a class is its name.
    Raises DataError if there are too few classes.
    """
    left_out = dict(left_out)
    kept = _allowed(images, choice.excluded, persons, left_out, origin)
    sizes = {class_: len(images[class_]) for class_ in kept}
    unlabelled, held_out = _choose(sizes, choice, origin)
    taken = {*unlabelled, *held_out}
    left_out["classes not chosen"] = [class_ for class_ in kept if class_ not in taken]
    train = [replace(sample, label=0) for class_ in unlabelled for sample in images[class_]]
    splits: dict[str, Sequence[Sample[EncodedImage]]] = {"train": [*loose, *train]}
    if not splits["train"]:
        raise DataError(
            f"{origin} has no picture that is neither excluded nor held out. Hold out fewer classes "
            f"than {choice.num_held_out:,}, or exclude fewer."
        )
    if held_out:
        splits[HELD_OUT] = [
            replace(sample, label=label) for label, class_ in enumerate(held_out) for sample in images[class_]
        ]
    return Source(
        name=name,
        classes=UNLABELLED,
        splits=splits,
        encode=encoder,
        shape=encoder.shape,
        extension=encoder.codec.extension,
        left_out=left_out,
        other_classes={HELD_OUT: tuple(held_out)} if held_out else {},
    )


def _allowed(
    images: UnlabelledImages,
    excluded: Sequence[str],
    persons: Mapping[str, str] | None,
    left_out: dict[str, Sequence[str]],
    origin: str,
) -> list[str]:
    """The sorted classes whose names are not excluded; of several classes of one person the first."""
    names = {class_: (persons or {}).get(class_, class_) for class_ in sorted(images)}
    unwanted = {plain(name) for name in excluded}
    dropped = [class_ for class_, name in names.items() if plain(name) in unwanted]
    # Numbers never equal names: silence here would let shared identities pass unseen.
    all_numbers = bool(names) and all(name.isdecimal() for name in names.values())
    if excluded and all_numbers and not any(name.isdecimal() for name in excluded):
        raise DataError(
            f"The classes of {origin} are numbers (such as {min(names)}), but those to exclude are names "
            f"(such as '{excluded[0]}'), so they cannot be compared. Give names to the numbers with a "
            "list (casia --names FILE), or rename the folders."
        )
    left_out["classes excluded by name"] = [_spoken(class_, names[class_]) for class_ in dropped]
    kept: dict[str, str] = {}
    for class_, name in names.items():
        if class_ not in dropped:
            kept.setdefault(plain(name) if persons else class_, class_)
    taken = {*kept.values(), *dropped}
    left_out["further classes of one name"] = [
        _spoken(class_, name) for class_, name in names.items() if class_ not in taken
    ]
    return sorted(kept.values())


def _choose(sizes: Mapping[str, int], choice: HeldOutChoice, origin: str) -> tuple[list[str], list[str]]:
    """(unlabelled, held out) classes, both sorted. sizes: class -> number of pictures, sorted by name."""
    names = list(sizes)
    order = [names[place] for place in permutation(len(names), int(Draw.BUILD_CLASSES), choice.seed).tolist()]
    count = choice.num_unlabelled
    if count is not None and not 1 <= count <= len(names):
        raise DataError(
            f"{count:,} classes were asked for, but {origin} has {len(names):,} that may be taken. Ask for "
            "at least 1 and at most so many."
        )
    first = order[:count] if count is not None else []
    others = [class_ for class_ in order[len(first) :] if sizes[class_] >= _FEWEST_HELD_OUT]
    if not 0 <= choice.num_held_out <= len(others):
        raise DataError(
            f"{choice.num_held_out:,} classes were to be held out of {origin}; {len(others):,} can be: they "
            f"need {_FEWEST_HELD_OUT} pictures or more and may not be among the unlabelled ones. Hold out at "
            "most so many."
        )
    held_out = sorted(others[: choice.num_held_out])
    if count is not None:
        return sorted(first), held_out
    return sorted({*names} - {*held_out}), held_out


def _spoken(class_: str, name: str) -> str:
    return class_ if class_ == name else f"{class_} ({name})"


def plain(name: str) -> str:
    """What two spellings of a name share: its letters and digits, without case, accents and spacing.

    In NFC. A mark is an accent, or an optional vowel, in the scripts of ``_WITHOUT_MARKS``; elsewhere it
    makes another letter: a vowel of Hindi or Thai, a voiced consonant of Japanese.
    """
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name).casefold())
    kept: list[str] = []
    keeps_marks = False
    for letter in decomposed:
        if letter.isalnum():
            keeps_marks = not _names(letter, _WITHOUT_MARKS)
            kept.append(letter)
        elif keeps_marks and unicodedata.category(letter)[0] == "M" and not _names(letter, _VARIANTS):
            kept.append(letter)
    return unicodedata.normalize("NFC", "".join(kept))


def _names(letter: str, starts: tuple[str, ...]) -> bool:
    return unicodedata.name(letter, "").startswith(starts)


def read_excluded(paths: Sequence[Path]) -> list[str]:
    """The class names of shards (a split, or a directory of splits) or of files with one name a line.

    Raises DataError if a path is neither, or names nobody.
    """
    names: list[str] = []
    for path in paths:
        if not path.is_dir():
            names += read_class_names(path)
            continue
        lists = [Manifest.load(split).classes for split in find_splits(path)]
        labelled = [classes for classes in lists if classes != UNLABELLED]
        if not labelled:
            raise DataError(
                f"The shards in {path} have no labels, so they name no class to exclude. Give labelled "
                "shards, or a file with one name a line."
            )
        names += [name for classes in labelled for name in classes]
    return names
