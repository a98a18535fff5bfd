"""A JSON schema of configurations, from the dataclasses and their docstrings, for editors:

dsvae config --schema > dsvae.schema.json          and in a configuration: "$schema": "dsvae.schema.json"
"""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, Literal

from dist_dsvae.config import ExperimentConfig
from dist_dsvae.config.reference import descriptions, parse_docstring, plain

SCHEMA_KEY = "$schema"  # which an editor looks for; nothing is computed by it
_TYPES = {int: "integer", float: "number", str: "string", bool: "boolean"}


def schema() -> dict[str, Any]:
    """Of draft 2020-12: what ``reading.from_tree`` takes, but for what several keys say together.

    Raises UndescribedError if a field has no entry in its section's docstring.
    """
    where = {"type": "string", "description": "This schema, for the editor; nothing is computed by it."}
    whole = _object(ExperimentConfig)
    whole["properties"] = {SCHEMA_KEY: where, **whole["properties"]}
    return {
        SCHEMA_KEY: "https://json-schema.org/draft/2020-12/schema",
        "title": "An experiment of dist_dsvae",
        **whole,
    }


def _object(section: type, *, is_default: bool = True) -> dict[str, Any]:
    """is_default: whether the section is meant where its ``name`` is left out."""
    described, hints = descriptions(section), typing.get_type_hints(section)
    fields = dataclasses.fields(section)
    required = [f.name for f in fields if f.default is dataclasses.MISSING]
    return {
        "type": "object",
        "description": plain(parse_docstring(section)[0]),
        "properties": {f.name: _property(f, hints[f.name], plain(described[f.name])) for f in fields},
        "required": required if is_default else ["name", *required],
        "additionalProperties": False,
    }


def _property(f: dataclasses.Field[Any], hint: Any, meaning: str) -> dict[str, Any]:
    if dataclasses.is_dataclass(hint):
        return _object(typing.cast(type, hint))
    arguments = typing.get_args(hint)
    if arguments and all(map(dataclasses.is_dataclass, arguments)):
        return {"oneOf": [_object(each, is_default=each is arguments[0]) for each in arguments]}
    found: dict[str, Any] = {"description": meaning}
    if f.default is not dataclasses.MISSING:
        found["default"] = list(f.default) if isinstance(f.default, tuple) else f.default
    if typing.get_origin(hint) is tuple:
        return found | {"type": "array", "items": {"enum": list(typing.get_args(arguments[0]))}}
    if typing.get_origin(hint) is Literal:
        return found | {"enum": list(arguments)}
    if isinstance(hint, types.UnionType):
        inner = next(each for each in arguments if each is not type(None))
        return found | {"type": [_TYPES[inner], "null"]} | _bounds(f)
    return found | {"type": _TYPES[hint]} | _bounds(f)


def _bounds(f: dataclasses.Field[Any]) -> dict[str, float]:
    low, high = f.metadata.get("between", (None, None))
    bounds = {"minimum": low, "maximum": high, "exclusiveMinimum": 0 if f.metadata.get("positive") else None}
    return {name: bound for name, bound in bounds.items() if bound is not None}
