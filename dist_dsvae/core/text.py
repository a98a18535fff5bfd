"""Text files as people's editors write them: UTF-8 with or without a byte order mark, or UTF-16 with one."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Literal

_MARKS = (
    # UTF-32's little-endian mark begins with UTF-16's, so it is tried first
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


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
