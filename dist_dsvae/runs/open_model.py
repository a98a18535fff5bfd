"""What the commands of launch/generate.py work on: a model from a run or an export, and real pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dist_dsvae.config import DataConfig
from dist_dsvae.core import shipped
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.noise import permutation
from dist_dsvae.data.open_split import open_split
from dist_dsvae.data.open_splits import open_splits
from dist_dsvae.data.pick import read_samples
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.pretrained.figures import Shown
from dist_dsvae.pretrained.image_kinds import read_image, read_images
from dist_dsvae.pretrained.model import PretrainedModel
from dist_dsvae.pretrained.photographs import AlignedFace
from dist_dsvae.pretrained.requests import RequestError, device_from
from dist_dsvae.runs.export import Weights, published_of_run
from dist_dsvae.runs.run import Run
from dist_dsvae.sampling.generate import spread


def open_model(
    run: Path | None, model: str | None, step: int | None = None, weights: Weights = "auto", **options: Any
) -> PretrainedModel:
    """The model of a run's checkpoint, a published one, or where neither is given the one in the box.

    options: as for ``PretrainedModel``.
    Raises CheckpointError, PublishedModelError; RequestError if both are given, or the box holds none.
    """
    if run is not None and model is not None:
        raise RequestError("Give either --run RUN or --model DIRECTORY, not both.")
    if run is not None:
        device = device_from(options.get("device", "cpu"))
        return PretrainedModel(published_of_run(run, step, weights, device), **options)
    if step is not None or weights != "auto":
        raise RequestError("--step and --weights choose among a run's checkpoints; --model has one only.")
    return PretrainedModel.from_pretrained(model or model_in_the_box(), **options)


def model_in_the_box() -> str:
    """Where the model is that comes with the project. Raises RequestError if there is none."""
    found = shipped.model_in_the_box()
    if found is None:
        raise RequestError(
            "No model is given, and none comes with this installation. Give --run RUN, a run directory "
            "(`dsvae train quickstart` makes runs/quickstart), or --model DIRECTORY, made by `dsvae export`."
        )
    return str(found)


def shown_files(
    model: PretrainedModel, paths: list[Path], labels: list[int] | None, faces: Sequence[int] = (0,)
) -> Shown:
    """Pictures of files, brought to the model's size; the face of a photograph, for a model of faces.

    labels: their classes, where known. faces: which face of each, as ``Photographs.find`` counts, one for all
    or one for each; 0: the largest.
    """
    if len(faces) not in (1, len(paths)):
        raise RequestError(
            f"--face gives {len(faces)} numbers for {len(paths)} pictures; give one, or one for each."
        )
    opened, found = list[Image.Image](), list[AlignedFace | None]()
    for path, number in zip(paths, faces if len(faces) == len(paths) else [*faces] * len(paths), strict=True):
        image = read_image(path)
        searched = model.photographs.searches(image)
        found.append(model.photographs.find(image, str(path), number or None) if searched else None)
        opened.append(image if found[-1] is None else found[-1].crop)
    images, _ = read_images(opened, model.shape, "--images")
    if labels is not None and len(labels) != len(paths):
        raise RequestError(
            f"--classes names {len(labels)} classes for {len(paths)} pictures; name one for each."
        )
    if model.needs_labels and labels is None:
        raise RequestError(
            f"This model's encoder is told the label: name a class for each of the {len(paths)} pictures "
            "with --classes."
        )
    notes = [f"{face.note} Another: --face N." for face in found if face is not None and face.note]
    return Shown(images, labels, "from files", "\n".join(notes), found)


def split_to_show(run: Path | None, data: str | None) -> Manifest:
    """The split given by ``data``, or the run's test split (its training split, if it has no other)."""
    if data is not None:
        return open_split(data, DataConfig(train=data))
    if run is None:
        raise RequestError(
            "A published model brings no pictures: give some with --images A.jpg B.png, or a split of "
            "shards with --data shards/NAME/test."
        )
    train, test, _ = open_splits(Run.open(run).config.data)
    return test or train


def shown_of_split(
    model: PretrainedModel,
    split: Manifest,
    wanted: list[int] | None,
    count: int,
    seed: int,
    *,
    after: Sequence[int] = (),
) -> Shown:
    """``count`` pictures of a split, one of each class in turn; which ones follows from ``seed``.

    wanted: classes; by default ``count`` spread over all. Those without a picture are left out and named in
    the result. after: the counts of earlier draws, whose pictures this one leaves to them where classes have
    enough.
    Raises DataError if none of the classes has a picture, for a split of another shape than the model's, or
    with other classes where they are needed.
    """
    if split.shape != model.shape:
        raise DataError(
            f"{split.location} holds samples of {tuple(split.shape)} (channels, height, width), the model is "
            f"for {tuple(model.shape)}. Build the shards with the model's --size and --channels."
        )
    same_classes = split.classes == model.classes
    if not same_classes and (model.needs_labels or wanted is not None):
        raise DataError(
            f"The classes of {split.location} are not the model's, so none of them can be chosen for it. "
            "Leave --classes out, or give another split with --data."
        )
    labels = np.concatenate([split.index(number)[:, 2] for number in range(len(split.shards))])
    counts, asked = split.samples_per_class, wanted or range(split.num_classes)
    empty = [label for label in asked if not counts[label]]
    present = [label for label in asked if counts[label]]
    if not present:
        raise DataError(
            f"{split.location} has no picture of {_named(split, empty)}. Choose other classes, or give "
            "another split with --data."
        )
    shown_labels, turns = _turns(present, count, is_spread=not wanted)
    taken = sum(1 + max(_turns(present, earlier, is_spread=not wanted)[1]) for earlier in after)
    places = []
    for label, turn in zip(shown_labels, turns, strict=True):
        own = np.flatnonzero(labels == label)
        order = permutation(len(own), seed, label)
        places.append(int(own[order[(taken + turn) % len(own)]]))
    images = read_samples(split, places)
    note = f"{split.location} has no picture of {_named(split, empty)}; left out." if empty else ""
    return Shown(images, shown_labels if same_classes else None, f"from {split.location}", note)


def _turns(classes: list[int], count: int, *, is_spread: bool) -> tuple[list[int], list[int]]:
    """The class of each of ``count`` pictures, one of each class in turn, and how many it had before.

    is_spread: where there are fewer pictures than classes, of classes spread over all, not of the first.
    """
    if is_spread:
        classes = [classes[place] for place in spread(len(classes), count)]
    labels = [classes[number % len(classes)] for number in range(count)]
    return labels, [labels[:number].count(label) for number, label in enumerate(labels)]


def _named(split: Manifest, labels: list[int]) -> str:
    names = ", ".join(repr(split.classes[label]) for label in labels[:5])
    return f"the {'classes' if len(labels) > 1 else 'class'} {names}" + (", ..." if len(labels) > 5 else "")
