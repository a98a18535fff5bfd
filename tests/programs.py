"""The programs of launch/ and shards/: their parsers, as they define them."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

REPOSITORY = Path(__file__).parents[1]
PROGRAMS = sorted(
    str(path.relative_to(REPOSITORY))
    for folder in ("launch", "shards")
    for path in (REPOSITORY / folder).glob("*.py")
    if "__main__" in path.read_text(encoding="utf-8")
)


class _FoundError(Exception):
    """Carries a program's parser out of it, before it parses anything."""


def parser_of(program: str) -> argparse.ArgumentParser:
    """The parser that a program defines; the program itself does not run."""

    def stop(self: argparse.ArgumentParser, *_: object) -> None:
        raise _FoundError(self)

    script = REPOSITORY / program
    spec = importlib.util.spec_from_file_location(f"program_{script.stem}", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    path = [str(script.parent), *sys.path]
    with mock.patch.object(sys, "path", path), mock.patch.object(sys, "argv", [program]):
        spec.loader.exec_module(module)
        with mock.patch.object(argparse.ArgumentParser, "parse_args", stop):
            try:
                module.main()
            except _FoundError as found:
                parser: argparse.ArgumentParser = found.args[0]
                return parser
    raise AssertionError(f"{program} parses no arguments")


def all_parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of its subcommands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in dict.fromkeys(action.choices.values()):
                yield from all_parsers(sub)


def options_of(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.Action]]:
    """Every option and argument, with the command that it belongs to."""
    for sub in all_parsers(parser):
        for action in sub._actions:
            if not isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
                yield f"{sub.prog} {'/'.join(action.option_strings) or action.dest}", action
