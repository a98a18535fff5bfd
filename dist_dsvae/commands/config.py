"""Explain the keys of a configuration:

dsvae config                  all of them
dsvae config ema learning     those whose name holds one of these words
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator, Sequence

from dist_dsvae.config.reference import Key, keys


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="a key, or a part of one")
    return parser


def main() -> int:
    parser = make_parser()
    words: Sequence[str] = parser.parse_args().words
    found = [key for key in keys() if not words or any(word in key.name for word in words)]
    if not found:
        parser.error(f"no key's name holds {' or '.join(words)}; `{parser.prog}` lists them all.")
    for key in found:
        print("\n".join(explained(key)))
    return 0


def explained(key: Key) -> Iterator[str]:
    """What a person reads of a key, in lines."""
    of = f"  (method {key.of})" if key.of else ""
    yield f"{key.name} = {_plain(key.default)}{of}"
    resumed = " May change when a run is resumed." if key.may_change else ""
    text = f"{_plain(key.allowed)}. {_plain(key.meaning)}{resumed}"
    yield textwrap.fill(text, width=100, initial_indent="    ", subsequent_indent="    ")


def _plain(markdown: str) -> str:
    return markdown.replace("\\|", "|").replace("`", "").replace("**", "")
