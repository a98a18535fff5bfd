"""Explain the keys of a configuration, and show those that come with the project:

dsvae config                       every key: its default, what is allowed, what it means
dsvae config train                 those of a section
dsvae config train.epochs          one
dsvae config ema learning          those whose name holds one of these words
dsvae config --names               the experiments that come with the project
dsvae config --print quickstart    one of them, to make your own of it
dsvae config --schema              a JSON schema, for editors
"""

from __future__ import annotations

import argparse
import difflib
import json
import textwrap
from collections.abc import Iterator, Sequence

from dist_dsvae.commands.starting import answer
from dist_dsvae.config.reading import ConfigError, load_config
from dist_dsvae.config.reference import Key, about_section, keys, plain
from dist_dsvae.config.schema import schema
from dist_dsvae.core.shipped import config_file, config_names
from dist_dsvae.core.text import read_text


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="a key, a section, or a part of a key")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--names", action="store_true", help="list the experiments that come with the project")
    what.add_argument("--print", metavar="NAME", dest="shown", help="print an experiment's file")
    what.add_argument("--schema", action="store_true", help="print a JSON schema of configurations")
    return parser


def main() -> int:
    return answer("\n".join(asked_for(make_parser())))


def asked_for(parser: argparse.ArgumentParser) -> Iterator[str]:
    """What the command line asks for; leaves with a sentence where that is not to be had."""
    args = parser.parse_args()
    if args.words and (args.names or args.shown or args.schema):
        parser.error(f"{args.words[0]} asks for keys; leave out the option, or the word.")
    if args.names:
        yield from config_names()
    elif args.shown is not None:
        try:
            load_config(args.shown)
        except ConfigError as error:
            parser.error(str(error))
        yield read_text(config_file(args.shown)).removesuffix("\n")
    elif args.schema:
        yield json.dumps(schema(), indent=1)
    else:
        yield from explanations(parser, args.words)


def explanations(parser: argparse.ArgumentParser, words: Sequence[str]) -> Iterator[str]:
    """What is known of the keys that the words mean; leaves with a sentence where they mean none."""
    every = list(keys())
    names = list(dict.fromkeys(key.name for key in every))
    found = [key for key in every if not words or any(_means(word, key.name, names) for word in words)]
    if not found:
        near = difflib.get_close_matches(
            words[0], [*names, *(name.rpartition(".")[2] for name in names)], n=1
        )
        hint = f"Did you mean {near[0]}? " if near else ""
        parser.error(f"no key's name holds {' or '.join(words)}. {hint}`{parser.prog}` lists them all.")
    for word in words:
        for about in about_section(word):
            yield textwrap.fill(f"{word}: {plain(about)}", width=100)
    for key in found:
        yield from explained(key)


def _means(word: str, name: str, names: Sequence[str]) -> bool:
    """Whether a word on the command line means the key ``name``, one of ``names``."""
    if any(word in (other, other.rpartition(".")[2]) for other in names):
        return word in (name, name.rpartition(".")[2])
    if any(other.startswith(f"{word}.") for other in names):
        return name.startswith(f"{word}.")
    return word in name


def explained(key: Key) -> Iterator[str]:
    """What a person reads of a key, in lines."""
    of = f"  (method {key.of})" if key.of else ""
    yield f"{key.name} = {plain(key.default)}{of}"
    resumed = " May change when a run is resumed." if key.may_change else ""
    text = f"{plain(key.allowed)}. {plain(key.meaning)}{resumed}"
    yield textwrap.fill(text, width=100, initial_indent="    ", subsequent_indent="    ")
