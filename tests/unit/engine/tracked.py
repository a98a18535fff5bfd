"""What trackers were told, read back with their own libraries or from their own files."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

Points = list[tuple[int, float]]

_BLOCK, _HEADER, _FIRST = 32_768, 7, 7


class Told(NamedTuple):
    """curves: the points of each, in the order in which a reader shows them. runs: so many there are.

    settings: of the run. images: their steps, as the tracker has them.
    """

    curves: dict[str, Points]
    settings: dict[str, str]
    images: list[int]
    runs: int


def told(name: str, run_dir: Path, project: str) -> Told:
    """Of the tracker ``name``."""
    return {"tensorboard": _board, "wandb": _wandb, "mlflow": _mlflow, "trackio": _trackio}[name](
        run_dir, project
    )


def _board(run_dir: Path, project: str) -> Told:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    tags = events.Tags()
    curves = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags["scalars"]}
    config = events.Tensors("config/text_summary")[-1]
    lines = config.tensor_proto.string_val[0].decode().splitlines()
    pairs = [line.strip().partition(" = ") for line in lines]
    settings = {key: str(json.loads(value)) for key, _, value in pairs}
    images = [event.step for event in events.Images("samples")] if "samples" in tags["images"] else []
    folders = [path for path in (run_dir / "tensorboard").rglob("*") if path.is_dir()]
    return Told(curves, settings, images, 1 + len(folders))


def _wandb(run_dir: Path, project: str) -> Told:
    curves: dict[str, Points] = {}
    settings: dict[str, str] = {}
    ids, images = set(), []
    for path in sorted(run_dir.glob("wandb/offline-run-*/*.wandb")):
        for record in _finished(path):
            if record.WhichOneof("record_type") == "run":
                assert record.run.project == project
                ids.add(record.run.run_id)
            for update in record.config.update:
                settings[update.key or ".".join(update.nested_key)] = str(json.loads(update.value_json))
            values = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            step = int(values.pop("samples_seen", 0))
            for key, value in values.items():
                if key.startswith("samples/filenames"):
                    images.append(step)
                elif not key.startswith(("_", "samples/")):
                    curves.setdefault(key, []).append((step, float(value)))
    return Told(curves, settings, images, len(ids))


def _finished(path: Path) -> list[Any]:
    """All records, once the last one is there: wandb's own process writes them, and may be behind."""
    deadline = time.monotonic() + 60
    while True:
        records = list(_records(path))
        if records and records[-1].WhichOneof("record_type") == "exit":
            return records
        assert time.monotonic() < deadline, f"{path} has no end"
        time.sleep(0.1)


def _records(path: Path) -> Iterator[Any]:
    """Of a file in LevelDB's format of logs, which is what wandb writes offline."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, parts = path.read_bytes(), _FIRST, b""
    while place + _HEADER <= len(content):
        left = _BLOCK - place % _BLOCK
        if left < _HEADER:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        parts += content[place + _HEADER : place + _HEADER + length]
        place += _HEADER + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def _mlflow(run_dir: Path, project: str) -> Told:
    from mlflow import MlflowClient

    client = MlflowClient((run_dir / "mlflow").resolve().as_uri())
    experiment = client.get_experiment_by_name(project)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    run = runs[0]
    curves = {
        key: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, key)]
        for key in run.data.metrics
    }
    images = [
        int(Path(artifact.path).stem.rpartition("-")[2])
        for artifact in client.list_artifacts(run.info.run_id, "samples")
    ]
    return Told(curves, dict(run.data.params), images, len(runs))


def _trackio(run_dir: Path, project: str) -> Told:
    from trackio.sqlite_storage import SQLiteStorage

    (name,) = SQLiteStorage.get_runs(project)
    curves: dict[str, Points] = {}
    images = []
    for line in SQLiteStorage.get_logs(project, name):
        for key, value in line.items():
            if key == "samples":
                images.append(line["step"])
            elif key not in ("step", "timestamp"):
                curves.setdefault(key, []).append((line["step"], value))
    config = SQLiteStorage.get_run_config(project, name) or {}
    return Told(curves, {key: str(value) for key, value in config.items()}, images, 1)
