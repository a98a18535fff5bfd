"""What is looked at: a published model, or a run with the model of its newest checkpoint."""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from dist_dsvae.explore import examples, renderings
from dist_dsvae.explore.examples import Example
from dist_dsvae.methods.abilities import Generative
from dist_dsvae.pretrained.model import PretrainedModel
from dist_dsvae.pretrained.requests import RequestError
from dist_dsvae.runs.checkpoint_folder import complete_checkpoints, step_of
from dist_dsvae.runs.marker import CheckpointError
from dist_dsvae.runs.open_model import open_model
from dist_dsvae.runs.run import Run


class ShownModel:
    """The model that pictures are drawn from: a published one, or that of a run's newest checkpoint.

    model: changes when ``look_for_newer`` finds a checkpoint; its classes, its shape and what it can do
    stay. run: directory, or None. source: where a published model lies, or None.
    """

    def __init__(self, model: PretrainedModel, run: Path | None = None, source: str | None = None) -> None:
        self.model, self.run, self.source = model, run, source
        self._unreadable, self._trouble = "", ""
        self._looking = threading.Lock()
        self._examples_of = lru_cache(maxsize=1)(lambda model: examples.examples(model, run, source))
        self._dimensions_of = lru_cache(maxsize=1)(renderings.expressive_dimensions)
        self._first_classes_of = lru_cache(maxsize=1)(examples.first_classes)

    @property
    def checkpoint(self) -> str:
        """Its name, or "" for a published model's."""
        return str(self.model.published.about["checkpoint"]) if self.run is not None else ""

    @property
    def note(self) -> str:
        """A sentence or two for the top of the page."""
        described = _described(self.model)
        if self.run is None:
            return described
        iteration = step_of(Path(self.checkpoint))
        return f"{described} Pictures are drawn from its iteration {iteration:,}. {self._trouble}".strip()

    @property
    def examples(self) -> list[Example]:
        """Pictures to try things with."""
        return self._examples_of(self.model)

    @property
    def dimensions(self) -> list[int]:
        """The dimensions of zu that have a slider, those that change pictures most first."""
        return self._dimensions_of(self.model)

    @property
    def first_classes(self) -> list[str]:
        """Names of the classes that the page opens with."""
        return [self.model.classes[label] for label in self._first_classes_of(self.model)]

    def look_for_newer(self) -> bool:
        """Take the run's newest checkpoint, if it is newer than the one in use: whether there was one.

        Where it cannot be read, the older stays and ``note`` says why. One caller looks at a time; to
        others, nothing is newer yet.
        """
        if self.run is None or not self._looking.acquire(blocking=False):
            return False
        try:
            found = complete_checkpoints(self.run / "checkpoints")
            if not found or step_of(found[-1]) <= step_of(Path(self.checkpoint)):
                return False
            newest = found[-1]
            if newest.name == self._unreadable:
                return False
            try:
                self.model, self._trouble = open_model(self.run, None, step_of(newest)), ""
            except (CheckpointError, OSError) as error:
                self._unreadable, self._trouble = newest.name, f"A newer one cannot be read: {error}"
        finally:
            self._looking.release()
        return True


class Subject(NamedTuple):
    """shown: to draw from, or None where there is none yet. run: to watch. note: a sentence on both."""

    name: str
    shown: ShownModel | None
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
    shown = ShownModel(opened, source=model)
    return Subject(str(opened.published.about.get("run", model)), shown, None, shown.note)


def _open_run(run: Path) -> Subject:
    config = Run.open(run).config
    name = run.resolve().name
    if not complete_checkpoints(run / "checkpoints"):
        note = "There is no checkpoint yet. Start this page again after the first, to draw from the model."
        return Subject(name, None, run, note)
    model = open_model(run, None)
    if not isinstance(model.published.method, Generative):
        return Subject(name, None, run, f"A {config.method.name}, which draws nothing.")
    shown = ShownModel(model, run)
    return Subject(name, shown, run, shown.note)


def _described(model: PretrainedModel) -> str:
    shape, number = model.shape, len(model.classes)
    what = f"{shape.height}x{shape.width} pictures" if shape.is_image else "points"
    return f"A {model.published.config.name} of {what}, {number} classes."
