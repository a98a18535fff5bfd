"""Text files as people's editors write them: UTF-8 with or without a byte order mark, or UTF-16 with one.

JSON from outside is read within limits of size and depth, so that no file can take the machine's memory.
"""

from __future__ import annotations

import codecs
import itertools
import json
import re
from pathlib import Path
from typing import Any, Literal

_MARKS = (
    # UTF-32's little-endian mark begins with UTF-16's, so it is tried first
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


_MOST_JSON_BYTES = 2**28
_PIECE_BYTES = 2**20
_MOST_JSON_DEPTH = 32
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_NO_MARKS = bytes(set(range(256)) - set(b'[]{}"'))


class TextError(ValueError):
    """Bytes that are no text; the message says where, and is the first half of a sentence."""


def read_text(path: Path, errors: Literal["strict", "replace"] = "strict") -> str:
    """The text of a file, without its byte order mark. Raises TextError, and OSError if it cannot be read."""
    return decode_text(path.read_bytes(), errors)


def decode_text(content: bytes, errors: Literal["strict", "replace"] = "strict") -> str:
    """Text without its byte order mark.

    errors: "replace" puts U+FFFD where bytes are none of the encoding.
    Raises TextError for what is neither UTF-8 nor marked as UTF-16 or UTF-32.
    """
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8-sig")
    try:
        text = content.decode(encoding, errors)
    except UnicodeDecodeError as error:
        raise TextError(
            f"byte {error.start:,} is not {encoding.removesuffix('-sig').upper()}: save it as UTF-8"
        ) from error
    if "\0" in text:
        raise TextError("it holds zero bytes, as UTF-16 without its mark does: save it as UTF-8")
    return text


def printable(name: str) -> str:
    """A file name as text: bytes that are no UTF-8 become U+FFFD."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def one_line(text: object, most: int | None = None) -> str:
    """Anybody's text in a line, for people: nothing in it steers a terminal or turns the way of reading.

    most: letters; more are cut off.
    """
    start = str(text) if most is None else str(text)[: 4 * most]
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in start).split())
    return line if most is None or len(line) <= most else line[: most - 1] + "…"


def clause(error: BaseException) -> str:
    """What an error says, to stand inside a sentence: without a full stop of its own."""
    return str(error).strip().rstrip(".")


def duration(seconds: float) -> str:
    """In the two largest units, in words that fit a sentence."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    if minutes < 60:
        return f"{minutes} min"
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} days {hours % 24} h"


def read_json(path: Path, *, max_bytes: int = _MOST_JSON_BYTES) -> Any:
    """The content of a JSON file. Raises ValueError as ``parse_json`` does, and OSError."""
    content = bytearray()
    with path.open("rb") as stream:
        # in pieces: a read of many bytes takes as much memory before it begins, also where memory ran out
        while len(content) <= max_bytes and (piece := stream.read(_PIECE_BYTES)):
            content += piece
    return parse_json(bytes(content), max_bytes=max_bytes)


def parse_json(content: bytes | str, *, max_bytes: int = _MOST_JSON_BYTES) -> Any:
    """JSON that somebody else may have written.

    Raises ValueError, whose message is a part of a sentence, for what is no JSON, larger than ``max_bytes``,
    nested deeper than any file of this project, or holds text that no file and no terminal can.
    """
    if len(content) > max_bytes:
        raise ValueError(f"it is larger than {max_bytes:,} bytes")
    text = decode_text(content) if isinstance(content, bytes) else content
    if _depth(text.encode("utf-8", "replace")) > _MOST_JSON_DEPTH:
        raise ValueError(f"it is nested more than {_MOST_JSON_DEPTH} levels deep")
    document = json.loads(text)
    if _SURROGATE.search(text):  # one of a pair is sound, by itself it is half a character
        try:
            json.dumps(document, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("it holds half a character, a surrogate without its other") from None
    return document


def _depth(content: bytes) -> int:
    """How deep brackets are nested outside of strings; by whole-text operations, for files are large."""
    if b"\\" in content:
        content = re.sub(rb"\\.", b"", content, flags=re.DOTALL)
    # Two strings next to each other are as good as one, so the plain ones vanish
    marks = re.sub(rb'"[^"]*("|$)', b"", content.translate(None, _NO_MARKS).replace(b'""', b""))
    return max(itertools.accumulate(1 if mark in b"[{" else -1 for mark in marks), default=0)
