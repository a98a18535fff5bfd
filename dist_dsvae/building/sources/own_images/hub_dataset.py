"""A data set of the library ``datasets``: of its hub by name, or local, as Arrow or as Parquet.

Which columns hold pictures and labels is told by their types where only one can be meant. Pictures stay
where the library keeps them, and are read from there by the processes that encode them.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from dist_dsvae.building.sources.own_images.found import FoundImages
from dist_dsvae.building.sources.own_images.listing import class_name
from dist_dsvae.building.sources.own_images.rows import (
    TableRow,
    choose_splits,
    class_of_label,
    splits_of_rows,
)
from dist_dsvae.building.writer import Sample
from dist_dsvae.core.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

_ON_DISK = ("dataset_dict.json", "state.json")  # what save_to_disk writes beside the data


@dataclass(frozen=True, slots=True, eq=False)
class RowImage:
    """The picture of a row. dataset: its column gives bytes and path, undecoded. path: of the data."""

    dataset: Dataset
    column: str
    row: int
    path: str

    def open(self) -> BinaryIO:
        image = self.dataset[self.row][self.column]
        if image is None or (image["bytes"] is None and image["path"] is None):
            raise OSError("the row holds no picture")
        if image["bytes"] is not None:
            return io.BytesIO(image["bytes"])
        return Path(image["path"]).open("rb")

    def __str__(self) -> str:
        return f"{self.dataset._fingerprint} {self.column}[{self.row}]"


class Wanted(NamedTuple):
    """What a person named; None: to be told by types and names.

    subset: a configuration of a data set that has several. revision: a commit, branch or tag at the hub.
    """

    image_column: str | None = None
    label_column: str | None = None
    train_split: str | None = None
    test_split: str | None = None
    subset: str | None = None
    revision: str | None = None


def images_of_dataset(place: str, wanted: Wanted, *, unlabelled: bool = False) -> FoundImages:
    """The pictures of the data set called ``place``, by split.

    place: a folder or a file, or else a name at the hub. unlabelled: no column of labels is needed.
    Raises DataError if it cannot be loaded, or if the columns or splits are not there or not to be told.
    """
    splits = _load(place, wanted)
    chosen = choose_splits(list(splits), place, wanted.train_split, wanted.test_split)
    features = splits[chosen.train].features
    image_column = _image_column(features, wanted.image_column, place)
    label_column = _label_column(features, wanted.label_column, place, needed=not unlabelled)
    notes = [f"Pictures are those of the column '{image_column}'"]
    if label_column is not None:
        notes.append(f"Labels are those of the column '{label_column}'")
    rows = {
        name: _rows(name, dataset, image_column, label_column, place)
        for name, dataset in splits.items()
        if name == chosen.train or image_column in dataset.column_names
    }
    return splits_of_rows(rows, chosen, place, {}, notes=notes, unlabelled=unlabelled)


def _load(place: str, wanted: Wanted) -> dict[str, Dataset]:
    """Split -> its rows, in the order of the data set."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f'The library datasets cannot be loaded ({error}). Install it with: pip install "dist_dsvae[hf]".'
        ) from error
    local = Path(place)
    if not local.exists() and _is_meant_as_path(place):
        raise DataError(
            f"There is no file or folder {place}. Give the folder of a saved data set, an Arrow or Parquet "
            "file, a folder of Parquet files or of pictures, or a name at the hub, such as uoft-cs/cifar10."
        )
    try:
        if any((local / name).is_file() for name in _ON_DISK):
            loaded = datasets.load_from_disk(place)
        elif local.is_file():
            loaded = datasets.load_dataset(
                "arrow" if local.suffix == ".arrow" else "parquet", data_files=place
            )
        else:
            loaded = datasets.load_dataset(place, wanted.subset, revision=wanted.revision)
    except Exception as error:  # the library, its file systems and formats raise nearly anything
        raise DataError(
            f"The data set {place} cannot be loaded ({type(error).__name__}: {_first_line(error)}). Give a "
            "folder that save_to_disk made, an Arrow or Parquet file, a folder of Parquet files or of "
            "pictures, or a name at the hub."
        ) from error
    named = loaded if isinstance(loaded, dict) else {str(loaded.split or "train"): loaded}
    return {str(name): dataset.with_format(None) for name, dataset in named.items()}


