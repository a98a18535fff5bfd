"""The trackers that can be told of a run: accelerate's, with what accelerate leaves to its users.

    tensorboard  <run>/tensorboard; what is logged again after a resume takes the place of what was there
    wandb        WANDB_MODE, WANDB_API_KEY, ... are heeded; local files in <run>/wandb
    mlflow       where MLFLOW_TRACKING_URI says, else files in <run>/mlflow
    trackio      where TRACKIO_DIR says, else where trackio keeps all runs of a person

Their libraries are imported when they start, and raise what they like.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from accelerate.tracking import (
    GeneralTracker,
    MLflowTracker,
    TensorBoardTracker,
    TrackioTracker,
    WandBTracker,
)
from PIL import Image

from dist_dsvae.config.training import TrackerName

Values = Mapping[str, float]
Setting = str | int | float | bool | None


class TrackedRun(NamedTuple):
    """A run as its trackers know it.

    project: that it is part of. samples_seen: where it goes on. id: what this tracker called it when it
    began; None at first. settings: its configuration, by dotted keys.
    """

    directory: Path
    project: str
    samples_seen: int
    id: str | None
    settings: Mapping[str, Setting]


class Tracker(ABC):
    """One tracker of accelerate's, started.

    id: what carries the run on when it is resumed.
    """

    id: str
    _tracker: GeneralTracker

    def log(self, values: Values, step: int) -> None:
        """Add a point to each curve."""
        self._tracker.log(dict(values), step=step)

    @abstractmethod
    def show(self, name: str, image: Path, step: int) -> None:
        """Add a picture (any that Pillow reads) to those of ``name``."""

    def finish(self) -> None:
        """Hand over what is still on its way."""
        self._tracker.finish()


def is_installed(name: TrackerName) -> bool:
    """Whether a tracker's library is there; a folder of its name, such as one that it writes, is not it."""
    found = importlib.util.find_spec(name)
    return found is not None and found.origin is not None


def start(name: TrackerName, run: TrackedRun) -> Tracker:
    """The tracker, told of the run and its settings."""
    match name:
        case "tensorboard":
            return _TensorBoard(run)
        case "wandb":
            return _Wandb(run)
        case "mlflow":
            return _MLflow(run)
        case "trackio":
            return _Trackio(run)


class _TensorBoard(Tracker):
    id = "tensorboard"  # the run directory is enough

    def __init__(self, run: TrackedRun) -> None:
        _leave_to_the_board()
        self._tracker = TensorBoardTracker(
            "tensorboard", run.directory, purge_step=run.samples_seen + 1 if run.samples_seen else 0
        )
        self._tracker.start()
        if not run.samples_seen:  # accelerate's way would make a second run, in a folder of its own
            lines = "\n".join(f"    {key} = {json.dumps(value)}" for key, value in run.settings.items())
            self._tracker.log({"config": lines}, step=0)

    def show(self, name: str, image: Path, step: int) -> None:
        self._tracker.log_images({name: _pixels(image)[None]}, step=step, dataformats="NHWC")


class _Wandb(Tracker):
    def __init__(self, run: TrackedRun) -> None:
        import wandb

        os.environ.setdefault("WANDB_FINISH_TIMEOUT", "60")  # or a job without a network would never end
        self.id = run.id or uuid.uuid4().hex[:12]
        self._tracker = WandBTracker(
            os.environ.get("WANDB_PROJECT", run.project),
            id=self.id,
            name=run.directory.name,
            dir=str(run.directory),
            resume="allow",
            settings=wandb.Settings(console="off"),  # the terminal is the progress bar's
        )
        self._tracker.start()
        self._tracker.store_init_configuration(dict(run.settings))
        self._image = wandb.Image
        # not its own steps: a run that goes on counts them from behind its last, and takes none before
        self._tracker.run.define_metric("*", step_metric="samples_seen")

    def log(self, values: Values, step: int) -> None:
        self._tracker.log({**values, "samples_seen": step})

    def show(self, name: str, image: Path, step: int) -> None:
        self._tracker.log({name: [self._image(_pixels(image))], "samples_seen": step})


class _MLflow(Tracker):
    def __init__(self, run: TrackedRun) -> None:
        # its own patience, minutes for each call, would be everybody's
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        import mlflow

        self._mlflow = mlflow
        self._has_own_folder = "MLFLOW_TRACKING_URI" not in os.environ
        if self._has_own_folder:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            mlflow.set_tracking_uri(run.directory.resolve() / "mlflow")
        self._tracker = MLflowTracker(run.project, run_id=run.id, run_name=run.directory.name)
        self._tracker.start()
        self.id = str(self._tracker.tracker.info.run_id)
        if run.id is None:  # parameters cannot change
            self._tracker.store_init_configuration(dict(run.settings))

    def show(self, name: str, image: Path, step: int) -> None:
        self._tracker.log_artifact(str(image), name)  # whose own name says the step

    def finish(self) -> None:
        super().finish()
        if self._has_own_folder:
            self._mlflow.set_tracking_uri(None)  # or the next run of this process would go there


class _Trackio(Tracker):
    def __init__(self, run: TrackedRun) -> None:
        import trackio

        self._image: Any = trackio.Image
        # it knows runs by name, and two directories may have one
        self.id = run.id or f"{run.directory.name}-{uuid.uuid4().hex[:8]}"
        self._tracker = TrackioTracker(run.project, name=self.id, resume="allow", embed=False)
        self._tracker.start()
        self._tracker.store_init_configuration(dict(run.settings))

    def show(self, name: str, image: Path, step: int) -> None:
        self._tracker.log({name: self._image(_pixels(image))}, step=step)


def _pixels(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 [H, W, 3]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@functools.cache
def _leave_to_the_board() -> None:
    """Print no traceback where a thread of TensorBoard's dies of a failing disk: its next use tells."""
    otherwise = threading.excepthook

    def hook(what: threading.ExceptHookArgs) -> None:
        of_tensorboard = type(what.thread).__module__.startswith("tensorboard.")
        if not (of_tensorboard and isinstance(what.exc_value, OSError)):
            otherwise(what)

    threading.excepthook = hook
