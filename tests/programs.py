"""The programs of launch/ and shards/: their parsers, as they define them."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PROGRAMS = sorted(
    str(path.relative_to(REPOSITORY))
    for folder in ("launch", "shards")
    for path in (REPOSITORY / folder).glob("*.py")
    if "__main__" in path.read_text(encoding="utf-8")
)


def parser_of(program: str) -> argparse.ArgumentParser:
    """The parser that a program, a script or "dsvae X", defines; the program itself does not run."""
    name = Path(program.removeprefix("dsvae ")).stem
    command = importlib.import_module(f"dist_dsvae.commands.{name}")
    parser: argparse.ArgumentParser = command.make_parser()
    parser.prog = Path(program).name
    return parser


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
