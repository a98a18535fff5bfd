"""What callers ask for: classes by name or number, seeds, masks; and what they get told if it cannot be."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from dist_dsvae.core.images import as_stored, upright
from dist_dsvae.core.text import clause
from dist_dsvae.core.types import CodeKind, ImageShape
from dist_dsvae.pretrained.image_kinds import check_pixels, native_copy
from dist_dsvae.sampling.holes import HOLES, hole, holes_for

ClassNames = int | str | Sequence[int | str] | Tensor | npt.NDArray[Any]
Seed = int | torch.Generator | None
Rows = Tensor | npt.NDArray[Any]  # of codes
HALF_GREY = 127  # of 255
Mask = str | Image.Image | npt.NDArray[Any] | Tensor


class RequestError(ValueError):
    """Something was asked for that this model does not have or cannot do; the message says what it has."""


def class_ids(wanted: ClassNames | None, classes: Sequence[str]) -> list[int]:
    """Class numbers of names, numbers or a mixture of them; all classes for None.

    Raises RequestError, with what is near, for one that there is not.
    """
    if wanted is None:
        return list(range(len(classes)))
    if isinstance(wanted, Tensor | np.ndarray):
        wanted = wanted.reshape(-1).tolist()
    if isinstance(wanted, int | str | np.integer):
        wanted = [wanted]
    return [_class_id(one, classes) for one in wanted]


def _class_id(wanted: int | str, classes: Sequence[str]) -> int:
    if isinstance(wanted, str):
        if wanted in classes:
            return classes.index(wanted)
        if not wanted.isdecimal():
            near = difflib.get_close_matches(wanted, classes, n=1)
            shown = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
            hint = f"Did you mean {near[0]!r}?" if near else f"There are {shown}."
            raise RequestError(f"There is no class {wanted!r}. {hint}")
        wanted = int(wanted)
    if isinstance(wanted, bool) or not isinstance(wanted, int | np.integer):
        raise RequestError(f"A class is a name or a number; {wanted!r} is neither.")
    if not 0 <= wanted < len(classes):
        raise RequestError(f"There is no class {wanted}; this model has 0 to {len(classes) - 1}.")
    return int(wanted)


def seed_from(generator: Seed) -> int:
    """The seed of a request: the number itself, or one drawn from a generator (None: torch's own)."""
    if isinstance(generator, bool) or not isinstance(generator, int | np.integer | torch.Generator | None):
        raise RequestError(f"generator is {generator!r}; give a whole number, a torch.Generator or None.")
    if isinstance(generator, int | np.integer):
        if not -(2**63) <= generator < 2**63:
            raise RequestError(f"The seed is {generator}; it must fit into 64 bits.")
        return int(generator)
    device = generator.device if generator is not None else torch.device("cpu")
    return int(torch.randint(2**62, (), generator=generator, device=device))


def device_from(device: str | torch.device | None) -> torch.device:
    """The device; None: a GPU if there is one. Raises RequestError for no device, and for a GPU not here."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = None
    here = ("cpu", "cuda", "mps") if torch.backends.mps.is_available() else ("cpu", "cuda")
    if chosen is None or chosen.type not in here:
        raise RequestError(f"device is {device!r}; allowed are cpu, cuda, cuda:1 and the like.")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise RequestError(
            f"device is {device!r}, but torch sees {torch.cuda.device_count()} GPU(s) here. Use cpu, or "
            "a machine and a torch with CUDA."
        )
    return chosen


def at_least_one(name: str, number: int) -> int:
    """``number``; raises RequestError below 1."""
    if number < 1:
        raise RequestError(f"{name} is {number}; it must be at least 1.")
    return number


def read_code_kind(code_kind: CodeKind | None, *, can_encode: bool) -> CodeKind:
    """Whose codes are decoded: by default those of images, where there are any."""
    if code_kind is None:
        return "images" if can_encode else "prior"
    if code_kind not in get_args(CodeKind):
        raise RequestError(f'code_kind is {code_kind!r}; allowed are "images" and "prior".')
    return code_kind


def read_codes(zs: Rows, zu: Rows, dims: tuple[int, int]) -> Tensor:
    """zs ++ zu [N, sum of dims] in float32, on zs's device.

    dims: the model's. Raises RequestError for other shapes.
    """
    parts = [_tensor(part).float() for part in (zs, zu)]
    got = tuple(part.shape[-1] if part.dim() == 2 else -1 for part in parts)
    if got != dims or len(parts[0]) != len(parts[1]):
        raise RequestError(
            f"zs has the shape {list(parts[0].shape)} and zu {list(parts[1].shape)}; this model's codes "
            f"are [N, {dims[0]}] and [N, {dims[1]}], with the same N."
        )
    return torch.cat([part.to(parts[0].device) for part in parts], dim=1)


def _tensor(rows: Rows) -> Tensor:
    return torch.from_numpy(native_copy(rows)) if isinstance(rows, np.ndarray) else torch.as_tensor(rows)


def grey_mask(mask: Image.Image) -> Image.Image:
    """Upright and of mode "L"; the hole is brighter than ``HALF_GREY``. Raises RequestError."""
    try:
        check_pixels(mask)
        # a depth beyond 8 bits, which convert() would clip; transparency says nothing about a hole
        turned = upright(mask)
        return (as_stored(turned) if mask.mode.startswith(("I", "F")) else turned).convert("L")
    except (OSError, ValueError) as error:
        raise RequestError(f"The mask cannot be read as a picture: {clause(error)}.") from None


def read_mask(mask: Mask, shape: ImageShape, num_images: int, *, aligned_faces: bool) -> Tensor:
    """bool [num_images, 1, H, W], True in the hole.

    mask: a name of ``sampling.holes.holes_for``; a PIL picture, white in the hole, of any size, which is
    turned upright and cut to the model's shape as pictures are (``photographs.cut_mask`` for one of a whole
    photograph of a face); an array or tensor [H, W], for all, or [num_images, H, W], not 0 in the hole.
    Raises RequestError for a mask of another size, for one without a hole, and for samples that are points.
    """
    if not shape.is_image:
        raise RequestError("This model's samples are points, which have no pixels to paint.")
    height, width = shape.height, shape.width
    if isinstance(mask, str):
        known = holes_for(aligned_faces=aligned_faces)
        if mask in HOLES and mask not in known:
            raise RequestError(
                f"The hole {mask!r} is made for aligned faces, and this model does not say that its pictures "
                f"are some. Choose one of {', '.join(known)}, or give a picture, white in the hole."
            )
        if mask not in known:
            near = difflib.get_close_matches(mask, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(known)}."
            raise RequestError(f"There is no mask {mask!r}. {hint} Or give a picture, white in the hole.")
        holes = torch.from_numpy(hole(HOLES[mask], height, width))
    elif isinstance(mask, Image.Image):
        grey = ImageOps.fit(grey_mask(mask), (width, height), Image.Resampling.NEAREST)
        holes = torch.from_numpy(np.asarray(grey) > HALF_GREY)
    else:
        holes = _tensor(mask).cpu() != 0
    if tuple(holes.shape) not in ((height, width), (num_images, height, width)):
        raise RequestError(
            f"The mask has the shape {list(holes.shape)}; it must be [{height}, {width}], or "
            f"[{num_images}, {height}, {width}] with one for each picture."
        )
    holes = holes.expand(num_images, height, width)[:, None]
    if not bool(holes.flatten(1).any(1).all()):
        raise RequestError(
            "The mask has no hole: in a picture that is what is brighter than grey (above 127 of 255), in "
            "numbers what is not 0. Paint the hole white."
        )
    return holes
