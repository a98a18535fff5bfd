"""The pictures behind the tabs: functions of a model and of choices, equal for equal choices.

Codes are rows of float32: zs [1, zs_dim] and zu [1, zu_dim].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from dist_dsvae.core.noise import Noise
from dist_dsvae.core.types import CodeKind
from dist_dsvae.explore.examples import TYPICAL, best_known, rows_of_samples
from dist_dsvae.explore.uploads import Given
from dist_dsvae.methods.abilities import Generative
from dist_dsvae.pretrained.image_kinds import read_images, to_network
from dist_dsvae.pretrained.model import PretrainedModel
from dist_dsvae.pretrained.requests import RequestError, class_ids
from dist_dsvae.sampling.grids import draw_grid, scatter_image, tiled
from dist_dsvae.sampling.temperature import AT_ONE, Temperatures
from dist_dsvae.sampling.vary import EXTENT, varied_codes

MAX_CLASSES = 20
MAX_SAMPLES = 12
NUM_PLACES = 9
NUM_DIMENSIONS = 6
NUM_STEPS = 5
MAX_REFINE_STEPS = 100
_NUM_POINTS = 3000
_NUM_DECODED = 512  # pictures at start-up, to find the dimensions worth a slider
_SIDE = 320
_LARGE_TILE = 128
_FONT_SIZE = 22  # of names beside rows, which a narrow screen shows at half of it
_GIVE_PHOTOGRAPH = "Give a photograph that shows a face: the result is put back into it."

Labels = tuple[str | None, str | None]
Hole = str | npt.NDArray[np.bool_]


class Base(NamedTuple):
    """Codes, of a sample or of a picture: one row for sliders to start from."""

    zs: Tensor
    zu: Tensor
    code_kind: CodeKind

    def decoded(self, model: PretrainedModel) -> list[Image.Image]:
        """A picture of each of its rows."""
        images: list[Image.Image] = model.decode(self.zs, self.zu, "pil", code_kind=self.code_kind)
        return images


def enlarged(image: Image.Image, side: int = _SIDE) -> Image.Image:
    """A small picture some whole number of times as large, up to ``side``, every pixel a square."""
    factor = max(1, side // image.width)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


# Samples


def samples(
    model: PretrainedModel,
    classes: Sequence[str],
    num_samples: int,
    seed: int,
    temperatures: Temperatures = AT_ONE,
    *,
    shared_zu: bool,
    only_best: bool = False,
) -> Image.Image:
    """A row per class; of points, a cloud.

    shared_zu: one zu per column. only_best: see ``examples.best_known``.
    """
    if not 1 <= len(classes) <= MAX_CLASSES:
        raise RequestError(f"{len(classes)} classes are chosen; choose 1 to {MAX_CLASSES}.")
    if not model.shape.is_image:
        return _cloud(model, classes, seed, temperatures)
    draw = best_known if only_best else rows_of_samples
    images = draw(
        model, class_ids(classes, model.classes), num_samples, seed, temperatures, shared_zu=shared_zu
    )
    return draw_grid(images, row_names=list(classes), font_size=_FONT_SIZE)


def _cloud(
    model: PretrainedModel, classes: Sequence[str], seed: int, temperatures: Temperatures
) -> Image.Image:
    per_class = -(-_NUM_POINTS // len(model.classes))
    zs, zu = temperatures.of_codes_of(model.published.method)
    points = model.sample(classes, per_class, seed, temperature_zs=zs, temperature_zu=zu, kind="tensor")
    labels = torch.arange(len(classes)).repeat_interleave(per_class)
    return scatter_image([(f"samples, seed {seed}", points, labels)], classes, dpi=160)


# Paths between classes (zs)


def between(model: PretrainedModel, first: str, second: str, seed: int) -> Image.Image:
    """The way from one class to another in ``NUM_PLACES`` pictures, zu the same in all."""
    way = _between(model, first, second, torch.linspace(0, 1, NUM_PLACES), seed)
    return draw_grid(model.decode(way.zs, way.zu, code_kind=way.code_kind)[None])


def place_between(model: PretrainedModel, first: str, second: str, fraction: float, seed: int) -> Image.Image:
    """One place of that way, enlarged: 0 is the first class, 1 the second."""
    place = _between(model, first, second, torch.tensor([fraction], dtype=torch.float32), seed)
    return enlarged(place.decoded(model)[0])


def _between(model: PretrainedModel, first: str, second: str, fractions: Tensor, seed: int) -> Base:
    """The same place in both classes' Gaussians, joined by a straight line."""
    start, end = base_of_sample(model, first, seed), base_of_sample(model, second, seed)
    zs = torch.lerp(start.zs, end.zs, fractions[:, None])
    return Base(zs, start.zu.expand(len(fractions), -1), "prior")


# Single dimensions of zu


