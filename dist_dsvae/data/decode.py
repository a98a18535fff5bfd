"""Bytes of one image member straight into its place in a batch.

JPEG goes through libjpeg-turbo (simplejpeg) without an intermediate copy, .npy members (points)
through numpy, never unpickled, everything else through Pillow. The first bytes tell which: names
in foreign tars can be cut short. Pictures of other tools are taken as ``dsvae build`` takes them: turned as
their EXIF says, on white where they are transparent. Where simplejpeg is not installed Pillow decodes JPEG,
too: more slowly, and to the same pixels, for both stand on libjpeg-turbo; a run records the versions of both.
"""

from __future__ import annotations

import io
import math
import weakref
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from dist_dsvae.core.errors import DataError
from dist_dsvae.core.images import as_stored, check_depth, upright
from dist_dsvae.core.types import MOST_VALUES, ImageShape

try:
    from simplejpeg import decode_jpeg, decode_jpeg_header
except ModuleNotFoundError:
    decode_jpeg = decode_jpeg_header = None

Array = npt.NDArray[np.generic]

_NPY = b"\x93NUMPY"
JPEG, _APP1 = b"\xff\xd8\xff", b"\xff\xe1"
_MAY_TURN = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif", "Raw profile type APP1"}
# No other of Pillow's: some run programs, and none has been looked at here
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM")


class BatchBuffers:
    """Memory for batches, used again once nobody holds the batch that was in it.

    Fresh memory of this size comes from the kernel page by page, which costs a fifth of decoding.
    """

    def __init__(self, shape: ImageShape, batch_size: int) -> None:
        self._shape, self._batch_size = shape, batch_size
        self._free: list[Array] = []

    def take(self) -> Array:
        """An array as from ``empty_batch``; its memory returns here when the array object is gone.

        torch.from_numpy keeps that object alive; numpy's own views of it do not.
        """
        memory = self._free.pop() if self._free else empty_batch(self._shape, self._batch_size)
        lent = memory.view()
        weakref.finalize(lent, self._free.append, memory).atexit = False
        return lent


def slow_jpeg() -> str:
    """A sentence where JPEGs are decoded by Pillow for want of simplejpeg, else ""."""
    if decode_jpeg is not None:
        return ""
    return "simplejpeg is not installed: Pillow decodes JPEGs, more slowly. pip install simplejpeg"


def empty_batch(shape: ImageShape, batch_size: int) -> Array:
    """uint8 [B, H, W, C] for images, float32 [B, C] for points."""
    if shape.is_image:
        return np.empty((batch_size, shape.height, shape.width, shape.channels), np.uint8)
    return np.empty((batch_size, shape.channels), np.float32)


def decode_into(data: memoryview, out: Array) -> None:
    """Decode one member into ``out``: [H, W, C] uint8, or [C] float32 from .npy bytes.

    Raises DataError saying what is wrong with the bytes. Nothing larger than ``out`` is decoded.
    """
    try:
        decoded = _decoder(data)(data, out)
        if decoded.base is not out and decoded is not out:
            out[...] = decoded
    except DataError:
        raise
    except Exception as error:  # decoders raise nearly anything on crafted bytes
        raise DataError(f"it cannot be decoded ({_reason(error)})") from None


