"""What is looked at: a published model, or a run with the model of its newest checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from dist_dsvae.methods.abilities import Generative
from dist_dsvae.pretrained.model import PretrainedModel
from dist_dsvae.pretrained.requests import RequestError
from dist_dsvae.runs.checkpoint import complete_checkpoints
from dist_dsvae.runs.open_model import open_model
from dist_dsvae.runs.run import Run


class Subject(NamedTuple):
    """model: to draw from, or None where there is none yet. run: to watch. note: a sentence on both."""

    name: str
    model: PretrainedModel | None
    run: Path | None
    note: str


def open_source(model: str | None, run: Path | None) -> Subject:
    """``model``: as for ``PretrainedModel.from_pretrained``; ``run``: a run directory. Give one of them.

    A run without a checkpoint, and a classifier's, can be watched alone.
    Raises RequestError for a published classifier, PublishedModelError and CheckpointError for what is
    neither.
    """
    if run is not None:
        return _open_run(run)
    assert model is not None
    opened = open_model(None, model)
    if not isinstance(opened.published.method, Generative):
        raise RequestError(
            f"{model} is a {opened.published.config.name}, which draws nothing. Give a model of a "
            "dsvae, cvae, cgan or cvae_gan."
        )
    return Subject(str(opened.published.about.get("run", model)), opened, None, _described(opened))


def _open_run(run: Path) -> Subject:
    config = Run.open(run).config
    name = run.resolve().name
    if not complete_checkpoints(run / "checkpoints"):
        note = "There is no checkpoint yet. Start this page again after the first, to draw from the model."
        return Subject(name, None, run, note)
    model = open_model(run, None)
    if not isinstance(model.published.method, Generative):
        return Subject(name, None, run, f"A {config.method.name}, which draws nothing.")
    checkpoint = model.published.about["checkpoint"]
    note = f"{_described(model)} Drawn from {checkpoint}; start this page again for a newer one."
    return Subject(name, model, run, note)


def _described(model: PretrainedModel) -> str:
    shape, number = model.shape, len(model.classes)
    what = f"{shape.height}x{shape.width} pictures" if shape.is_image else "points"
    return f"A {model.published.config.name} of {what}, {number} classes."
