"""A picture of what the face stage made of a class: the crops kept, then what was left out and why."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from dist_dsvae.core.faces.align import Alignment
from dist_dsvae.core.faces.face import Point
from dist_dsvae.core.files import write_atomically
from dist_dsvae.core.images import WHITE, EncodedImage, flatten, open_encoded, open_image

COLUMNS = 16
CELL = 72
CROP = 64
_CAPTION = 24  # height of a caption of two lines
_WIDE_COLUMNS = 8  # of what was left out, with captions
_CAPTION_LETTERS = 22  # that fit into a wide cell
MAX_KEPT = 480
MAX_LEFT_OUT = 160


@dataclass(frozen=True, slots=True)
class SheetEntry:
    """A picture on a sheet. landmarks: of the crop to show; None shows the whole picture, small."""

    image: EncodedImage
    name: str
    landmarks: Sequence[Point] | None = None
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Sheet:
    """Of one class. The first 480 kept and 160 left out are shown; the report lists all."""

    path: Path
    title: str
    kept: Sequence[SheetEntry]
    left_out: Sequence[SheetEntry]


def write_sheet(sheet: Sheet) -> None:
    """Write the PNG of a sheet."""
    kept, left_out = sheet.kept[:MAX_KEPT], sheet.left_out[:MAX_LEFT_OUT]
    kept_rows = -(-len(kept) // COLUMNS)
    wide, tall = COLUMNS * CELL // _WIDE_COLUMNS, CELL + _CAPTION
    top = 2 * _CAPTION + kept_rows * CELL
    canvas = Image.new("RGB", (COLUMNS * CELL, top + -(-len(left_out) // _WIDE_COLUMNS) * tall), WHITE)
    draw = ImageDraw.Draw(canvas)
    draw.text((4, 6), _ascii(sheet.title), fill="black")
    for place, entry in enumerate(kept):
        row, column = divmod(place, COLUMNS)
        canvas.paste(_thumbnail(entry), (column * CELL + 4, _CAPTION + row * CELL + 4))
    draw.text((4, top - _CAPTION + 6), f"left out: {len(sheet.left_out)}", fill="black")
    for place, entry in enumerate(left_out):
        row, column = divmod(place, _WIDE_COLUMNS)
        left, upper = column * wide + 4, top + row * tall
        canvas.paste(_thumbnail(entry), (left, upper))
        lines = (_ascii(entry.caption)[:_CAPTION_LETTERS], _ascii(entry.name)[-_CAPTION_LETTERS:])
        draw.multiline_text((left, upper + CROP), "\n".join(lines), fill="black", spacing=1, font_size=10)
    stream = io.BytesIO()
    # 128 colours keep a sheet of hundreds of faces below a megabyte or two.
    canvas.quantize(128, dither=Image.Dither.FLOYDSTEINBERG).save(stream, format="PNG")
    write_atomically(sheet.path, stream.getvalue())


def sheet_file(class_name: str) -> str:
    """A file name for any class name, different for different classes."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", class_name).strip("._")[:80]
    if safe and safe == class_name:
        return f"{safe}.png"
    return f"{safe or 'class'}-{hashlib.sha256(class_name.encode()).hexdigest()[:8]}.png"


def _thumbnail(entry: SheetEntry) -> Image.Image:
    """The crop or the small picture; a grey square where it cannot be decoded."""
    try:
        with open_encoded(entry.image) as stream, open_image(stream) as opened:
            image = flatten(opened)
    except Exception:  # the reason stands in the caption already
        return Image.new("RGB", (CROP, CROP), "lightgrey")
    if entry.landmarks is not None:
        return Alignment(CROP).crop(image, entry.landmarks)
    image.thumbnail((2 * CROP, CROP))
    return image


def _ascii(text: str) -> str:
    """As the built-in font can draw it."""
    return text.encode("ascii", "replace").decode()
