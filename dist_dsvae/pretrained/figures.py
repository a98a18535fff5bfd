"""The paper's figures of a trained model, as PNG files with a legend.

grid         3, 8, 9   a class per row, one zu per column
interpolated 4a, 4b    zs, or zu, along one random path; a class per row; ``film``: the same, moving
varied       5         single dimensions of zu, by default those that change pictures most
swapped      6         zs from real pictures at the left, zu from real ones at the top
inpainted    7         original, corrupted and painted, a hole per row
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from dist_dsvae.pretrained.image_kinds import to_network
from dist_dsvae.pretrained.model import PretrainedModel
from dist_dsvae.pretrained.photographs import AlignedFace
from dist_dsvae.pretrained.requests import Mask, RequestError, at_least_one
from dist_dsvae.sampling.blend import seam
from dist_dsvae.sampling.film import save_film
from dist_dsvae.sampling.grids import beside_each_other, draw_grid
from dist_dsvae.sampling.image_file import write_image
from dist_dsvae.sampling.inpaint import corrupted, hole_error
from dist_dsvae.sampling.interpolate import Path as NoisePath
from dist_dsvae.sampling.temperature import AT_ONE, Temperatures


class Shown(NamedTuple):
    """Real pictures for a figure: uint8 [N, C, H, W]; their classes, where known; where they are from.

    note: sentences on classes of which there is no picture, or on faces, or "". faces: those that were found
    in pictures from files; None for a picture that was taken as it is.
    """

    images: Tensor
    labels: list[int] | None
    source: str
    note: str = ""
    faces: Sequence[AlignedFace | None] = ()

    def told_labels(self, model: PretrainedModel) -> list[int] | None:
        """Those that ``inpaint`` is told: of files what was named; of a split what the model needs."""
        return self.labels if self.faces or model.needs_labels else None


def grid(
    model: PretrainedModel,
    out: Path,
    classes: list[int],
    num_columns: int,
    seed: int,
    temperatures: Temperatures = AT_ONE,
) -> None:
    """Figures 3, 8 and 9."""
    _check_images(model)
    zs, zu = temperatures
    images = model.sample(
        classes, num_columns, seed, shared_zu=True, temperature_zs=zs, temperature_zu=zu, kind="tensor"
    )
    tempered = "" if temperatures == AT_ONE else f"; temperatures of zs {zs:g}, zu {zu:g}"
    write_image(
        out,
        draw_grid(
            images.view(len(classes), num_columns, *images.shape[1:]),
            title=f"{_of(model)}: samples, a class per row, one zu per column (seed {seed}{tempered})",
            row_names=_names(model, classes),
        ),
    )


def interpolated(
    model: PretrainedModel,
    out: Path,
    classes: list[int],
    num_steps: int,
    moving: Literal["zs", "zu"],
    path: NoisePath,
    seed: int,
) -> None:
    """Figure 4a (``moving`` zs) and 4b (zu)."""
    _check_images(model)
    images = model.interpolate(classes, num_steps, moving=moving, path=path, generator=seed, kind="tensor")
    fixed = "one zu for all" if moving == "zs" else "one zs per row"
    write_image(
        out,
        draw_grid(
            images,
            title=f"{_of(model)}: {moving} moves along one {path} path of all rows, {fixed} (seed {seed})",
            row_names=_names(model, classes),
            column_names=[f"{fraction:.2f}" for fraction in torch.linspace(0, 1, num_steps).tolist()],
        ),
    )


def film(
    model: PretrainedModel,
    out: Path,
    classes: list[int],
    num_steps: int,
    moving: Literal["zs", "zu"],
    path: NoisePath,
    seed: int,
) -> None:
    """``interpolated`` as a film, there in ``num_steps`` frames and back; the classes beside each other."""
    _check_images(model)
    way = model.interpolate(
        classes, num_steps, moving=moving, path=path, generator=seed, eased=True, kind="tensor"
    )
    save_film(out, [beside_each_other(way[:, step]) for step in range(num_steps)])


def varied(
    model: PretrainedModel,
    out: Path,
    classes: list[int],
    dims: Sequence[int] | int,
    num_steps: int,
    extent: float,
    seed: int,
) -> list[tuple[int, float]]:
    """Figure 5. dims: dimensions of zu, or how many of those that change pictures most.

    Returns the dimensions that were drawn, with how much each changes pictures
    (``sampling.vary.expressiveness``).
    """
    _check_images(model)
    changes = model.expressiveness(generator=seed)
    if isinstance(dims, int):
        dims = changes.argsort(descending=True)[: at_least_one("the number of dimensions", dims)].tolist()
    rows = [model.vary(dim, classes, num_steps, extent=extent, generator=seed, kind="tensor") for dim in dims]
    drawn = [(dim, float(changes[dim])) for dim in dims]
    write_image(
        out,
        draw_grid(
            torch.cat(rows),
            title=f"{_of(model)}: single dimensions of zu, in deviations of the prior (seed {seed})",
            row_names=[f"zu {dim}\n{name}" for dim, _ in drawn for name in _names(model, classes)],
            column_names=[f"{value:+.1f}" for value in torch.linspace(-extent, extent, num_steps).tolist()],
        ),
    )
    return drawn


def swapped(model: PretrainedModel, out: Path, rows: Shown, columns: Shown) -> None:
    """Figure 6."""
    _check_images(model)
    images = model.swap_grid(rows.images, columns.images, rows.labels, columns.labels)
    write_image(
        out,
        draw_grid(
            to_network(images),
            title=f"{_of(model)}: zs from the left, zu from the top; both real, {rows.source}",
            row_names=_names(model, rows.labels) if rows.labels is not None else (),
            row_images=to_network(rows.images),
            column_images=to_network(columns.images),
        ),
    )


class HoleScores(NamedTuple):
    """Means over pictures: squared error in the hole, and absolute step across its border, in [-1, 1]."""

    error: float
    seam: float


def inpainted(
    model: PretrainedModel,
    out: Path,
    shown: Shown,
    masks: Mapping[str, Mask],
    *,
    refine_steps: int,
    num_starts: int,
    blend: bool,
) -> dict[str, list[HoleScores]]:
    """Figure 7: for every picture original, corrupted, painted and, with refine_steps, refined.

    A label of a split's picture is told only to models that need it. Returns for every mask the scores of the
    originals, of the painted and of the refined pictures; the legend shows the errors.
    """
    _check_images(model)
    truth, labels = to_network(shown.images), shown.told_labels(model)
    rows, names, scores = [], [], dict[str, list[HoleScores]]()
    for name, mask in masks.items():
        holes = model.holes(mask, len(truth))
        painted = [
            to_network(
                model.inpaint(
                    shown.images, mask, labels, refine_steps=steps, num_starts=num_starts, blend=blend
                )
            )
            for steps in ([0, refine_steps] if refine_steps else [0])
        ]
        scores[name] = [
            HoleScores(float(hole_error(images, truth, holes).mean()), float(seam(images, holes).mean()))
            for images in (truth, *painted)
        ]
        rows.append(torch.stack([truth, corrupted(truth, holes), *painted], dim=1).flatten(0, 1))
        names.append(f"{name}\nerror " + ", ".join(f"{score.error:.3f}" for score in scores[name][1:]))
    headings = ["original", "corrupted", "painted", "refined"][: 3 + bool(refine_steps)]
    refining = f"; refined in {refine_steps} steps" if refine_steps else ""
    write_image(
        out,
        draw_grid(
            torch.stack(rows),
            title=f"{_of(model)}: inpainting, {shown.source}; error: squared, mean over the hole{refining}",
            row_names=names,
            column_names=headings * len(truth),
            columns_per_group=len(headings),
        ),
    )
    return scores


def _of(model: PretrainedModel) -> str:
    return str(model.published.about.get("run", model.published.config.name))


def _names(model: PretrainedModel, classes: Sequence[int]) -> list[str]:
    return [model.classes[label] for label in classes]


def _check_images(model: PretrainedModel) -> None:
    if not model.shape.is_image:
        raise RequestError(
            "This model was trained on points, of which no pictures can be shown; the command points draws "
            "them: dsvae generate points --run RUN --out F.png"
        )
