"""Picture files without what is no picture: EXIF, places, captions, thumbnails, anything behind the end.

A file that fits goes into a shard as it is, and its metadata may tell whom it shows. Pixels stay to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_JPEG_END, _JPEG_SCAN, _JPEG_COMMENT = 0xD9, 0xDA, 0xFE
_JFIF, _ADOBE = 0xE0, 0xEE


def without_metadata(content: bytes) -> bytes:
    """A JPEG or PNG of the same pixels. Raises ValueError where its parts cannot be told."""
    parts = _png_chunks(content) if content.startswith(_PNG_SIGNATURE) else _jpeg_segments(content)
    try:
        return b"".join(parts)
    except IndexError:
        raise ValueError("it ends in the middle of a part") from None


def _png_chunks(content: bytes) -> Iterator[bytes]:
    yield _PNG_SIGNATURE
    place, kind = len(_PNG_SIGNATURE), b""
    while kind != b"IEND":
        kind = content[place + 4 : place + 8]
        end = place + 12 + int.from_bytes(content[place : place + 4], "big")
        if end > len(content):
            raise ValueError("it ends in the middle of a chunk")
        if kind in _PNG_KEPT:
            yield content[place:end]
        place = end


def _jpeg_segments(content: bytes) -> Iterator[bytes]:
    yield content[:2]
    place = 2
    while True:
        while content[place + 1] == 0xFF:  # fill bytes
            place += 1
        marker = content[place + 1]
        if content[place] != 0xFF:
            raise ValueError("there is no marker where one must be")
        if marker == _JPEG_END:
            yield content[place : place + 2]
            return
        end = place + 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        if marker == _JPEG_SCAN:
            end = _end_of_scan(content, end)
        yield _without_metadata(marker, content[place:end])
        place = end


def _without_metadata(marker: int, segment: bytes) -> bytes:
    """Of APP0 and APP14 what says how colours are stored, of the other APPn and of comments nothing."""
    if marker == _JFIF and segment[4:9] == b"JFIF\0":
        return b"\xff\xe0\x00\x10" + segment[4:16] + b"\0\0"  # without the thumbnail behind it
    if marker == _ADOBE and segment[4:9] == b"Adobe":
        return b"\xff\xee\x00\x0e" + segment[4:16]
    return b"" if marker == _JPEG_COMMENT or _JFIF <= marker <= 0xEF else segment


def _end_of_scan(content: bytes, place: int) -> int:
    """Where the next marker is: among coded data 0xFF is followed by 0, or by a restart's number."""
    while True:
        place = content.find(b"\xff", place)
        if place < 0:
            raise ValueError("it has no end")
        following = content[place + 1]
        if following != 0 and not 0xD0 <= following <= 0xD7:
            return place
        place += 2
