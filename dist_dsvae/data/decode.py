"""Bytes of one image member straight into its place in a batch.

JPEG goes through libjpeg-turbo (simplejpeg) without an intermediate copy, .npy members (points)
through numpy, never unpickled, everything else through Pillow. The first bytes tell which: names
in foreign tars can be cut short.
"""

from __future__ import annotations

import io
import weakref
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image
from simplejpeg import decode_jpeg

from dist_dsvae.core.types import ImageShape
from dist_dsvae.data.shards.manifest import DataError

Array = npt.NDArray[np.generic]


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


def empty_batch(shape: ImageShape, batch_size: int) -> Array:
    """uint8 [B, H, W, C] for images, float32 [B, C] for points."""
    if shape.is_image:
        return np.empty((batch_size, shape.height, shape.width, shape.channels), np.uint8)
    return np.empty((batch_size, shape.channels), np.float32)


def decode_into(data: memoryview, out: Array) -> None:
    """Decode one member into ``out``: [H, W, C] uint8, or [C] float32 from .npy bytes.

    Raises DataError saying what is wrong with the bytes.
    """
    try:
        decoded = _decoder(data)(data, out)
    except (ValueError, OSError, EOFError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"it cannot be decoded ({error})") from None
    if decoded.shape != out.shape:
        raise DataError(
            f"it decodes to {_show(decoded.shape)}, while the manifest says {_show(out.shape)} "
            "for every sample of these shards"
        )
    if decoded.base is not out and decoded is not out:
        out[...] = decoded


def _show(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]} pixels" if len(shape) > 1 else f"{shape} numbers"


def _decode_jpeg(data: memoryview, out: Array) -> Array:
    colours = "GRAY" if out.shape[2] == 1 else "RGB"
    try:
        decoded: Array = decode_jpeg(data, colorspace=colours, buffer=out)
    except ValueError:
        return _decode_pillow(data, out)  # CMYK, or a size that does not fit: Pillow tells which
    return decoded


def _decode_pillow(data: memoryview, out: Array) -> Array:
    with Image.open(io.BytesIO(data)) as image:
        if image.mode.startswith(("I", "F")):
            raise ValueError("it has more than 8 bits per value; convert it to 8 bits")
        decoded = np.asarray(image.convert("L" if out.shape[2] == 1 else "RGB"))
    return decoded[:, :, None] if decoded.ndim == 2 else decoded


def _decode_npy(data: memoryview, out: Array) -> Array:
    decoded: Array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    return decoded


def _decoder(data: memoryview) -> Callable[[memoryview, Array], Array]:
    magic = bytes(data[:6])
    if magic[:2] == b"\xff\xd8":
        return _decode_jpeg
    return _decode_npy if magic == b"\x93NUMPY" else _decode_pillow
