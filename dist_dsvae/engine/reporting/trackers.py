"""Trackers: who is told of a run besides its own files, TensorBoard among them. On rank 0 alone.

    trackers.json   what each tracker called the run, and the last step of each of its curves

A resumed run goes on under the same name. The steps between its checkpoint and its end come again:
TensorBoard drops the old points; the others cannot, and are not told again of what they know.

A tracker that fails costs its points, never the training: one warning, and another attempt later.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dist_dsvae.config import ExperimentConfig, TrainConfig
from dist_dsvae.config.reading import to_tree
from dist_dsvae.config.training import TrackerName
from dist_dsvae.core import distributed
from dist_dsvae.core.files import write_atomically
from dist_dsvae.core.text import read_json
from dist_dsvae.engine.reporting.outputs import Tolerant
from dist_dsvae.engine.reporting.tracker_kinds import Setting, TrackedRun, Tracker, is_installed, start

logger = logging.getLogger(__name__)

TRACKERS_FILE = "trackers.json"
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 30.0, 600.0  # attempts at a network block everybody


class TrackerError(ValueError):
    """A tracker that cannot be had; the message says how to get it."""


def check_trackers(config: TrainConfig) -> None:
    """Raise TrackerError, on every rank, if rank 0 lacks the library of a tracker. Called by all ranks.

    TensorBoard is named by default, not always by a person: without it ``Trackers`` says so, and goes on.
    """
    named = [name for name in config.trackers if name != "tensorboard"]
    names = named if distributed.is_main() else []
    missing: list[str] = distributed.broadcast_object([name for name in names if not is_installed(name)])
    if missing:
        others = json.dumps([name for name in config.trackers if name not in missing])
        raise TrackerError(
            f"train.trackers names {' and '.join(missing)}, not installed here: "
            f"pip install \"dist_dsvae[trackers]\" has it. Or go without: --set train.trackers='{others}'."
        )


class Trackers:
    """Those that ``config.train.trackers`` names, told of the run in ``run_dir`` from ``samples_seen`` on."""

    def __init__(self, config: ExperimentConfig, run_dir: Path, samples_seen: int) -> None:
        record = _Record(run_dir / TRACKERS_FILE)
        settings = dict(_dotted(to_tree(config)))
        self._trackers = [
            _Attended(
                name,
                TrackedRun(run_dir, config.train.tracker_project, samples_seen, record.id_of(name), settings),
                record,
            )
            for name in _startable(config.train.trackers)
        ]

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add points to curves, at ``step``, in samples seen."""
        for tracker in self._trackers:
            tracker.log(values, step)

    def show(self, name: str, image: Path, step: int) -> None:
        """Add a picture to those of ``name``."""
        for tracker in self._trackers:
            tracker.show(name, image, step)

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.close()


def _startable(names: Iterable[TrackerName]) -> list[TrackerName]:
    """All but TensorBoard where it is not installed."""
    names = list(names)
    if "tensorboard" not in names or is_installed("tensorboard"):
        return names
    logger.warning(
        "tensorboard is not installed, so there are no curves for it (pip install tensorboard); "
        "metrics.jsonl has the numbers, and training goes on."
    )
    return [name for name in names if name != "tensorboard"]


def _dotted(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Setting]]:
    """The leaves of a configuration by their dotted keys; lists as JSON."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield prefix + key, json.dumps(value) if isinstance(value, list | tuple) else value


class _Record:
    """trackers.json: per tracker its id of the run, and the last step of each curve."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tolerant = Tolerant(str(path))
        self.content: dict[str, Any] = {}
        try:
            for name, known in dict(read_json(path)).items():
                logged = {curve: int(step) for curve, step in known["logged"].items()}
                self.content[name] = {"id": str(known["id"]), "logged": logged}
        except FileNotFoundError:
            pass
        except (OSError, AttributeError, LookupError, TypeError, ValueError) as error:
            self.content = {}
            logger.warning("%s cannot be read (%s); trackers begin new runs.", path, error)

    def id_of(self, name: str) -> str | None:
        found = self.content.get(name)
        return None if found is None else str(found["id"])

    def logged(self, name: str) -> dict[str, int]:
        """The last step by curve, live."""
        found: dict[str, int] = self.content[name]["logged"]
        return found

    def begin(self, name: str, id_: str) -> None:
        if self.id_of(name) != id_:
            self.content[name] = {"id": id_, "logged": {}}
            self.save()

    def set_back(self, name: str, step: int) -> None:
        """Points beyond ``step`` come again, of a new run all: the tracker has dropped them."""
        logged, step = self.logged(name), step or -1
        logged.update({curve: min(last, step) for curve, last in logged.items()})

    def save(self) -> None:
        text = json.dumps(self.content, indent=1) + "\n"
        self._tolerant(lambda: write_atomically(self._path, text.encode()))


class _Attended:
    """One tracker that may fail: started at once, or when it can be.

    TensorBoard's files are on the run's own disk, where a refusal is quick, and its writer outlives none.
    """

    def __init__(self, name: TrackerName, run: TrackedRun, record: _Record) -> None:
        self._name, self._run, self._record = name, run, record
        self._is_local = name == "tensorboard"
        # what a library raises of a network, a server or its own files has no common type
        errors = (OSError,) if self._is_local else (Exception,)
        self._tolerant = Tolerant(str(run.directory / name) if self._is_local else name, errors)
        self._tracker: Tracker | None = None
        self._pause, self._not_before = 0.0, 0.0
        self._attempt(lambda tracker: None)

    def log(self, values: Mapping[str, float], step: int) -> None:
        if (new := self._unknown(values, step)) and self._attempt(lambda tracker: tracker.log(new, step)):
            self._remember(new, step)
            self._run = self._run._replace(samples_seen=step)  # a new writer is to drop nothing older

    def show(self, name: str, image: Path, step: int) -> None:
        if self._unknown({name: 0.0}, step) and self._attempt(
            lambda tracker: tracker.show(name, image, step)
        ):
            self._remember([name], step)

    def close(self) -> None:
        if self._tracker is not None:
            self._tolerant(self._tracker.finish)
            if self._is_local:  # which is told the same again after an end alone: no tick waits for the disk
                self._record.save()

    def _unknown(self, values: Mapping[str, float], step: int) -> dict[str, float]:
        """Those that the tracker has not been told of."""
        logged = self._record.logged(self._name) if self._record.id_of(self._name) else {}
        return {name: value for name, value in values.items() if step > logged.get(name, -1)}

    def _remember(self, names: Iterable[str], step: int) -> None:
        self._record.logged(self._name).update(dict.fromkeys(names, step))
        if not self._is_local:
            self._record.save()

    def _attempt(self, tell: Callable[[Tracker], None]) -> bool:
        """Whether the tracker was told."""
        if time.monotonic() < self._not_before:
            return False

        def attempt() -> None:
            if self._tracker is None:
                self._tracker = start(self._name, self._run)
                self._record.begin(self._name, self._tracker.id)
                if self._is_local:
                    self._record.set_back(self._name, self._run.samples_seen)
                self._run = self._run._replace(id=self._tracker.id)
            tell(self._tracker)

        if self._tolerant(attempt):
            self._pause = 0.0
            return True
        if self._is_local:
            self._tracker = None
        else:
            self._pause = min(max(2 * self._pause, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
            self._not_before = time.monotonic() + self._pause
        return False
