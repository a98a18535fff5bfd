"""Any picture that Pillow reads -> one square RGB or grey image -> the bytes of a file."""

from __future__ import annotations

import functools
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from dist_dsvae.core.errors import DataError
from dist_dsvae.core.types import ImageShape

Pixels = npt.NDArray[np.uint8]
Resize = Literal["crop", "pad", "stretch"]
Format = Literal["jpg", "png"]
WHITE = (255, 255, 255)
_GREY_BITS = (8, 10, 12, 14, 16, 24, 32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Codec:
    """How an image becomes bytes.

    quality: of JPEG, 1..95; its colour is kept at full resolution (4:4:4).
    png_level: of zlib, 0 (stored) .. 9.
    """

    extension: Format = "png"
    quality: int = 95
    png_level: int = 6

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 95:
            raise DataError(f"The JPEG quality is {self.quality}; allowed are 1 to 95.")
        if not 0 <= self.png_level <= 9:
            raise DataError(f"The PNG compression level is {self.png_level}; allowed are 0 to 9.")

    def pack(self, image: Image.Image) -> bytes:
        """The file of an image of mode "RGB" or "L"."""
        stream = io.BytesIO()
        if self.extension == "jpg":
            image.save(stream, format="JPEG", quality=self.quality, subsampling=0)
        else:
            image.save(stream, format="PNG", compress_level=self.png_level)
        return stream.getvalue()


class ImagePart(Protocol):
    """A picture inside a larger file. It is pickled into worker processes; equal ones have equal texts."""

    @property
    def path(self) -> str:
        """The larger file."""
        ...

    def open(self) -> BinaryIO:
        """The encoded picture as a seekable stream. Raises OSError, and no other, if it cannot be read."""
        ...


@dataclass(frozen=True, slots=True)
class FilePart:
    """The ``num_bytes`` bytes at ``offset`` of a file.

    rest: (offset, num_bytes) of what follows them, for a picture that does not lie in one piece.
    """

    path: str
    offset: int
    num_bytes: int
    rest: tuple[tuple[int, int], ...] = ()

    def open(self) -> BinaryIO:
        content = bytearray()
        with Path(self.path).open("rb") as file:
            for offset, num_bytes in ((self.offset, self.num_bytes), *self.rest):
                file.seek(offset)
                piece = file.read(num_bytes)
                if len(piece) < num_bytes:
                    raise OSError(f"{self.path} ends before byte {offset + num_bytes:,}")
                content += piece
        return io.BytesIO(content)


EncodedImage = str | ImagePart  # a path, or a part of a file
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_POSTSCRIPT = (b"%!PS", b"\xc5\xd0\xd3\xc6")
_START_BYTES = 1024


def open_encoded(image: EncodedImage | Path) -> BinaryIO:
    """The encoded picture as a seekable stream. Raises OSError if it cannot be read."""
    return Path(image).open("rb") if isinstance(image, str | Path) else image.open()


def open_image(image: BinaryIO | str | Path) -> Image.Image:
    """Pillow's view of any picture that it reads itself, and raises as Pillow does.

    Not of PostScript, which it hands to another program: a file's name does not tell what is in it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # an error beyond twice as many
        return Image.open(image, formats=_formats())


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in Image.ID if name != "EPS")


def why_unreadable(error: Exception, image: EncodedImage | Path) -> str:
    """Why opening or decoding a picture failed: for the report, and for whoever gave the file."""
    if isinstance(error, Image.DecompressionBombError):
        return (
            f"it has too many pixels; at most {2 * (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000} million are "
            "read. Make the picture smaller"
        )
    if foreign := foreign_format(image):
        return foreign
    if isinstance(error, UnidentifiedImageError):  # whose text has the address of a stream in memory
        return "UnidentifiedImageError: not a picture of a known format"
    return f"{type(error).__name__}: {error}"


def foreign_format(image: EncodedImage | Path) -> str | None:
    """What to do about a picture of a common format that is not read; None for any other file."""
    try:
        with open_encoded(image) as stream:
            start = stream.read(_START_BYTES)
    except Exception:  # whoever could not read it says why
        return None
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        return "it is a HEIC picture, which is not read. Convert it to JPEG or PNG"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and b"<svg" in start:
        return "it is an SVG drawing, which is not read. Convert it to PNG"
    if start.startswith(_POSTSCRIPT):
        return "it is a PostScript drawing, which is not read. Convert it to PNG"
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitter:
    """Brings any RGB image to ``size`` x ``size`` pixels of ``channels``.

    resize: "crop" keeps the aspect and cuts the centre, "pad" keeps it and adds white, "stretch"
    does not keep it; all of them antialiased.
    """

    size: int
    channels: int
    resize: Resize

    def __post_init__(self) -> None:
        if self.size < 1:
            raise DataError(f"The image size is {self.size}; it must be at least 1 pixel.")
        if self.channels not in (1, 3):
            raise DataError(f"Images of {self.channels} channels were asked for; allowed are 1 and 3.")

    @property
    def shape(self) -> ImageShape:
        return ImageShape(self.channels, self.size, self.size)

    def fit(self, image: Image.Image) -> Image.Image:
        return self.fit_pixels(np.array(image))

    def fit_pixels(self, pixels: Pixels) -> Image.Image:
        """Of uint8 [H, W, 3]; bicubic, which keeps every value where nothing has to be resized."""
        height, width = pixels.shape[:2]
        if self.resize == "crop":
            edge = min(height, width)
            top, left = (height - edge) // 2, (width - edge) // 2
            pixels = pixels[top : top + edge, left : left + edge]
        if self.resize == "pad":
            inner = [max(1, round(side * self.size / max(height, width))) for side in (height, width)]
            top, left = ((self.size - side) // 2 for side in inner)
            fitted = np.full((self.size, self.size, 3), WHITE, np.uint8)
            fitted[top : top + inner[0], left : left + inner[1]] = _resized(pixels, *inner)
        else:
            fitted = _resized(pixels, self.size, self.size)
        image = Image.fromarray(fitted)
        return image if self.channels == 3 else image.convert("L")


def _resized(pixels: Pixels, height: int, width: int) -> Pixels:
    """uint8 [H, W, 3] -> [height, width, 3]: Pillow's bicubic, but for rounding, in half its time."""
    if pixels.shape[:2] == (height, width):
        return pixels
    import torch  # late: whoever only names a codec has no need of it

    batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)
    done = torch.nn.functional.interpolate(batch, size=(height, width), mode="bicubic", antialias=True)
    return done[0].permute(1, 2, 0).contiguous().numpy()


