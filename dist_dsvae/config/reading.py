"""JSON <-> the dataclass tree of ``config``; every mistake is a sentence with the dotted key."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

from dist_dsvae.config import ExperimentConfig
from dist_dsvae.config.checks import contradictions
from dist_dsvae.core.paths import PathError, expanded
from dist_dsvae.core.shipped import config_file, config_names
from dist_dsvae.core.text import clause, read_json

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the key and what is allowed."""


def load_config(path: Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Read a JSON experiment file and apply ``key.key=value`` overrides; paths may hold ``~`` and $NAME.

    path: of the file, or the name of one that comes with the project (``shipped.config_file``).
    Raises ConfigError for a missing or malformed file, an unknown key, a wrong type or value, and for values
    that contradict each other (``checks``).
    """
    try:
        path = config_file(path)
        tree = read_json(path)
    except FileNotFoundError:
        raise ConfigError(f"There is no config file {path}. {_config_hint(path)}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {clause(error)}.") from None
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}. Give a JSON file from configs/."
        ) from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold an object of keys, not {_show(tree)}.")
    tree.pop("$schema", None)  # for editors (module ``schema``)
    for override in overrides:
        _apply_override(tree, override)
    try:
        config: ExperimentConfig = _with_paths_expanded(from_tree(ExperimentConfig, tree), "")
    except ConfigError as error:
        raise ConfigError(f"{_place_of(str(error), path, overrides)}: {error}") from None
    for contradiction in contradictions(config):
        raise ConfigError(f"{_place_of(contradiction, path, overrides)}: {contradiction}")
    return config


def _place_of(mistake: str, path: Path, overrides: Sequence[str]) -> str:
    """Where a mistake was made: in the file, or on the command line if its sentence names keys set there."""
    words = re.findall(r"\w+(?:\.\w+)*", mistake)
    named = [f"--set {override}" for override in overrides if override.partition("=")[0] in words]
    return f"{path} with {' '.join(named)}" if named else str(path)


def with_overrides(section: T, name: str, overrides: Iterable[str]) -> T:
    """The section ``name`` of a configuration with ``name.key=value`` applied.

    Raises ConfigError for keys of other sections, unknown keys, and values that are not allowed.
    """
    tree: dict[str, Any] = {name: to_tree(section)}
    for override in overrides:
        if not override.startswith(f"{name}."):
            raise ConfigError(
                f"--set {override!r} is not of the form {name}.key=value, all that counts here."
            )
        _apply_override(tree, override)
    return from_tree(type(section), tree[name], f"{name}.")


def _apply_override(tree: dict[str, Any], override: str) -> None:
    dotted, separator, text = override.partition("=")
    if not separator or not dotted:
        raise ConfigError(f"--set {override!r} is not of the form key.key=value.")
    *parents, last = dotted.split(".")
    node = tree
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {dotted}: {parent!r} is a value, not a section.")
    node.pop(last, None)  # the last word is the latest key as well (``from_tree``)
    try:
        node[last] = json.loads(text)
    except json.JSONDecodeError:
        node[last] = text  # an unquoted string


def from_tree(cls: type[T], tree: Any, prefix: str = "") -> T:
    """Build a dataclass of type ``cls`` from parsed JSON, strictly; keys may have their former names.

    Of a key's two names the later one in the tree counts: what overrides a file comes after it.
    """
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{prefix.rstrip('.') or 'the file'} must be an object of keys, not {_show(tree)}.")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    renamed = _former_names(cls)
    values: dict[str, Any] = {}
    for given, value in tree.items():
        key = renamed.get(given, str(given))
        dotted = prefix + given
        if key not in fields:
            raise ConfigError(_unknown_key(dotted, key, fields))
        values[key] = _convert(value, hints[key], dotted)
        if fields[key].metadata.get("positive") and not values[key] > 0:
            raise ConfigError(f"{dotted} is {_show(value)}; it must be greater than 0.")
        low, high = fields[key].metadata.get("between", (-math.inf, math.inf))
        if isinstance(values[key], int | float) and not low <= values[key] <= high:
            raise ConfigError(f"{dotted} is {_show(value)}; it must be {_bounds(low, high)}.")
    for name, f in fields.items():
        if f.default is dataclasses.MISSING and name not in values:
            raise ConfigError(f"{prefix}{name} is missing; it has no default, so the file must give it.")
    try:
        return cls(**values)
    except ValueError as error:  # of fields that do not fit each other
        raise ConfigError(str(error)) from None


def _bounds(low: float, high: float) -> str:
    shown = [f"{int(bound):,}" if float(bound).is_integer() else f"{bound:g}" for bound in (low, high)]
    return f"between {shown[0]} and {shown[1]}"


def _with_paths_expanded(section: T, prefix: str) -> T:
    """The section with every path as a shell would have it. Raises ConfigError for an unknown variable."""
    changed: dict[str, Any] = {}
    for f in dataclasses.fields(section):  # type: ignore[arg-type]
        value = getattr(section, f.name)
        if dataclasses.is_dataclass(value):
            changed[f.name] = _with_paths_expanded(value, f"{prefix}{f.name}.")
        elif f.metadata.get("path") and value is not None:
            try:
                changed[f.name] = expanded(value)
            except PathError as error:
                raise ConfigError(f"{prefix}{f.name}: {error}") from None
    return dataclasses.replace(section, **changed)  # type: ignore[type-var]


def _config_hint(path: Path) -> str:
    names = config_names()
    near = difflib.get_close_matches(path.as_posix().removeprefix("configs/").removesuffix(".json"), names, 3)
    hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    return f"{hint}`dsvae config --names` lists those that come with the project."


def _unknown_key(dotted: str, key: str, fields: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, list(fields), n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Allowed here: {', '.join(sorted(fields))}."
    return f"Unknown key {dotted!r}. {hint}"


def _convert(value: Any, hint: Any, dotted: str) -> Any:
    """Check ``value`` against a type hint; ints pass as floats, nothing else is coerced."""
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        return from_tree(typing.cast(type, hint), value, dotted + ".")
    if origin is Literal:
        allowed = typing.get_args(hint)
        if value not in allowed:
            near = difflib.get_close_matches(str(value), [str(a) for a in allowed], n=1)
            hint_text = f" Did you mean {near[0]!r}?" if near else ""
            choices = ", ".join(json.dumps(a) for a in allowed)
            raise ConfigError(f"{dotted} is {_show(value)}; allowed: {choices}.{hint_text}")
        return value
    if origin is tuple:
        return _converted_list(value, typing.get_args(hint)[0], dotted)
    if origin in (typing.Union, types.UnionType):
        if dataclasses.is_dataclass(typing.get_args(hint)[0]):
            section = _named(typing.get_args(hint), value, dotted)
            _check_keys_are_of(section, typing.get_args(hint), value, dotted)
            return from_tree(section, value, dotted + ".")
        if value is None:
            return None
        inner = next(arg for arg in typing.get_args(hint) if arg is not type(None))
        return _convert(value, inner, dotted)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        with suppress(OverflowError):  # then it stays what it is, and no number of this kind
            value = float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{dotted} is {_show(value)}; it must be {_TYPE_NAMES[hint]}.")
    if hint is float and not math.isfinite(value):
        raise ConfigError(f"{dotted} is {value}; it must be a finite number.")
    return value


def _converted_list(value: Any, hint: Any, dotted: str) -> tuple[Any, ...]:
    """A list of different values, each checked against ``hint``."""
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{dotted} is {_show(value)}; it must be a list, such as [{_show(value)}].")
    converted = tuple(_convert(each, hint, f"{dotted}[{place}]") for place, each in enumerate(value))
    if twice := [each for place, each in enumerate(converted) if each in converted[:place]]:
        raise ConfigError(f"{dotted} holds {_show(twice[0])} twice; once is enough.")
    return converted


def _named(sections: tuple[type, ...], tree: Any, dotted: str) -> type:
    """The section whose ``name`` the tree gives; the first where it gives none."""
    by_name = {f.default: s for s in sections for f in dataclasses.fields(s) if f.name == "name"}
    if not isinstance(tree, Mapping) or "name" not in tree:
        return sections[0]
    name = _convert(tree["name"], Literal[tuple(by_name)], f"{dotted}.name")
    return by_name[name]


def _check_keys_are_of(section: type, sections: tuple[type, ...], tree: Any, dotted: str) -> None:
    """Raise ConfigError for keys of another section than the one that the tree's ``name`` asks for."""
    own, known = _names_of(section), set().union(*map(_names_of, sections))
    others = [key for key in tree if key in known - own] if isinstance(tree, Mapping) else []
    if others:
        (name,) = (str(f.default) for f in dataclasses.fields(section) if f.name == "name")
        keys = ", ".join(repr(f"{dotted}.{key}") for key in others)
        several, they_are, them = ("s", "they are", "them") if len(others) > 1 else ("", "it is", "it")
        raise ConfigError(
            f"Unknown key{several} {keys}: {they_are} not of {dotted} {name!r} ({dotted}.name). Leave {them} "
            f"out, or begin with one of {_configs_with(name)}."
        )


def _names_of(section: type) -> set[str]:
    """Of its keys, the former ones among them."""
    return {f.name for f in dataclasses.fields(section)} | _former_names(section).keys()


def _former_names(section: type) -> dict[str, str]:
    """Of its keys that were called otherwise, the present names."""
    return {f.metadata["former"]: f.name for f in dataclasses.fields(section) if f.metadata.get("former")}


def _configs_with(method: str) -> str:
    """The shipped configurations of a method."""
    own = {"dsvae": "configs/*.json", "classifier": "configs/classifier/*.json"}
    return own.get(method, f"configs/baselines/{method}-*.json")


_TYPE_NAMES = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 60 else text[:57] + "..."


def to_tree(config: Any) -> dict[str, Any]:
    """The resolved config as plain JSON values, defaults included."""
    return dataclasses.asdict(config)


def to_json(config: ExperimentConfig) -> str:
    return json.dumps(to_tree(config), indent=2, ensure_ascii=False) + "\n"


def differing_keys(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Dotted keys, with both values, in which two runs' configs differ as identities (``free`` keys aside).

    prefix: of the keys, where sections are given.
    """
    if type(old) is not type(new):
        return [f"{prefix}name ({_show(old.name)} -> {_show(new.name)})"]
    found: list[str] = []
    for f in dataclasses.fields(old):
        before, after = getattr(old, f.name), getattr(new, f.name)
        if dataclasses.is_dataclass(before):
            found += differing_keys(before, after, f"{prefix}{f.name}.")
        elif before != after and not f.metadata.get("free"):
            found.append(f"{prefix}{f.name} ({_show(before)} -> {_show(after)})")
    return found
