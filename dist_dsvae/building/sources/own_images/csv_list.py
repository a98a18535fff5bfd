"""A list of pictures: a line with the path and the label of each, and perhaps its split.

    path,label,split
    photos/0001.jpg,anna,train

Cells are separated by commas, semicolons or tabs; the first line has the names of the columns. Paths are
relative to the list.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dist_dsvae.building.sources.own_images.found import FoundImages
from dist_dsvae.building.sources.own_images.listing import is_image
from dist_dsvae.building.sources.own_images.rows import (
    TableRow,
    choose_splits,
    class_of_label,
    splits_of_rows,
)
from dist_dsvae.building.tar_labels import without_point
from dist_dsvae.building.writer import Sample
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.images import EncodedImage
from dist_dsvae.core.text import TextError, printable, read_text

SEPARATORS = (",", ";", "\t")


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """Names of the columns. split: None for "split" if there is such a column, otherwise all is "train"."""

    path: str = "path"
    label: str = "label"
    split: str | None = None


def images_listed_in(
    file: Path,
    columns: Columns,
    *,
    train: str | None = None,
    test: str | None = None,
    unlabelled: bool = False,
) -> FoundImages:
    """The pictures that ``file`` names, in its order.

    train, test: names of the splits, if they are not to be told by their names. unlabelled: labels are not
    needed. A line without a label, and one that names no file or no picture, is left out and named.
    Raises DataError if the list cannot be read, lacks a column, or says two things of one picture.
    """
    header, lines = _table(file, columns.path)
    columns = _checked(file, header, columns, unlabelled)
    rows: dict[str, list[TableRow]] = {}
    left_out: dict[str, list[str]] = {}
    seen: dict[str, tuple[_Told, int]] = {}
    for number, cells in lines:
        if any(cells[len(header) :]):
            raise DataError(
                f"Line {number} of {file} has {len(cells)} cells, and its first line names {len(header)} "
                'columns. Put quotes around a cell that holds a separator: "Smith, Anna".'
            )
        told = _told(file, number, dict(zip(header, cells, strict=False)), columns)
        here = f"{file.name}, line {number}: {printable(told.path)}"
        image = file.parent / told.path
        place = os.path.normpath(Path.cwd() / image)  # ./a.png is a.png; of a link, its own
        if place in seen:
            _check_same(file, number, told, *seen[place])
            left_out.setdefault("listed more than once", []).append(here)
            continue
        seen[place] = (told, number)
        if not image.is_file():
            left_out.setdefault("listed, but there is no such file", []).append(here)
        elif not is_image(image):
            left_out.setdefault("files that are no pictures", []).append(here)
        else:
            sample: Sample[EncodedImage] = Sample(str(image), 0, printable(told.path))
            rows.setdefault(told.split, []).append(TableRow(sample, told.class_name))
    if not rows:
        first = next((f"; {heading}: {names[0]}" for heading, names in left_out.items()), "")
        raise DataError(
            f"{file} names no picture that there is{first}. Paths are relative to the folder of the list "
            f"({file.parent})."
        )
    chosen = choose_splits(list(rows), str(file), train, test)
    pointed = sum(told.has_point for told, _ in seen.values())
    notes = (
        [f"{pointed:,} labels have a decimal point: 1.0 is the class 1"] if pointed and not unlabelled else []
    )
    return splits_of_rows(rows, chosen, str(file), left_out, notes=notes, unlabelled=unlabelled)


@dataclass(frozen=True, slots=True)
class _Told:
    """What a line says. has_point: its label is a whole number such as 1.0."""

    path: str
    class_name: str | None
    split: str
    has_point: bool


def _table(file: Path, path_column: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The names of the columns, and (number, cells) of every line below that is not empty."""
    try:
        text = read_text(file)
        first = text.split("\n", 1)[0]
        separator = next((s for s in SEPARATORS if path_column in _cells(first, s)), ",")
        stream = io.StringIO(text, newline="")
        reader = csv.reader(stream, delimiter=separator, strict=True, skipinitialspace=True)
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except (OSError, TextError, csv.Error) as error:
        raise DataError(
            f"The list {file} cannot be read ({error}). Give a text file whose first line names the columns "
            "and whose others are a path and a label each."
        ) from error
    header = lines[0][1] if lines else []
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise DataError(f"{file} has two columns '{twice}'. Rename one of them in its first line.")
    return header, [line for line in lines[1:] if any(line[1])]


def _cells(line: str, separator: str) -> list[str]:
    return [cell.strip().strip('"') for cell in line.split(separator)]


def _checked(file: Path, header: Sequence[str], columns: Columns, unlabelled: bool) -> Columns:
    needed = {"--path-column": columns.path}
    if not unlabelled:
        needed["--label-column"] = columns.label
    if columns.split is not None:
        needed["--split-column"] = columns.split
    for option, name in needed.items():
        if name not in header:
            found = ", ".join(f"'{column}'" for column in header) or "none"
            raise DataError(
                f"{file} has no column '{name}'; its first line names: {found}. Name the column with "
                f"{option}."
            )
    return replace(columns, split="split") if columns.split is None and "split" in header else columns


def _told(file: Path, number: int, line: Mapping[str, str], columns: Columns) -> _Told:
    for column in (columns.path, columns.label, columns.split):
        if column is not None and "\n" in line.get(column, ""):
            raise DataError(
                f"The column '{column}' of {file} goes on over several lines, up to line {number}: "
                f"{line[column][:40]!r}. No path, label or split does, so a quote is not closed. Close it, "
                "or take it away."
            )
    path = line.get(columns.path, "")
    split = "train" if columns.split is None else line.get(columns.split, "")
    if not path or not split:
        missing = columns.split if path else columns.path
        raise DataError(
            f"Line {number} of {file} has nothing in the column '{missing}'. Fill it in, or remove the line."
        )
    label = line.get(columns.label, "")
    return _Told(path, class_of_label(label), split, has_point=without_point(label)[1])


def _check_same(file: Path, number: int, told: _Told, before: _Told, earlier: int) -> None:
    """Raise DataError if a picture is named again with another label or split."""
    both = (("label", before.class_name, told.class_name), ("split", before.split, told.split))
    for what, one, other in both:
        if one != other:
            raise DataError(
                f"{file} names {before.path} on line {earlier} with the {what} '{one}', and on line {number} "
                f"with '{other}'. A picture has one {what}: remove one of the lines."
            )
