"""Grids of pictures as PNG files with row names, and point clouds as scatter plots."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dist_dsvae.core.text import one_line
from dist_dsvae.sampling.image_file import write_image
from dist_dsvae.sampling.pixels import to_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_GAP = 2
_MIN_TILE = 64
_FILM_TILE, _FILM_COLUMNS = 128, 5
_MARGIN = 8
_BACKGROUND = (255, 255, 255)
_INK = (40, 40, 40)
_MOST_LETTERS = 60  # of a name: whoever named a class may have written a book
_MOST_LINES = 4


def draw_grid(
    images: Tensor,
    *,
    title: str = "",
    row_names: Sequence[str] = (),
    column_names: Sequence[str] = (),
    row_images: Tensor | None = None,
    column_images: Tensor | None = None,
    columns_per_group: int = 0,
    min_tile: int = _MIN_TILE,
    font_size: int = 14,
) -> Image.Image:
    """Images [R, K, C, H, W] in [-1, 1] as one picture.

    title: above it; none takes no room. row_names: R names at the left, of up to 4 lines. font_size: of
    both, in pixels. column_names: K names at the top, cut off where they are wider than a tile. row_images
    [R, ...] and column_images [K, ...]: real pictures that head the rows and columns, set apart by a gap.
    columns_per_group: a gap after as many columns; 0: none. Pictures of less than ``min_tile`` pixels are
    enlarged without smoothing, so that every pixel can be judged.
    """
    num_rows, num_columns = images.shape[:2]
    scale = max(1, min_tile // images.shape[-1])
    tile = images.shape[-1] * scale
    pitch = tile + _GAP
    font = ImageFont.load_default(size=font_size)
    header = _MARGIN + (font_size + 10 if title else 0)
    small = ImageFont.load_default(size=12)
    row_names = [
        "\n".join(one_line(line, _MOST_LETTERS) for line in name.split("\n")[:_MOST_LINES])
        for name in row_names
    ]
    column_names = [one_line(name, _MOST_LETTERS) for name in column_names]
    title = one_line(title, 4 * _MOST_LETTERS)
    lines = [line for name in row_names for line in name.split("\n")]
    name_width = max((round(font.getlength(line)) for line in lines), default=0)
    left = (
        _MARGIN
        + (name_width + _MARGIN if name_width else 0)
        + (pitch + _MARGIN if row_images is not None else 0)
    )
    top = header + (pitch + _MARGIN if column_images is not None else 0) + (18 if column_names else 0)
    gaps = [_MARGIN * (k // columns_per_group) if columns_per_group else 0 for k in range(num_columns)]
    lefts = [left + column * pitch + gap for column, gap in enumerate(gaps)]
    title_width = round(font.getlength(title)) + 2 * _MARGIN
    width = max(lefts[-1] + pitch + _MARGIN, title_width)
    canvas = Image.new("RGB", (width, top + num_rows * pitch + _MARGIN), _BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    draw.text((_MARGIN, _MARGIN), title, fill=_INK, font=font)

    def paste(image: Tensor, x: int, y: int) -> None:
        canvas.paste(to_pil(image).resize((tile, tile), Image.Resampling.NEAREST), (x, y))

    for row in range(num_rows):
        y = top + row * pitch
        if row_names:
            height = (font_size + 2) * (1 + row_names[row].count("\n"))
            draw.text((_MARGIN, y + (tile - height) // 2), row_names[row], fill=_INK, font=font)
        if row_images is not None:
            paste(row_images[row], left - pitch - _MARGIN, y)
        for column in range(num_columns):
            paste(images[row, column], lefts[column], y)
    for column, x in enumerate(lefts):
        if column_names:
            draw.text((x, top - 18), _cut(column_names[column], small, tile), fill=_INK, font=small)
        if column_images is not None:
            paste(column_images[column], x, header)
    return canvas


def tiled(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Rows of pictures of one size, set apart by a gap, enlarged as those of ``draw_grid``."""
    first = next(image for row in rows for image in row)
    scale = max(1, _MIN_TILE // first.width)
    width, height = first.width * scale, first.height * scale
    num_columns = max(map(len, rows))
    size = (num_columns * (width + _GAP) - _GAP, len(rows) * (height + _GAP) - _GAP)
    canvas = Image.new("RGB", size, _BACKGROUND)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            enlarged = image.resize((width, height), Image.Resampling.NEAREST)
            canvas.paste(enlarged, (x * (width + _GAP), y * (height + _GAP)))
    return canvas


def beside_each_other(images: Tensor) -> Image.Image:
    """Images [K, C, H, W] in [-1, 1] in rows of up to 5, smoothly enlarged: a frame of a film."""
    tile = images.shape[-1] * max(1, _FILM_TILE // images.shape[-1])
    num_columns = min(len(images), _FILM_COLUMNS)
    pitch, num_rows = tile + 2 * _GAP, -(-len(images) // num_columns)
    canvas = Image.new("RGB", (num_columns * pitch, num_rows * pitch), _BACKGROUND)
    for place, image in enumerate(images):
        row, column = divmod(place, num_columns)
        enlarged = to_pil(image).resize((tile, tile), Image.Resampling.BICUBIC)
        canvas.paste(enlarged, (column * pitch + _GAP, row * pitch + _GAP))
    return canvas


def _cut(text: str, font: Font, width: int) -> str:
    """``text`` without what is beyond ``width`` pixels."""
    while font.getlength(text) > width:
        text = text[:-1]
    return text


def to_pil(image: Tensor) -> Image.Image:
    """[C, H, W] in [-1, 1], one or three channels, to an RGB picture."""
    return Image.fromarray(to_bytes(image).expand(3, -1, -1).permute(1, 2, 0).cpu().contiguous().numpy())


def save_scatter(
    path: Path, panels: Sequence[tuple[str, Tensor, Tensor]], class_names: Sequence[str]
) -> None:
    """Write ``scatter_image`` of the same arguments (``image_file.write_image``)."""
    write_image(path, scatter_image(panels, class_names, dpi=110))


def scatter_image(
    panels: Sequence[tuple[str, Tensor, Tensor]], class_names: Sequence[str], dpi: int
) -> Image.Image:
    """``draw_scatter`` as a picture."""
    stream = io.BytesIO()
    # "tight": the layout leaves no room for titles above axes whose scales are equal
    draw_scatter(panels, class_names).savefig(stream, dpi=dpi, format="png", bbox_inches="tight")
    return Image.open(stream)


def draw_scatter(panels: Sequence[tuple[str, Tensor, Tensor]], class_names: Sequence[str]) -> Figure:
    """Panels (title, points [N, 2], labels [N]) side by side on common axes (Figure 2)."""
    import matplotlib  # takes a second, and most pictures are no plots
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8 * len(panels), 2.4), layout="constrained")
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    colours = matplotlib.colormaps["tab10"]
    for ax, (title, points, labels) in zip(axes, panels, strict=True):
        clouds = []
        for label in range(len(class_names)):
            chosen = points[labels == label].float().cpu().numpy()
            colour = colours(label % 10)
            clouds.append(ax.scatter(chosen[:, 0], chosen[:, 1], s=3, alpha=0.5, color=colour))
        ax.set_title(one_line(title, _MOST_LETTERS), parse_math=False)
        ax.set_aspect("equal")
    names = [one_line(name, _MOST_LETTERS) for name in class_names]
    legend = figure.legend(
        clouds, names, loc="outside lower center", ncols=len(class_names), markerscale=4, frameon=False
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # names are text, whatever they look like
    return figure
