"""Pictures as people have them, and back: PIL pictures, NumPy arrays or tensors, one or many.

    kind      what it looks like                                    one of them       values
    "pil"     a picture, or a list of pictures                      a picture         8 bits
    "array"   uint8 or float [N, H, W, C]                           [H, W, C]         0..255 or [-1, 1]
    "tensor"  uint8 or float [N, C, H, W]                           [C, H, W]         0..255 or [-1, 1]

Points are float arrays or tensors [N, 2], one of them [2]. A grey array may leave its last axis out if
it is a single picture. PIL pictures of any size and mode are brought to the model's as
``shards/build.py`` does it: upright by their EXIF, on white where transparent, the centre cut out at the
model's aspect, antialiased. Arrays and tensors must have the model's size: nobody knows how they were cut.

Floats of pictures lie in [-1, 1], not in [0, 1] as torchvision's ToTensor makes them: a picture in [0, 1]
is taken for a pale one. Give images * 2 - 1, or uint8. Floats that look like it get a warning, once.
"""

from __future__ import annotations

import functools
import io
import logging
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from dist_dsvae.core.images import Fitter, flatten, open_image, why_unreadable
from dist_dsvae.core.text import clause
from dist_dsvae.core.types import ImageShape
from dist_dsvae.sampling.grids import tiled
from dist_dsvae.sampling.image_file import ForeignImageError, write_image
from dist_dsvae.sampling.pixels import from_bytes, to_bytes

logger = logging.getLogger(__name__)

Container = Literal["pil", "array", "tensor"]
Images = Image.Image | Sequence[Image.Image] | npt.NDArray[Any] | Tensor
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # those that can be computed with
_SLACK = 1e-3  # of values beyond [-1, 1]: what rounding in half precision leaves
_MIDDLE = 0.5  # of [0, 1]
_MOST_SHOWN = 400  # pictures in a notebook, whose file they become a part of


class ImageError(ValueError):
    """Pictures that the model cannot take; the message says what was given and what is allowed."""