def decode_plain_jpeg(data: bytes, least: int) -> npt.NDArray[np.uint8] | None:
    """An ordinary colour JPEG of more than ``least`` pixels a side: uint8 [H, W, 3].

    Reduced by the largest of 1, 2, 4 and 8 that makes no side smaller than ``least``, as Pillow's draft does
    it, to the bit. None for all that takes Pillow itself: other formats, sizes and colours, what has EXIF or
    XMP, which may turn it, more pixels than Pillow takes, or damage. Without simplejpeg it is always None.
    """
    if decode_jpeg is None or not data.startswith(JPEG) or _APP1 in data:
        return None
    try:
        height, width, colours, _ = decode_jpeg_header(data)
        fits = least < min(height, width) and height * width <= 2 * (Image.MAX_IMAGE_PIXELS or 0)
        if colours != "YCbCr" or not fits:
            return None
        part = max(part for part in (1, 2, 4, 8) if part == 1 or min(height, width) // least >= part)
        pixels: npt.NDArray[np.uint8] = decode_jpeg(
            data, min_height=-(-height // part), min_width=-(-width // part)
        )
    except ValueError:
        return None
    return pixels


def shape_of(data: memoryview) -> ImageShape:
    """What a member decodes to. Raises DataError if it is none that is read, or too large.

    Of the pixels only what 16 bits per colour hold is looked at (``images.check_depth``).
    """
    try:
        if bytes(data[:6]) == _NPY:
            shape, dtype, _ = _npy_header(data)
            if len(shape) != 1 or not np.issubdtype(dtype, np.floating):
                raise ValueError(
                    f"it is {dtype} of shape {shape}; an npy member must be a point, floats of shape (d,), "
                    "and images be stored as png"
                )
            return ImageShape(shape[0], 0, 0)
        with _opened(data) as image:
            grey = image.mode in ("1", "L", "F") or image.mode.startswith("I")
            shape_ = ImageShape(1 if grey else 3, image.height, image.width)
            if shape_.num_values > MOST_VALUES:
                raise ValueError(
                    f"it has {image.width}x{image.height} pixels, more than any network here takes"
                )
            check_depth(image)
            height, width = _upright_size(image, _orientation(image))
            return ImageShape(shape_.channels, height, width)
    except Exception as error:  # as above
        raise DataError(_reason(error)) from None


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _check_shape(found: tuple[int, ...], out: Array) -> None:
    if found != out.shape:
        raise DataError(
            f"it decodes to {_show(found)}, while the manifest says {_show(out.shape)} "
            "for every sample of these shards"
        )


def _show(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]} pixels" if len(shape) > 1 else f"{shape} numbers"


def _decode_jpeg(data: memoryview, out: Array) -> Array:
    if decode_jpeg is None or (_APP1 in bytes(data) and _is_turned(data)):
        return _decode_pillow(data, out)
    colours = "GRAY" if out.shape[2] == 1 else "RGB"
    try:
        decoded: Array = decode_jpeg(data, colorspace=colours, buffer=out)
    except ValueError:
        return _decode_pillow(data, out)  # CMYK, or a size that does not fit: Pillow tells which
    _check_shape(decoded.shape, out)
    return decoded


def _decode_pillow(data: memoryview, out: Array) -> Array:
    with _opened(data) as image:
        if {image.height, image.width} != set(out.shape[:2]):  # before its pixels take memory
            _check_shape((image.height, image.width, out.shape[-1]), out)
        if image.mode.startswith(("I", "F")):
            raise ValueError("it has more than 8 bits per value; convert it to 8 bits")
        if out.shape[2] == 1:
            image.draft("L", None)  # a colour JPEG's own luminance, as libjpeg-turbo gives it
        orientation = _orientation(image)
        _check_shape((*_upright_size(image, orientation), out.shape[-1]), out)
        picture = image if orientation == 1 else upright(image)
        if picture.has_transparency_data:
            picture = as_stored(picture)
        decoded = np.asarray(picture.convert("L" if out.shape[2] == 1 else "RGB"))
    return decoded.reshape(out.shape)


def _is_turned(data: memoryview) -> bool:
    try:
        with _opened(data) as image:
            return _orientation(image) != 1
    except Exception:  # the decoder tells what is wrong
        return False


def _orientation(image: Image.Image) -> int:
    """What EXIF or XMP says of it, 1 to 8; 1, upright, where they cannot be read."""
    if image.format == "PNG":
        image.load()  # it may be said behind the pixels
    if not _MAY_TURN & image.info.keys():
        return 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # whatever a crafted one raises
        return 1


def _upright_size(image: Image.Image, orientation: int) -> tuple[int, int]:
    """Height and width of the picture once it is turned."""
    return (image.width, image.height) if 5 <= orientation <= 8 else (image.height, image.width)


def _opened(data: memoryview) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=_FORMATS)


def _decode_npy(data: memoryview, out: Array) -> Array:
    shape, dtype, offset = _npy_header(data)
    _check_shape(shape, out)
    return np.frombuffer(data, dtype, math.prod(shape), offset).reshape(shape)


def _npy_header(data: memoryview) -> tuple[tuple[int, ...], np.dtype[np.generic], int]:
    """Shape, type and where the numbers begin. Raises ValueError, and whatever numpy does."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"its npy format is {version[0]}.{version[1]}; 1.0 and 2.0 are read")
    shape, _, dtype = readers[version](stream)
    if dtype.kind not in "fiu":
        raise ValueError(f"it holds {dtype}, not numbers")
    return shape, dtype, stream.tell()


def _decoder(data: memoryview) -> Callable[[memoryview, Array], Array]:
    magic = bytes(data[:6])
    if magic[:2] == b"\xff\xd8":
        return _decode_jpeg
    return _decode_npy if magic == _NPY else _decode_pillow
