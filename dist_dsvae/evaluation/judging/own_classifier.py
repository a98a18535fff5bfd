"""A classifier trained here, as a judge: a published model's directory (`dsvae export` writes it)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from dist_dsvae.core.files import sha256_of
from dist_dsvae.core.shipped import at_hand
from dist_dsvae.core.types import ImageShape
from dist_dsvae.evaluation.judging.judge import Judge, load_judge
from dist_dsvae.evaluation.judging.weight_files import JudgeError
from dist_dsvae.methods.classifier import Classifier
from dist_dsvae.methods.published import CONFIG_FILE, WEIGHTS_FILE, PublishedModelError, load_published


class OwnScores(nn.Module):
    """RGB images [N, 3, H, W] in [-1, 1] -> logits and features of a ``Classifier``."""

    def __init__(self, classifier: Classifier, shape: ImageShape) -> None:
        super().__init__()
        self.classifier = classifier
        self.shape = shape

    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        if rgb.shape[2:] != (self.shape.height, self.shape.width):
            raise JudgeError(
                f"the classifier was trained on {self.shape.height}x{self.shape.width} images, but these "
                f"have {rgb.shape[2]}x{rgb.shape[3]} pixels. Give a classifier of this data set."
            )
        images = rgb if self.shape.channels == 3 else rgb.mean(dim=1, keepdim=True)
        logits, features = self.classifier.logits_and_features(images)
        return logits.float(), features.float()


def judge_file(place: str) -> tuple[str, Path]:
    """The kind, "" where none is named, and the path of what PATH or KIND=PATH means; PATH may hold a "="."""
    kind, separator, named = place.partition("=")
    if not separator or Path(place).exists():
        kind, named = "", place
    return kind, at_hand(named)


def open_judge(place: str, device: torch.device) -> tuple[Judge, tuple[str, ...] | None]:
    """The judge at ``place`` and the names of its classes, None where they are not a data set's of ours.

    place: a published classifier's directory, or a file of weights as PATH or KIND=PATH.
    Raises JudgeError, or PublishedModelError, with what is wrong.
    """
    kind, path = judge_file(place)
    if not path.suffix and not path.exists():
        raise JudgeError(
            f"There is no classifier {path}. Train one of this data set and export it:\n"
            "    dsvae train classifier/DATA\n"
            "    dsvae export --run runs/classifier-DATA --out runs/classifier-DATA/model\n"
            "Or give another with --classifier: a published one, or a file of weights."
        )
    if not path.is_dir():
        return load_judge(path, device=device, kind=kind or None), None
    if not (path / CONFIG_FILE).is_file() or (path / "dataset.json").is_file():
        raise JudgeError(
            f"{path} is not a published classifier. From the run of a classifier one is made by\n"
            f"    dsvae export --run RUN --out {path / 'model'}"
        )
    published = load_published(path)
    method, classes = published.method, published.classes
    if not isinstance(method, Classifier):
        raise PublishedModelError(
            f"{path} is a published {type(method).__name__}, not a classifier. Train one with "
            "configs/classifier/<data>.json and export it."
        )
    network = OwnScores(method, published.shape).to(device).eval().requires_grad_(False)
    head = method.network.get_submodule("head")
    assert isinstance(head, nn.Linear)
    name = f"own:{path.resolve().parent.name if path.name == 'model' else path.name}"
    return Judge(name, sha256_of(path / WEIGHTS_FILE), len(classes), head.in_features, network), classes