def flatten(image: Image.Image) -> Image.Image:
    """The first frame, turned upright as its EXIF says, on white where transparent, 8-bit RGB.

    Raises ValueError for values that 8 bits cannot tell (``check_depth``, ``as_stored``).
    """
    check_depth(image)
    return as_stored(upright(image))


def has_deep_colours(image: Image.Image) -> bool:
    """Whether a colour picture, not loaded yet, has 16 bits per value; Pillow reads the upper 8 of them."""
    tiles = getattr(image, "tile", [])
    return image.mode in ("RGB", "RGBA", "LA") and any(";16" in str(tile[3]) for tile in tiles)


def check_depth(image: Image.Image) -> None:
    """Raise ValueError for a colour picture, not loaded yet, whose upper 8 of 16 bits do not hold it.

    So it is where a camera's 12 bits are stored in 16: nearly black, and the lower bits cannot be had.
    """
    if not has_deep_colours(image):
        return
    bands = image.split()[: 1 if image.mode == "LA" else 3]
    largest = max(int(band.getextrema()[1]) for band in bands)  # type: ignore[arg-type]
    if largest < 2**6:
        raise ValueError(
            "it holds at most 14 bits per colour in 16, of which only the upper 8 are read; convert it to 8 "
            "bits"
        )


def upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF says."""
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    return ImageOps.exif_transpose(image) if turned else image


def as_stored(image: Image.Image) -> Image.Image:
    """Like ``flatten``, but not turned: for what counts the pixels of the file, such as a box."""
    check_depth(image)
    if image.mode == "F" or image.mode.startswith("I"):
        return _eight_bits(image).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        paper = Image.new("RGBA", layer.size, (*WHITE, 255))
        return Image.alpha_composite(paper, layer).convert("RGB")
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """A grey image of more bits or of floats, scaled to 8 bits (Pillow itself would clip it).

    Whole numbers often fill fewer bits than they are stored in: a camera's 12 in 16, a map's 8 in 32. What
    is white follows from the largest value of the picture: 2^n - 1 for the fewest bits n of ``_GREY_BITS``
    that hold it. Floats are 0 to 1, or 0 to 255 if one exceeds 1.
    """
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all() or values.min() < 0:
        raise ValueError("grey values must be finite and not negative")
    largest = float(values.max())
    if image.mode == "F":
        white = 1.0 if largest <= 1 else 255.0
        if largest > white:
            raise ValueError(f"a grey value of {largest:g} exceeds {white:g}")
    else:
        white = next(top for bits in _GREY_BITS if (top := 2.0**bits - 1) >= largest)
    return Image.fromarray(np.rint(values * (255.0 / white)).astype(np.uint8))