def _is_meant_as_path(place: str) -> bool:
    return place.startswith((".", "/")) or place.count("/") > 1 or place.endswith((".parquet", ".arrow"))


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "it does not say why")


def _image_column(features: Mapping[str, Any], asked: str | None, place: str) -> str:
    """Raises DataError if ``asked`` holds no pictures, or if without it several or no columns could be."""
    if asked is not None:
        _check_named(features, asked, place, "--image-column")
        if not (_is_image(features[asked]) or _could_be_image(features[asked])):
            raise DataError(
                f"The column '{asked}' of {place} holds {features[asked]}; pictures are of the type "
                f"Image, or bytes. Its columns: {_listed(features)}."
            )
        return asked
    images = [name for name, feature in features.items() if _is_image(feature)]
    images = images or [name for name, feature in features.items() if _could_be_image(feature)]
    if len(images) != 1:
        what = "several columns of pictures" if images else "no column of pictures"
        raise DataError(f"{place} has {what}. Name one with --image-column: {_listed(images or features)}.")
    return images[0]


def _label_column(features: Mapping[str, Any], asked: str | None, place: str, *, needed: bool) -> str | None:
    """Raises DataError if ``asked`` holds no labels, or if one is needed and it cannot be told which."""
    if asked is not None:
        _check_named(features, asked, place, "--label-column")
        if not _is_label(features[asked]):
            raise DataError(
                f"The column '{asked}' of {place} holds {features[asked]}; labels are of the type "
                "ClassLabel, texts or whole numbers, one for each picture."
            )
        return asked
    labels = [name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    labels = labels or [name for name, feature in features.items() if _is_text(feature)]
    if len(labels) != 1 and "label" in features and _is_label(features["label"]):
        labels = ["label"]
    if len(labels) == 1:
        return labels[0]
    if not needed:
        return None
    what = "several columns that could be labels" if labels else "no column of labels (ClassLabel or texts)"
    raise DataError(
        f"{place} has {what}. Name one with --label-column: {_listed(labels or features)}; or add "
        "--unlabelled."
    )


def _check_named(features: Mapping[str, Any], name: str, place: str, option: str) -> None:
    if name not in features:
        raise DataError(f"{place} has no column '{name}' ({option}). Its columns: {_listed(features)}.")


def _listed(names: Mapping[str, Any] | Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _is_image(feature: Any) -> bool:
    return type(feature).__name__ == "Image"


def _could_be_image(feature: Any) -> bool:
    """Bytes, or bytes with a path, as Parquet files of other tools hold pictures."""
    if isinstance(feature, Mapping):
        return set(feature) == {"bytes", "path"}
    return getattr(feature, "dtype", None) in ("binary", "large_binary")


def _is_text(feature: Any) -> bool:
    return getattr(feature, "dtype", None) in ("string", "large_string", "string_view")


def _is_label(feature: Any) -> bool:
    kind = str(getattr(feature, "dtype", ""))
    whole = kind.startswith(("int", "uint")) or kind == "bool"
    return not isinstance(feature, Mapping) and (whole or _is_text(feature))


def _rows(
    split: str, dataset: Dataset, image_column: str, label_column: str | None, place: str
) -> list[TableRow]:
    import datasets

    labels: list[Any] = [None] * len(dataset)
    if label_column is not None and label_column in dataset.column_names:
        values = dataset.select_columns([label_column])[:][label_column]
        names = getattr(dataset.features[label_column], "names", None)
        labels = [_name_of(value, names) for value in values]
    undecoded = dataset.select_columns([image_column]).cast_column(image_column, datasets.Image(decode=False))
    path = undecoded.cache_files[0]["filename"] if undecoded.cache_files else place
    return [
        TableRow(Sample(RowImage(undecoded, image_column, row, path), 0, f"{split}[{row}]"), label)
        for row, label in enumerate(labels)
    ]


def _name_of(value: Any, names: Sequence[str] | None) -> str | None:
    """The class; None for no label. names: of the places that a ClassLabel's numbers are."""
    if value is None or (names is not None and not 0 <= value < len(names)):
        return None
    if names is not None:
        return class_name(names[value])
    return class_of_label(str(value).strip())
