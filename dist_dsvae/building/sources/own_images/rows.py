"""Rows of a list or a data set, each a picture with the name of its class, become splits of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dist_dsvae.building.sources.own_images.found import FoundImages
from dist_dsvae.building.sources.own_images.listing import class_name
from dist_dsvae.building.sources.own_images.split_folders import role_of
from dist_dsvae.building.tar_labels import without_point
from dist_dsvae.building.writer import Sample
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.images import EncodedImage

UNUSED = "splits that are not used"
NO_LABEL = "rows without a label"
_NOT_LABELS = ("", "-1")  # the second as data sets have it whose labels are numbers


class TableRow(NamedTuple):
    """class_name: None where the row does not say; never empty."""

    sample: Sample[EncodedImage]
    class_name: str | None


class ChosenSplits(NamedTuple):
    """Names of splits, as the raw data have them: for "train", and for "test" in the order to be tried.

    test_is_asked: the one of ``tests`` was named by a person, so it may not be passed over.
    """

    train: str
    tests: Sequence[str]
    test_is_asked: bool


def class_of_label(label: str) -> str | None:
    """The class that a label names, None for no label; 1.0, as programs write numbers beside gaps, is 1."""
    text, _ = without_point(label)
    return None if text in _NOT_LABELS else class_name(text)


def choose_splits(
    names: Sequence[str], origin: str, train: str | None = None, test: str | None = None
) -> ChosenSplits:
    """Which of the splits ``names`` are "train" and "test": the ones asked for, or told by their names.

    Raises DataError if one that is asked for is not there, or if none can be told to be "train".
    """
    listed = ", ".join(f"'{name}'" for name in names)
    for asked, option in ((train, "--train-split"), (test, "--test-split")):
        if asked is not None and asked not in names:
            raise DataError(f"{origin} has no split '{asked}' ({option}). It has: {listed}.")
    if train is not None and train == test:
        raise DataError(f"--train-split and --test-split both name '{train}'. Name two splits of {listed}.")
    by_role: dict[str, list[str]] = {}
    for name in names:
        by_role.setdefault(role_of(name) or "", []).append(name)
    if train is None:
        candidates = by_role.get("train", []) or [name for name in names if name != test]
        if len(candidates) != 1:
            raise DataError(f"{origin} has the splits {listed}. Name the one to train on with --train-split.")
        train = candidates[0]
    tests = [test] if test is not None else [*by_role.get("test", ()), *by_role.get("val", ())]
    return ChosenSplits(train, [name for name in tests if name != train], test is not None)


def splits_of_rows(
    rows: Mapping[str, Sequence[TableRow]],
    chosen: ChosenSplits,
    origin: str,
    left_out: Mapping[str, Sequence[str]],
    *,
    notes: Sequence[str] = (),
    unlabelled: bool = False,
) -> FoundImages:
    """The chosen splits of ``rows`` (split -> rows in their order), and a note on those that are not used.

    A row without a label is left out and named; ``unlabelled``: it is a loose picture, and only the split
    "train" is taken. Raises DataError if no row of a split has a label that is needed.
    """
    remarks, out = list(notes), {heading: list(names) for heading, names in left_out.items()}
    splits = {"train": by_class(rows[chosen.train])}
    if chosen.train != "train":
        remarks.append(f"'{chosen.train}' serves as the split 'train'")
    if not (splits["train"] or unlabelled):
        raise _without_labels(chosen.train, rows, origin, " or split, or add --unlabelled to do without")
    used = [chosen.train]
    for name in () if unlabelled else chosen.tests:
        labelled = by_class(rows[name])
        if not labelled and chosen.test_is_asked:
            raise _without_labels(name, rows, origin, ", or leave --test-split out")
        if not labelled:
            remarks.append(f"'{name}' is not used: none of its rows has a label")
        elif "test" in splits:
            remarks.append(f"'{name}' is not used: '{used[1]}' is the split 'test'")
        else:
            splits["test"] = labelled
            used.append(name)
            if name != "test":
                remarks.append(f"'{name}' serves as the split 'test'")
    if not unlabelled:
        out.setdefault(NO_LABEL, []).extend(
            row.sample.name for name in used for row in rows[name] if row.class_name is None
        )
    out.setdefault(UNUSED, []).extend(
        f"{name} ({len(rows[name]):,} rows)" for name in rows if name not in used
    )
    loose = [row.sample for row in rows[chosen.train] if row.class_name is None] if unlabelled else ()
    kept = {heading: names for heading, names in out.items() if names}
    return FoundImages(origin=origin, splits=splits, loose=loose, left_out=kept, notes=remarks)


def _without_labels(
    split: str, rows: Mapping[str, Sequence[TableRow]], origin: str, remedy: str
) -> DataError:
    return DataError(
        f"None of the {len(rows[split]):,} rows of {origin} in the split '{split}' has a label. Name another "
        f"column{remedy}."
    )


def by_class(rows: Sequence[TableRow]) -> dict[str, list[Sample[EncodedImage]]]:
    """Sorted class -> samples; rows without a label are not among them."""
    classes: dict[str, list[Sample[EncodedImage]]] = {}
    for row in rows:
        if row.class_name is not None:
            classes.setdefault(row.class_name, []).append(row.sample)
    return {name: classes[name] for name in sorted(classes)}
