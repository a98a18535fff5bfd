"""What a sample of a tar says of its label: a member .cls, or an entry of .json.

A label is a class id or a name. An id may be text ("7") or have a decimal point (7.0, as pandas and
MATLAB write it); anything else that is no name is refused, with what was found.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dist_dsvae.building.tar_scan import TarSample
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.text import TextError, decode_text, parse_json

Label = int | str
LABEL_ENTRIES = ("label", "cls", "class", "class_name")
NAME_ENTRIES = ("class_name", "class")
_WHOLE = re.compile(r"[+-]?[0-9]+([.]0*)?")
_MOST_DIGITS = 18
_MOST_JSON_BYTES = 2**20


class FoundLabel(NamedTuple):
    """name: what .json calls the class, where it does. is_decimal: whether the id was written as 1.0."""

    label: Label
    name: str | None
    is_decimal: bool


def members_of(sample: TarSample, extensions: Sequence[str]) -> list[str]:
    """The sample's files of these extensions: exactly so, or else behind further dots (v2.png, v2.cls)."""
    exact = [extension for extension in sample.members if extension in extensions]
    return exact or [ext for ext in sample.members if ext.rpartition(".")[2] in extensions]


def label_of(sample: TarSample, path: Path) -> FoundLabel:
    """Raises DataError, naming sample and shard, if there is no label or none that can be used."""
    where = f"the sample '{sample.key}' of the shard {path}"
    entries = _json_entries(sample, where)
    name = next((composed(v) for e in NAME_ENTRIES if isinstance(v := entries.get(e), str)), None)
    candidates = [entries[entry] for entry in LABEL_ENTRIES if entries.get(entry) is not None]
    cls = _content_of(sample, "cls", where)
    if cls is not None:
        try:
            candidates.insert(0, decode_text(cls))
        except TextError as error:
            raise DataError(
                f"The .cls of {where} is no text ({error}). It must hold a class id or a name."
            ) from error
    for candidate in candidates:
        match candidate:
            case bool():
                continue
            case int():
                return FoundLabel(candidate, name, is_decimal=False)
            case float() if candidate.is_integer():
                return FoundLabel(int(candidate), name, is_decimal=True)
            case str() if text := candidate.strip():
                return _from_text(text, name, where)
    given = f" that can be used ({', '.join(_shown(one) for one in candidates)})" if candidates else ""
    raise DataError(
        f"T{where[1:]} has no label{given}. Give every sample a file .cls that holds its class id, a whole "
        f"number from 0, or its name, or a .json with one of the entries {', '.join(LABEL_ENTRIES)}."
    )


def composed(name: str) -> str:
    """One spelling of a name that systems write in two (NFC), as folders' names have it, too."""
    return unicodedata.normalize("NFC", name)


def without_point(text: str) -> tuple[str, bool]:
    """A whole number without its decimal point, as in 1.0, and whether it had one; other text as it is."""
    if not _WHOLE.fullmatch(text):
        return text, False
    whole, point, _ = text.partition(".")
    return whole, bool(point)


def _from_text(text: str, name: str | None, where: str) -> FoundLabel:
    whole, is_decimal = without_point(text)
    if not _WHOLE.fullmatch(text):
        return FoundLabel(composed(text), name, is_decimal=False)
    if len(whole) > _MOST_DIGITS:
        raise DataError(
            f"T{where[1:]} has the label {whole[:20]}..., which is no class id. Correct the label."
        )
    return FoundLabel(int(whole), name, is_decimal=is_decimal)


def _json_entries(sample: TarSample, where: str) -> Mapping[str, object]:
    content = _content_of(sample, "json", where)
    if content is None:
        return {}
    try:
        document = parse_json(content, max_bytes=_MOST_JSON_BYTES)
    except ValueError as error:
        raise DataError(
            f"The .json of {where} is not valid JSON ({error}). Correct it, or leave the file out and give "
            "the label in a file .cls."
        ) from error
    return document if isinstance(document, dict) else {}


def _content_of(sample: TarSample, extension: str, where: str) -> bytes | None:
    found = members_of(sample, (extension,))
    if len(found) > 1:
        raise DataError(
            f"T{where[1:]} has {len(found)} labels (its files: {', '.join(f'.{name}' for name in found)}). "
            "Files whose names are the same up to their first dot are one sample: rename them."
        )
    return sample.members[found[0]].content if found else None


def _shown(given: object) -> str:
    text = json.dumps(given, ensure_ascii=False)
    return text if len(text) < 40 else text[:37] + "..."