class Kind(NamedTuple):
    """The kind of a caller's pictures, to give results of the same.

    dtype: uint8 for 8 bits per value, else a floating type. is_single: without the axis of a batch.
    is_flat: a grey array [H, W], without that of channels as well.
    """

    container: Container
    dtype: torch.dtype
    device: torch.device
    is_single: bool = False
    is_flat: bool = False

    @classmethod
    def named(cls, container: str | None, shape: ImageShape) -> Kind:
        """Of results that follow no input: 8 bits for "pil" and "array", float32 for "tensor".

        container: None for "pil", or "array" where samples are points.
        Raises ImageError for another name, and for "pil" where samples are points.
        """
        container = container or ("pil" if shape.is_image else "array")
        if container not in ("pil", "array", "tensor") or (container == "pil" and not shape.is_image):
            allowed = '"pil", "array" or "tensor"' if shape.is_image else '"array" or "tensor" for points'
            raise ImageError(f"kind is {container!r}; allowed are {allowed}.")
        eight_bits = container != "tensor" and shape.is_image
        return cls(container, torch.uint8 if eight_bits else torch.float32, torch.device("cpu"))  # type: ignore[arg-type]

    def stored(self, images: Tensor) -> Tensor:
        """Network output [N, ...] in this kind's values, on its device."""
        return (to_bytes(images) if self.dtype == torch.uint8 else images.to(self.dtype)).to(self.device)

    def wrap(self, images: Tensor) -> Any:
        """Stored images [N, ...] as the caller's kind; one alone if one alone was given."""
        if self.container == "pil":
            converted = ImageList(map(_as_pil, images))
            return converted[0] if self.is_single else converted
        if self.container == "array":
            array = (images.movedim(1, -1) if images.dim() > 2 else images).contiguous().numpy()
            array = array[..., 0] if self.is_flat and self.is_single else array
            return array[0] if self.is_single else array
        return images[0] if self.is_single else images

    def wrap_grid(self, images: Tensor, num_rows: int) -> Any:
        """Stored images [R * K, ...] as rows: lists of lists of PIL pictures, else one axis more."""
        if self.container == "pil":
            return ImageRows(ImageList(map(_as_pil, images)).in_rows(num_rows).rows)
        flat = self._replace(is_single=False, is_flat=False).wrap(images)
        return flat.reshape(num_rows, len(images) // max(num_rows, 1), *flat.shape[1:])


class ImageList(list[Image.Image]):
    """PIL pictures in a list, which can be saved as one picture, and are shown as that in a notebook."""

    num_rows: int | None = None

    def in_rows(self, num_rows: int) -> ImageList:
        """The same list, to be saved in so many rows."""
        self.num_rows = num_rows
        return self

    @property
    def rows(self) -> list[ImageList]:
        """Of equal length, but for the last; where nothing else is chosen about as many as columns."""
        num_columns = -(-len(self) // (self.num_rows or math.isqrt(len(self)) or 1)) or 1
        return [ImageList(self[first : first + num_columns]) for first in range(0, len(self), num_columns)]

    def save(self, path: str | Path) -> None:
        """Write the pictures side by side as a PNG; raises ImageError as ``save_tiles`` does."""
        save_tiles(path, self.rows)

    def _repr_png_(self) -> bytes | None:
        return _as_png(self.rows)


class ImageRows(list[ImageList]):
    """Rows of PIL pictures, which can be saved as one picture, and are shown as that in a notebook."""

    def save(self, path: str | Path) -> None:
        """Write the rows as a PNG; raises ImageError as ``save_tiles`` does."""
        save_tiles(path, self)

    def _repr_png_(self) -> bytes | None:
        return _as_png(self)


def save_tiles(path: str | Path, rows: Sequence[Sequence[Image.Image]]) -> None:
    """Write rows of pictures of one size as a PNG, small ones enlarged so that every pixel can be seen.

    Raises ImageError for a name that ends in something else, for no pictures, and where the file would
    replace one that this program did not draw.
    """
    path = Path(path)
    if path.suffix.lower() not in ("", ".png"):
        raise ImageError(f"{path} does not end in .png, the format that is written. Name it so.")
    if not any(rows):
        raise ImageError(f"There are no pictures to write to {path}.")
    try:
        write_image(path, tiled(rows))
    except ForeignImageError as error:
        raise ImageError(str(error)) from None


def _as_png(rows: Sequence[Sequence[Image.Image]]) -> bytes | None:
    """The tiles for a notebook; None, for which it prints the list, of no pictures or very many."""
    if not 0 < sum(map(len, rows)) <= _MOST_SHOWN:
        return None
    stream = io.BytesIO()
    tiled(rows).save(stream, format="PNG")
    return stream.getvalue()


def read_images(images: Images, shape: ImageShape, name: str = "images") -> tuple[Tensor, Kind]:
    """The caller's pictures as a tensor [N, C, H, W] or points [N, C], in their own values, and their kind.

    name: of the argument, for messages. ``to_network`` makes the networks' values of it.
    Raises ImageError for what is neither, for another size than the model's, for values out of range; warns
    of floats that look like [0, 1].
    """
    if isinstance(images, Image.Image):
        tensor, kind = _read_pil([images], shape, name)
        return tensor, kind._replace(is_single=True)
    if isinstance(images, np.ndarray):
        return _read_array(images, shape, name)
    if isinstance(images, Tensor):
        single = images.dim() == (3 if shape.is_image else 1)
        tensor = images[None] if single else images
        _check(tensor, images, shape, name, "channels, height, width")
        return tensor, Kind("tensor", tensor.dtype, tensor.device, single)
    if isinstance(images, Sequence) and all(isinstance(p, Image.Image) for p in images):
        return _read_pil(images, shape, name)
    raise ImageError(
        f"{name} is {_described(images)}. Give a PIL picture or a list of them, a NumPy array, or a tensor."
    )


def read_image(path: Path) -> Image.Image:
    """The picture in a file, decoded. Raises ImageError, with what to do, for one that cannot be read."""
    try:
        with warnings.catch_warnings():
            # Pillow's word on many pixels would stand beside ours, at another number.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = open_image(path)
        with opened:
            opened.load()
            return opened
    except FileNotFoundError:
        raise ImageError(
            f"{path} cannot be read as a picture: there is no such file. Correct the path."
        ) from None
    except Exception as error:  # codecs raise nearly anything on a broken file
        raise ImageError(f"{path} cannot be read as a picture: {why_unreadable(error, path)}.") from None


def to_network(images: Tensor) -> Tensor:
    """0..255 or [-1, 1], as ``read_images`` gave them -> float32 in [-1, 1]."""
    return from_bytes(images) if images.dtype == torch.uint8 else images.float()


def _read_pil(images: Sequence[Image.Image], shape: ImageShape, name: str) -> tuple[Tensor, Kind]:
    if not shape.is_image:
        raise ImageError(f"{name} are pictures, but this model was trained on points [N, {shape.channels}].")
    kind = Kind("pil", torch.uint8, torch.device("cpu"))
    pixels = np.zeros((len(images), shape.height, shape.width, shape.channels), np.uint8)
    fitter = Fitter(size=shape.width, channels=shape.channels, resize="crop")
    for number, image in enumerate(images):
        try:
            check_pixels(image)
            fitted = fitter.fit(flatten(image))
        except (OSError, ValueError) as error:
            raise ImageError(f"{name}[{number}] cannot be read as a picture: {clause(error)}.") from None
        pixels[number] = np.asarray(fitted).reshape(pixels.shape[1:])
    return torch.from_numpy(pixels).movedim(-1, 1), kind


def check_pixels(image: Image.Image) -> None:
    """Raises ValueError, a clause, for a picture without any: nothing can be cut out of it."""
    if not image.width * image.height:
        raise ValueError(f"it has no pixels ({image.width}x{image.height})")


def native_copy(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """As a tensor can hold it: flipped or read-only memory, or that of another byte order, is no tensor's."""
    return np.array(array, array.dtype.newbyteorder("="), order="C")


def _read_array(array: npt.NDArray[Any], shape: ImageShape, name: str) -> tuple[Tensor, Kind]:
    is_float = array.dtype.kind == "f" and array.dtype.itemsize <= 8  # tensors have no longer ones
    if array.dtype != np.uint8 and not is_float:
        raise ImageError(
            f"{name} is an array of {array.dtype}; allowed are uint8 (0 to 255) and floats in [-1, 1]."
        )
    tensor = torch.from_numpy(native_copy(array))
    is_flat = shape.is_image and tensor.dim() == 2 and shape.channels == 1
    if not shape.is_image:
        single = tensor.dim() == 1
        tensor = tensor[None] if single else tensor
    else:
        tensor = tensor[..., None] if is_flat else tensor
        single = tensor.dim() == 3
        tensor = tensor[None] if single else tensor
        tensor = tensor.movedim(-1, 1) if tensor.dim() == 4 else tensor
    _check(tensor, array, shape, name, "height, width, channels")
    return tensor, Kind("array", tensor.dtype, torch.device("cpu"), single, is_flat)


def _check(tensor: Tensor, given: Any, shape: ImageShape, name: str, order: str) -> None:
    """Raise ImageError unless ``tensor`` holds samples of ``shape`` in values that are allowed."""
    expected = tuple(shape) if shape.is_image else (shape.channels,)
    if tuple(tensor.shape[1:]) != expected or tensor.dim() != len(expected) + 1:
        axes = [shape.channels, shape.height, shape.width] if shape.is_image else [shape.channels]
        axes = axes[1:] + axes[:1] if order.startswith("height") else axes
        wanted = ", ".join(map(str, axes))
        what = f" ({order}; PIL pictures may have any size)" if shape.is_image else ""
        raise ImageError(
            f"{name} has the shape {list(given.shape)}; this model takes [N, {wanted}] or [{wanted}]{what}."
        )
    if tensor.dtype == torch.uint8 and shape.is_image:
        return
    if tensor.dtype not in _FLOATS:
        raise ImageError(f"{name} is of {tensor.dtype}; allowed are uint8 (0 to 255) and floats in [-1, 1].")
    if not bool(torch.isfinite(tensor).all()):
        raise ImageError(f"{name} holds numbers that are not finite.")
    if not shape.is_image or not len(tensor):
        return
    lowest, highest = (float(value) for value in tensor.aminmax())
    if max(-lowest, highest) > 1 + _SLACK:
        raise ImageError(
            f"{name} holds floats up to {max(-lowest, highest):g}; floats must lie in [-1, 1]. Divide "
            "0..255 by 127.5 and subtract 1, or give uint8."
        )
    # White paper, or one grey, is as likely in the one range as in the other, and tells nothing
    if 0 <= lowest < min(highest, _MIDDLE):
        _warn_of_range(name)


@functools.cache  # said once for each argument: who gives bright pictures in a loop is not told each time
def _warn_of_range(name: str) -> None:
    logger.warning(
        "%s holds no value below 0, and is taken as floats in [-1, 1], where 0 is grey. If it lies in "
        "[0, 1], as torchvision's ToTensor makes pictures, give %s * 2 - 1, or uint8. If the pictures are as "
        "bright as that, all is well.",
        name,
        name,
    )


def _as_pil(pixels: Tensor) -> Image.Image:
    """uint8 [C, H, W] -> a picture of mode "L" or "RGB"."""
    array = pixels.movedim(0, -1).contiguous().numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def _described(given: object) -> str:
    if isinstance(given, Sequence) and not isinstance(given, str):
        inside = next((type(item).__name__ for item in given if not isinstance(item, Image.Image)), "?")
        return f"a {type(given).__name__} with {inside} in it"
    return f"a {type(given).__name__}"
