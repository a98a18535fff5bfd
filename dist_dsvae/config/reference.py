"""The configuration reference, docs/configuration.md, from the dataclasses and their docstrings:

python -m dist_dsvae.config.reference > docs/configuration.md

A section's docstring is a paragraph about the section and an entry per field or group of fields:

    name, other_name: what they mean,
        over as many indented lines as it takes.

Where the first paragraph says "Fields as in ``X``", fields without an entry take that of section X.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from dist_dsvae import config
from dist_dsvae.config.fields import LARGE

_HEAD = """# Configuration

Made from the dataclasses in [experiment.py](../dist_dsvae/config/experiment.py),
[training.py](../dist_dsvae/config/training.py) and [methods.py](../dist_dsvae/config/methods.py) by
`python -m dist_dsvae.config.reference > docs/configuration.md`; change those, not this page.

A configuration is a JSON file of the sections below. Keys that it leaves out have their defaults, an unknown
key is an error, and any key can be set on the command line: `--set optimizer.learning_rate=0.001`. What a run
used, defaults included, stands in the `config.json` of its directory.

`dsvae config KEY` says on a terminal what stands here. `dsvae config --names` lists the configurations that
come with the project, and `dsvae train NAME` trains one from any directory; `dsvae config --print NAME`
shows one, to begin your own with. `dsvae config --schema > dsvae.schema.json` is for editors: with
`"$schema": "dsvae.schema.json"` in a configuration they complete its keys, explain them, and mark what is not
allowed. Relative paths begin at the working directory; the embedded data and their judge are found anywhere.

**Resume** says whether a key may have another value when a run goes on from a checkpoint. Where it may not,
the run stops with a sentence that names the key: start a new one with another `--run-dir`.
"""
_ENTRY = re.compile(r"([a-z]\w*(?:, [a-z]\w*)*): (.*)")
_TYPE_NAMES = {int: "whole number", float: "number", str: "text", bool: "true or false"}


class UndescribedError(ValueError):
    """A field that its section's docstring does not describe, or an entry of no field."""


class Key(NamedTuple):
    """One key of a configuration, dotted; ``of`` is the method that has it, "" for what all have."""

    name: str
    of: str
    allowed: str
    default: str
    may_change: bool  # when a run is resumed
    meaning: str


def keys() -> Iterator[Key]:
    """Every key that a configuration may hold, in the order of the page."""
    yield from _keys_of("", "", config.ExperimentConfig)
    for name, section in _sections_of(config.ExperimentConfig):
        named = [str(f.default) for f in dataclasses.fields(section) if f.name == "name"]
        yield from _keys_of(f"{name}.", "".join(named), section)


def _keys_of(prefix: str, of: str, section: type) -> Iterator[Key]:
    described, hints = descriptions(section), typing.get_type_hints(section)
    sections = dict(_sections_of(section))
    for f in dataclasses.fields(section):
        if f.name not in sections:
            free = bool(f.metadata.get("free"))
            allowed = _allowed(f, hints[f.name])
            yield Key(f"{prefix}{f.name}", of, allowed, _default(f), free, described[f.name])


def reference() -> str:
    """The whole page, in Markdown.

    Raises UndescribedError if a field has no entry in its section's docstring, or an entry no field.
    """
    parts = [_HEAD, *_section("The file", config.ExperimentConfig)]
    for name, section in _sections_of(config.ExperimentConfig):
        own_name = [f", name {_default(f)}" for f in dataclasses.fields(section) if f.name == "name"]
        parts += _section(f"`{name}`{''.join(own_name)}", section)
    return "\n".join(parts)


def _sections_of(section: type) -> Iterator[tuple[str, type]]:
    """Names of the fields that are sections themselves, with each section that may stand there."""
    for name, hint in typing.get_type_hints(section).items():
        for inner in typing.get_args(hint) or (hint,):
            if dataclasses.is_dataclass(inner):
                yield name, typing.cast(type, inner)


def _section(title: str, section: type) -> Iterator[str]:
    about, _ = parse_docstring(section)
    yield f"## {title}\n"
    yield f"{_markdown(about)}\n"
    yield "| key | value | default | resume | meaning |"
    yield "|---|---|---|---|---|"
    for key in _keys_of("", "", section):
        resume = "may change" if key.may_change else ""
        yield f"| {' | '.join((f'`{key.name}`', key.allowed, key.default, resume, key.meaning))} |"
    yield ""


def descriptions(section: type) -> dict[str, str]:
    """What each field of a section means, in Markdown.

    Raises UndescribedError if a field has no entry, or an entry no field.
    """
    about, own = parse_docstring(section)
    names = [f.name for f in dataclasses.fields(section)]
    unknown = [name for name in own if name not in names]
    if unknown:
        raise UndescribedError(f"{section.__name__} describes {unknown[0]!r}, but has no such field.")
    other = re.search(r"Fields as in ``(\w+)``", about)
    found = own if other is None else parse_docstring(getattr(config, other[1]))[1] | own
    missing = [name for name in names if name not in found]
    if missing:
        raise UndescribedError(
            f"The docstring of {section.__name__} has no entry for {', '.join(missing)}. "
            "Write one: 'name: text'."
        )
    return {name: _markdown(found[name]) for name in names}


def parse_docstring(section: type) -> tuple[str, dict[str, str]]:
    """First paragraph, and text by field name; lines are joined."""
    paragraph, _, rest = inspect.cleandoc(section.__doc__ or "").partition("\n\n")
    entries: dict[str, str] = {}
    names: list[str] = []
    for line in rest.splitlines():
        if line.startswith(" "):
            if not names:
                raise UndescribedError(f"{section.__name__}: the line {line.strip()!r} belongs to no field.")
            for name in names:
                entries[name] += f" {line.strip()}"
        elif line:
            entry = _ENTRY.fullmatch(line)
            if entry is None:
                raise UndescribedError(f"{section.__name__}: {line!r} is not of the form 'name: text'.")
            names = entry[1].split(", ")
            entries |= dict.fromkeys(names, entry[2])
    return " ".join(paragraph.split()), entries


def about_section(name: str) -> Iterator[str]:
    """What a section is for, in Markdown; of ``method`` a paragraph for each. Nothing for another name."""
    for section_name, section in _sections_of(config.ExperimentConfig):
        if section_name == name:
            yield _markdown(parse_docstring(section)[0])


def plain(markdown: str) -> str:
    """A text of the page without its marks, for a terminal or an editor."""
    return markdown.replace("\\|", "|").replace("`", "").replace("**", "")


def _markdown(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


def _allowed(f: dataclasses.Field[Any], hint: Any) -> str:
    """Choices, or type and bounds."""
    optional = ""
    if isinstance(hint, types.UnionType):
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
        optional = " or null"
    if typing.get_origin(hint) is tuple:
        return f"list of {_allowed(f, typing.get_args(hint)[0])}"
    if typing.get_origin(hint) is Literal:
        return ", ".join(f"`{json.dumps(choice)}`" for choice in typing.get_args(hint))
    return _TYPE_NAMES[hint] + optional + _bounds(f)


def _bounds(f: dataclasses.Field[Any]) -> str:
    low, high = f.metadata.get("between", (None, None))
    if f.metadata.get("positive"):
        return " above 0" if high is None or high >= LARGE else f" above 0, up to {high:,.10g}"
    if low is None:
        return ""
    return f", {low:,} or more" if high >= LARGE else f", {low:,} to {high:,.10g}"


def _default(f: dataclasses.Field[Any]) -> str:
    return "**must be given**" if f.default is dataclasses.MISSING else f"`{json.dumps(f.default)}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
