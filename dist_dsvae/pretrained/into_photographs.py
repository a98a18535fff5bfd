"""What a model made of faces, back in the photographs that they were found in."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from torch import Tensor

from dist_dsvae.pretrained.figures import Shown
from dist_dsvae.pretrained.image_kinds import to_network
from dist_dsvae.pretrained.model import PretrainedModel
from dist_dsvae.pretrained.photographs import AlignedFace
from dist_dsvae.pretrained.requests import Mask, RequestError
from dist_dsvae.sampling.grids import to_pil
from dist_dsvae.sampling.image_file import check_replaceable


def swapped_photographs(model: PretrainedModel, shown: Shown) -> list[Image.Image]:
    """Each photograph with the person of the next one (of the last: the first one's); of two, swapped.

    Its own zu stays. Raises RequestError for fewer than two, and as ``aligned_faces`` does.
    """
    faces = aligned_faces(shown)
    if len(faces) < 2:
        raise RequestError("Persons are swapped between two photographs or more; give another with --images.")
    labels = shown.labels
    others = None if labels is None else labels[1:] + labels[:1]
    swapped = model.swap(shown.images.roll(-1, 0), shown.images, others, labels)
    return [face.paste(_as_rgb(image)) for face, image in zip(faces, swapped, strict=True)]


def inpainted_photographs(
    model: PretrainedModel, shown: Shown, mask: Mask, *, refine_steps: int, num_starts: int, blend: bool
) -> list[Image.Image]:
    """Each photograph with the hole in its face painted; all else is the photograph's.

    Raises as ``PretrainedModel.inpaint`` and ``aligned_faces`` do.
    """
    faces, labels = aligned_faces(shown), shown.told_labels(model)
    painted = model.inpaint(
        shown.images, mask, labels, refine_steps=refine_steps, num_starts=num_starts, blend=blend
    )
    holes = model.holes(mask, len(faces))[:, 0].numpy()
    each = zip(faces, painted, holes, strict=True)
    return [face.paste(_as_rgb(image), hole) for face, image, hole in each]


def aligned_faces(shown: Shown) -> list[AlignedFace]:
    """The faces of all of the pictures. Raises RequestError if one was taken as it is, or for a split's."""
    faces = [face for face in shown.faces if face is not None]
    if not shown.faces or len(faces) < len(shown.faces):
        raise RequestError(
            "--paste puts faces back into photographs that they were found in: give some with --images, to a "
            "model that was trained on aligned faces and says how. Pictures of the model's own size are "
            "taken as faces that are cut already; --align yes looks for faces in them, too."
        )
    return faces


def numbered(out: Path, count: int) -> list[Path]:
    """F-1.png, F-2.png, ... for ``out`` F.png. Raises ForeignImageError where one may not be written."""
    paths = [out.with_name(f"{out.stem}-{number}.png") for number in range(1, count + 1)]
    for path in paths:
        check_replaceable(path)
    return paths


def _as_rgb(image: Tensor) -> Image.Image:
    """uint8 [C, H, W] -> a picture of mode "RGB"."""
    return to_pil(to_network(image))