def expressive_dimensions(model: PretrainedModel) -> list[int]:
    """The dimensions of zu that change pictures most, the first of them first."""
    zu_dim = model.code_dims[1]
    num_codes = max(1, min(8, _NUM_DECODED // (2 * zu_dim)))
    ranked = model.expressiveness(num_codes).argsort(descending=True, stable=True)
    return [int(dim) for dim in ranked[:NUM_DIMENSIONS]]


def base_of_sample(model: PretrainedModel, class_name: str, seed: int) -> Base:
    """Codes of a typical sample of a class; those of two classes with one seed share their zu."""
    method = model.published.method
    assert isinstance(method, Generative)
    labels = torch.tensor(class_ids(class_name, model.classes), device=model.device)
    noise = Noise(seed, torch.zeros_like(labels))
    with torch.no_grad():
        codes = TYPICAL.tempered(method.prior_codes)(labels, noise, noise).cpu()
    zs_dim, _ = model.code_dims
    return Base(codes[:, :zs_dim], codes[:, zs_dim:], "prior")


def base_of_image(model: PretrainedModel, image: Image.Image, class_name: str | None) -> Base:
    """Codes of a picture; class_name: only for methods that encode with the label."""
    zs, zu = model.encode(image, class_name)
    return Base(zs, zu.mean, "images")


def slider_values(base: Base, dimensions: Sequence[int]) -> list[float]:
    """Where the sliders of ``dimensions`` stand for the base itself."""
    return [round(float(base.zu[0, dim].clamp(-EXTENT, EXTENT)), 2) for dim in dimensions]


def varied(
    model: PretrainedModel, base: Base, dimensions: Sequence[int], values: Sequence[float]
) -> Image.Image:
    """The base with the values of some dimensions of zu replaced, enlarged."""
    zu = base.zu.clone()
    zu[0, list(dimensions)] = torch.tensor(values, dtype=zu.dtype)
    return enlarged(base._replace(zu=zu).decoded(model)[0])


def strip_of(model: PretrainedModel, base: Base, dimension: int) -> Image.Image:
    """What a dimension of zu does: the base with it at ``NUM_STEPS`` values from -EXTENT to EXTENT."""
    values = torch.linspace(-EXTENT, EXTENT, NUM_STEPS).tolist()
    codes = varied_codes(base.zu, base.zu.shape[1], dimension, values)
    return tiled([base._replace(zs=base.zs.expand(NUM_STEPS, -1), zu=codes).decoded(model)])


# Pictures from pictures


def crossed(model: PretrainedModel, first: Image.Image, second: Image.Image, labels: Labels) -> Image.Image:
    """Two pictures give rows their zs and columns their zu; the diagonal gives them back."""
    both, given = [first, second], [label for label in labels if label is not None] or None
    zs, zu = model.encode(both, given)
    images = model.decode(zs.repeat_interleave(2, dim=0), zu.mean.repeat(2, 1), code_kind="images")
    heads = to_network(read_images(both, model.shape)[0])
    return draw_grid(
        images.unflatten(0, (2, 2)),
        row_images=heads,
        column_images=heads,
        min_tile=_LARGE_TILE,
    )


def swapped_photographs(
    model: PretrainedModel, pair: tuple[Given, Given], labels: Labels
) -> list[Image.Image]:
    """Those of two pictures that were found in photographs, there, each with the zs of the other.

    Raises RequestError where neither was.
    """
    own = [given.image for given in pair]
    named = [label for label in labels if label is not None] or None
    made = model.swap(own[::-1], own, named and named[::-1], named)
    found = [(given.face, image) for given, image in zip(pair, made, strict=True) if given.face]
    if not found:
        raise RequestError(f"Neither of the pictures was cut out of a photograph. {_GIVE_PHOTOGRAPH}")
    return [face.paste(image) for face, image in found]


def inpainted_photograph(
    model: PretrainedModel, given: Given, mask: Hole, label: str | None, refine_steps: int
) -> Image.Image:
    """The photograph that a picture was found in, the hole in it filled. Raises as ``inpainted`` does.

    And RequestError where it was found in none.
    """
    if given.face is None:
        raise RequestError(f"The picture was not cut out of a photograph. {_GIVE_PHOTOGRAPH}")
    painted = _painted(model, given.image, mask, label, refine_steps)
    return given.face.paste(painted, model.holes(mask)[0, 0].numpy())


def hole_of(layers: Sequence[npt.NDArray[Any]], height: int, width: int) -> npt.NDArray[np.bool_]:
    """Where something was painted on the editor's layers (RGBA, of any size): bool [height, width].

    A pixel of the model belongs to the hole if half of it was painted.
    """
    hole = np.zeros((height, width), bool)
    for layer in layers:
        alpha = Image.fromarray(layer[..., 3]).resize((width, height), Image.Resampling.BOX)
        hole |= np.asarray(alpha) > 127
    return hole


def inpainted(
    model: PretrainedModel, image: Image.Image, mask: Hole, label: str | None, refine_steps: int
) -> Image.Image:
    """The picture, its hole filled by the model, enlarged. mask: as for ``PretrainedModel.inpaint``."""
    return enlarged(_painted(model, image, mask, label, refine_steps))


def _painted(
    model: PretrainedModel, image: Image.Image, mask: Hole, label: str | None, refine_steps: int
) -> Image.Image:
    if not isinstance(mask, str) and not mask.any():
        raise RequestError(
            "Nothing is painted. Paint a hole with the brush, or choose one of the named holes."
        )
    painted = model.inpaint(image, mask, label, refine_steps=refine_steps)
    assert isinstance(painted, Image.Image)
    return painted
