"""The marker of a checkpoint: the last file that is written, and the word of what all others must be.

    {"values": plain values of the run,  "files": {name: sha256},  "sha256": of both of these}

Nothing in it is taken on trust: what is missing, of another type or not as it was written gets a name.
Older markers are {"values", "sha256": {name: sha256}}, and have no checksum of their own.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dist_dsvae.core.text import clause, read_json

MARKER = "checkpoint.json"
_HASH = re.compile(r"[0-9a-f]{64}")
_TENSORS = re.compile(r"__\d+_\d+\.distcp")
_TENSORS_INDEX = ".metadata"
# what ``run_state`` stores, and what a value of it must be
_NUMBERS: dict[str, type | tuple[type, ...]] = {
    "samples_seen": int,
    "num_replaced": int,
    "meter_iterations": int,
    "train_seconds": (int, float),
}


class CheckpointError(ValueError):
    """A checkpoint that cannot be written or read; the message says which and what to do."""


class UnreadableCheckpointError(CheckpointError):
    """Nobody can tell whether it is sound: reading it fails."""


class Marker(NamedTuple):
    """files: the sha256 of every other file of the checkpoint, by name."""

    values: dict[str, Any]
    files: dict[str, str]

    def to_json(self) -> str:
        return json.dumps({**self._asdict(), "sha256": self._sha256()}, indent=1) + "\n"

    def _sha256(self) -> str:
        return hashlib.sha256(json.dumps(self, sort_keys=True).encode()).hexdigest()

    @classmethod
    def read(cls, checkpoint: Path) -> Marker:
        """Raises CheckpointError, naming what is wrong, if it is missing or not as it was written.

        Raises UnreadableCheckpointError if reading it fails.
        """
        path = checkpoint / MARKER
        try:
            document = read_json(path)
        except (OSError, ValueError) as error:
            is_there = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
            kind = UnreadableCheckpointError if is_there else CheckpointError
            raise kind(
                f"{checkpoint} is not a complete checkpoint: its {MARKER} cannot be read ({error}). "
                "Name another one with --resume PATH."
            ) from None
        try:
            return cls._checked(document)
        except ValueError as error:
            raise CheckpointError(
                f"{path} was damaged: {clause(error)}. Name an older one with --resume PATH."
            ) from None

    @classmethod
    def _checked(cls, document: object) -> Marker:
        _check_type(document, dict, "it")
        assert isinstance(document, dict)
        older = isinstance(document.get("sha256"), dict)
        keys = {"values", "sha256"} if older else {"values", "files", "sha256"}
        if document.keys() != keys:
            wrong = sorted(map(str, document.keys() ^ keys))
            raise ValueError(f"the keys {', '.join(wrong)} are missing or none of a marker's")
        marker = cls(document["values"], document["sha256" if older else "files"])
        _check_type(marker.values, dict, "values")
        _check_type(marker.files, dict, "the list of checksums")
        _check_files(marker.files)
        if older:
            _check_values(marker.values)
        elif document["sha256"] != marker._sha256():
            raise ValueError("its content is not as it was written (other checksum)")
        return marker


def _check_type(value: object, kind: type | tuple[type, ...], name: str) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        expected = "a whole number" if kind is int else "an object of keys" if kind is dict else "a number"
        raise ValueError(f"{name} is {json.dumps(value)[:40]}, not {expected}")


def _check_files(files: Mapping[str, object]) -> None:
    """At least those of one rank, and nothing outside of the checkpoint."""
    for name, checksum in files.items():
        if name != _TENSORS_INDEX and not _TENSORS.fullmatch(name):
            raise ValueError(f"the list of checksums names {name!r}, which is no file of a checkpoint")
        if not isinstance(checksum, str) or not _HASH.fullmatch(checksum):
            raise ValueError(f"the checksum of {name} is {json.dumps(checksum)[:40]}, which is none")
    if _TENSORS_INDEX not in files or len(files) < 2:
        raise ValueError("the list of checksums lacks files")


def _are_sums(of_rank: object) -> bool:
    """By update, numbers."""
    return isinstance(of_rank, dict) and all(
        isinstance(numbers, list) and all(type(number) in (int, float) for number in numbers)
        for numbers in of_rank.values()
    )


def _check_values(values: Mapping[str, object]) -> None:
    for name, kind in _NUMBERS.items():
        if name not in values:
            raise ValueError(f"the value {name} is missing")
        number = values[name]
        _check_type(number, kind, name)
        assert isinstance(number, int | float)
        if not 0 <= number < 2**62:
            raise ValueError(f"{name} is {number}, which it cannot be")
    if not isinstance(values.get("data_fingerprint"), str):
        raise ValueError("the value data_fingerprint is missing or no text")
    sums, scaler = values.get("meter_sums", []), values.get("scaler")
    if not isinstance(sums, list) or not all(map(_are_sums, sums)):
        raise ValueError("the value meter_sums is no list of sums")
    if scaler is not None and not (isinstance(scaler, dict) and scaler):
        raise ValueError("the value scaler is no state of a loss scale")
