"""Pictures that the page opens with: samples that the model is surest of, and pictures to try things with.

many samples --the model's own classifier--> those that it takes for their class with most certainty
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from dist_dsvae.core.errors import DataError
from dist_dsvae.core.shipped import EMBEDDED_TEST, at_hand, model_in_the_box
from dist_dsvae.methods.abilities import Classifying
from dist_dsvae.pretrained.image_kinds import Kind
from dist_dsvae.pretrained.model import PretrainedModel
from dist_dsvae.runs.marker import CheckpointError
from dist_dsvae.runs.open_model import shown_of_split, split_to_show
from dist_dsvae.runs.run import Run
from dist_dsvae.sampling.generate import spread
from dist_dsvae.sampling.temperature import AT_ONE, Temperatures

NUM_EXAMPLES = 8
NUM_CLASSES = 10
# Near the middle of a class, where most of the training pictures are; looks a little closer than they vary.
TYPICAL = Temperatures(0.5, 0.7)
_CANDIDATES = 4  # for every sample that is shown
_MAX_RANKED_CLASSES = 48
_SEED = 0


class Example(NamedTuple):
    """A picture of the model's size, and the name of its class where that is known."""

    image: Image.Image
    class_name: str | None


def best_known(
    model: PretrainedModel,
    classes: list[int],
    num_samples: int,
    seed: int,
    temperatures: Temperatures = AT_ONE,
    *,
    shared_zu: bool,
) -> Tensor:
    """Samples [R, num_samples, C, H, W] of R classes, in [-1, 1]: of four times as many those best known.

    How well known a sample is says the probability of its class, by the model's own classifier; a method
    without one shows what it draws. shared_zu: one zu per column, so that whole columns are chosen, by their
    mean log-probability. In the order in which they were drawn.
    """
    can_choose = isinstance(model.published.method, Classifying)
    count = num_samples * (_CANDIDATES if can_choose else 1)
    images = rows_of_samples(model, classes, count, seed, temperatures, shared_zu=shared_zu)
    if not can_choose:
        return images
    scores = certainty(model, images.flatten(0, 1), torch.tensor(classes).repeat_interleave(count)).reshape(
        -1, count
    )
    if shared_zu:
        scores = scores.mean(0, keepdim=True).expand_as(scores)
    chosen = scores.argsort(dim=1, descending=True, stable=True)[:, :num_samples].sort(dim=1).values
    return torch.stack([row[numbers] for row, numbers in zip(images, chosen, strict=True)])


def rows_of_samples(
    model: PretrainedModel,
    classes: list[int],
    num_samples: int,
    seed: int,
    temperatures: Temperatures,
    *,
    shared_zu: bool,
) -> Tensor:
    """Samples [R, num_samples, C, H, W] of R classes, in [-1, 1]. shared_zu: one zu per column."""
    known = temperatures.of_codes_of(model.published.method)
    drawn = model.sample(
        *(classes, num_samples, seed),
        shared_zu=shared_zu,
        temperature_zs=known.zs,
        temperature_zu=known.zu,
        kind="tensor",
    )
    images: Tensor = drawn.unflatten(0, (len(classes), num_samples))
    return images


def certainty(model: PretrainedModel, images: Tensor, labels: Tensor) -> Tensor:
    """log p(labels[i] | images[i]) [N], as far as float32 tells probabilities from 0."""
    probabilities = model.classify(images)
    tiny = torch.finfo(probabilities.dtype).tiny
    return probabilities[torch.arange(len(labels)), labels].clamp_min(tiny).log()


def first_classes(model: PretrainedModel) -> list[int]:
    """The classes that the page opens with, in their order: of many, those that are best known."""
    number = len(model.classes)
    if number <= NUM_CLASSES:
        return list(range(number))
    if not isinstance(model.published.method, Classifying):
        return spread(number, NUM_CLASSES)
    ranked = spread(number, min(number, _MAX_RANKED_CLASSES))
    samples = rows_of_samples(model, ranked, _CANDIDATES, _SEED, TYPICAL, shared_zu=False).flatten(0, 1)
    labels = torch.tensor(ranked).repeat_interleave(_CANDIDATES)
    scores = certainty(model, samples, labels).reshape(-1, _CANDIDATES).mean(1)
    return sorted(ranked[place] for place in scores.topk(NUM_CLASSES).indices.tolist())


def examples(model: PretrainedModel, run: Path | None, source: str | None) -> list[Example]:
    """Pictures to try things with, of ``NUM_EXAMPLES`` classes in turn.

    Those of the run's test split, or of the embedded one for the model in the box, where they lie on this
    machine; else samples. source: where the model was published, if it was.
    """
    found = _of_split(model, run, source)
    return found or _of_samples(model)


def _of_split(model: PretrainedModel, run: Path | None, source: str | None) -> list[Example]:
    """Nothing where the split is not here, or is not the model's."""
    try:
        if run is not None:
            data = Run.open(run).config.data
            place = data.test or data.train
        else:
            place = EMBEDDED_TEST if source is not None and source == str(model_in_the_box()) else ""
        if not place or not at_hand(place).is_dir():
            return []
        split = split_to_show(None, str(at_hand(place)))
        shown = shown_of_split(model, split, None, NUM_EXAMPLES, _SEED)
    except (DataError, CheckpointError, OSError):
        return []
    wrapped = Kind.named("pil", model.shape).wrap(shown.images)
    names = [model.classes[label] for label in shown.labels] if shown.labels else [None] * len(wrapped)
    return [Example(image, name) for image, name in zip(wrapped, names, strict=True)]


def _of_samples(model: PretrainedModel) -> list[Example]:
    classes = first_classes(model)[:NUM_EXAMPLES]
    images = best_known(model, classes, -(-NUM_EXAMPLES // len(classes)), _SEED, TYPICAL, shared_zu=False)
    in_turn = images.transpose(0, 1).flatten(0, 1)[:NUM_EXAMPLES]
    kind = Kind.named("pil", model.shape)
    wrapped = kind.wrap(kind.stored(in_turn))
    names = [model.classes[classes[place % len(classes)]] for place in range(len(wrapped))]
    return [Example(image, name) for image, name in zip(wrapped, names, strict=True)]
