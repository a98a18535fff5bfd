"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) from the files of the official python version.

The files are pickles, which can run code. They are read by an unpickler that admits numpy arrays
and plain containers and refuses everything else.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dist_dsvae.building.sources.arrays import ArrayEncoder, Pixels, samples_of
from dist_dsvae.building.sources.source import Source, take_balanced
from dist_dsvae.building.writer import Sample
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.images import Codec
from dist_dsvae.core.types import ImageShape

EDGE = 32


@dataclass(frozen=True, slots=True)
class _Files:
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    names_entry: str
    labels_entry: str


_FILES = {
    "cifar10": _Files(
        "cifar-10-batches-py",
        tuple(f"data_batch_{number}" for number in range(1, 6)),
        ("test_batch",),
        "batches.meta",
        "label_names",
        "labels",
    ),
    "cifar100": _Files("cifar-100-python", ("train",), ("test",), "meta", "fine_label_names", "fine_labels"),
}


def cifar(
    name: Literal["cifar10", "cifar100"],
    folder: Path,
    *,
    codec: Codec,
    num_train: int | None = None,
    num_test: int | None = None,
) -> Source:
    """CIFAR-10, or CIFAR-100 with its fine labels, from ``folder`` or the official folder inside it.

    num_train, num_test: take so many, balanced over the classes; None for all.
    """
    files = _FILES[name]
    if (folder / files.folder).is_dir():
        folder = folder / files.folder
    names = _entry(folder / files.meta, files.names_entry, list)
    if not all(isinstance(text, str) for text in names):
        raise _unusable(folder / files.meta, f"its entry '{files.names_entry}' must hold names")
    splits: dict[str, Sequence[Sample[Pixels]]] = {}
    for split, batches, count in (("train", files.train, num_train), ("test", files.test, num_test)):
        samples = [
            sample for batch in batches for sample in _read_batch(folder / batch, files.labels_entry, names)
        ]
        splits[split] = take_balanced(samples, count, split)
    return Source(
        name=name,
        classes=tuple(sorted(names)),
        splits=splits,
        encode=ArrayEncoder(size=EDGE, codec=codec),
        shape=ImageShape(3, EDGE, EDGE),
        extension=codec.extension,
    )


def _read_batch(path: Path, labels_entry: str, names: Sequence[str]) -> list[Sample[Pixels]]:
    data = _entry(path, "data", np.ndarray)
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3 * EDGE * EDGE:
        raise _unusable(path, f"its data are {data.dtype} of shape {data.shape}, not uint8 of (n, 3072)")
    labels: npt.NDArray[np.int64] = np.array(_entry(path, labels_entry, list))
    if labels.dtype != np.int64:
        raise _unusable(path, f"its entry '{labels_entry}' must hold whole numbers")
    pixels = np.ascontiguousarray(data.reshape(-1, 3, EDGE, EDGE).transpose(0, 2, 3, 1))
    return samples_of(pixels, labels, names, path.name)


def _entry(path: Path, entry: str, kind: type) -> Any:
    value = read_pickle(path).get(entry)
    if not isinstance(value, kind):
        raise _unusable(path, f"it must have an entry '{entry}' of type {kind.__name__}")
    return value


def read_pickle(path: Path) -> Mapping[str, Any]:
    """The dictionary in a pickle of arrays and plain containers; byte strings in it become text.

    Raises DataError if the file is missing, is no such pickle, or asks for any other object.
    """
    if not path.is_file():
        raise DataError(
            f"The file {path} is missing. Give the folder of the official python version (with "
            f"{path.name} in it), or leave SOURCE out to download it."
        )
    try:
        with path.open("rb") as stream:
            content = _ArrayUnpickler(stream, encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise anything
        raise _unusable(path, str(error)) from error
    if not isinstance(content, dict):
        raise _unusable(path, "it does not hold a dictionary")
    return {_text(key): _texts(value) for key, value in content.items()}


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _texts(value: Any) -> Any:
    return [_text(item) for item in value] if isinstance(value, list) else _text(value)


def _unusable(path: Path, why: str) -> DataError:
    return DataError(
        f"{path} cannot be used: {why}. It must be a file of the official python version of CIFAR; "
        "fetch it again."
    )


def _latin1(text: str, encoding: str) -> bytes:
    """How a protocol 2 pickle written by Python 3 spells bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"the encoding {encoding} is not admitted")
    return text.encode("latin-1")


_RECONSTRUCT = np.empty(0, np.uint8).__reduce__()[0]
_FROM_BUFFER = np.empty(1, np.uint8).__reduce_ex__(5)[0]


class _ArrayUnpickler(pickle.Unpickler):
    """Admits what numpy arrays are made of, under the module names of old and new numpy."""

    _admitted: Mapping[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy.core.numeric", "_frombuffer"): _FROM_BUFFER,
        ("numpy._core.numeric", "_frombuffer"): _FROM_BUFFER,
        ("_codecs", "encode"): _latin1,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._admitted[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for the object {module}.{name}, which data have no need of and which could run "
                "code, so it was not loaded"
            ) from None
