"""Many samples of every class, by all processes: a folder per class, or shards to train on.

    numbers of the samples --units of 64, dealt out in turn--> each process: draw, encode, write
                                                           --> rank 0: pack into shards, if wanted

A unit holds the same samples whatever the number of processes and goes through the networks as a whole,
on one thread of a CPU, so every byte is the same for any number of processes. A sample is a function of
(seed, class, its number). What is written appears at once when all of it is there, or not at all.
"""

from __future__ import annotations

import io
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dist_dsvae.building.writer import Layout, Sample, write_split
from dist_dsvae.core import distributed
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.images import Codec
from dist_dsvae.core.staging import building
from dist_dsvae.pretrained.model import PretrainedModel
from dist_dsvae.pretrained.requests import at_least_one
from dist_dsvae.sampling.temperature import AT_ONE, Temperatures

UNIT = 64
_TEMPORARY = "samples"
_NAME_BYTES = 255  # that Linux, and most of its file systems, take


def write_many(
    model: PretrainedModel,
    out: Path,
    classes: list[int],
    per_class: int,
    seed: int,
    temperatures: Temperatures = AT_ONE,
    *,
    as_shards: bool = False,
    overwrite: bool = False,
    command: str = "",
) -> str:
    """Write ``per_class`` samples of each of ``classes``; returns a sentence. Called by all processes.

    A class that is named twice is written once.

    Folders: OUT/CLASS/000000.png (.npy for points). as_shards: OUT/train, which training and evaluation
    read; ``command`` goes into its manifest. overwrite: see ``staging.building``.
    ``out`` lies where all processes see it.
    Raises DataError, on all processes, if ``out`` is taken or cannot be written.
    """
    at_least_one("per_class", per_class)
    classes = list(dict.fromkeys(classes))
    with ExitStack() as stack:
        place: Path | None = None
        with _failing_together():
            if distributed.is_main():
                place = stack.enter_context(building(out, overwrite=overwrite))
        staging = distributed.broadcast_object(place)
        assert staging is not None
        folder = staging / _TEMPORARY if as_shards else staging
        with _failing_together():
            write_share(
                model,
                folder,
                classes,
                per_class,
                seed,
                temperatures,
                rank=distributed.rank(),
                world_size=distributed.world_size(),
            )
        with _failing_together():
            if as_shards and distributed.is_main():
                _pack(model, folder, staging / "train", classes, per_class, command)
                shutil.rmtree(folder)
    distributed.barrier()
    what = "as shards in train" if as_shards else "in a folder per class"
    return f"Wrote {len(classes) * per_class:,} samples of {len(classes)} classes to {out}, {what}."


@contextmanager
def _failing_together() -> Iterator[None]:
    """Raise on all processes what any of them met inside, so that none waits for the others for ever.

    None goes on before all are through.
    """
    error: Exception | None = None
    try:
        yield
    except (OSError, ValueError) as caught:
        error = caught
    messages = distributed.gather_objects(None if error is None else str(error))
    if error is not None:
        raise error
    failed = [f"Process {rank}: {text}" for rank, text in enumerate(messages) if text is not None]
    if failed:
        raise DataError(failed[0])


def write_share(
    model: PretrainedModel,
    folder: Path,
    classes: list[int],
    per_class: int,
    seed: int,
    temperatures: Temperatures,
    *,
    rank: int,
    world_size: int,
) -> None:
    """Write what one of ``world_size`` processes has of the files ``folder``/CLASS/NUMBER."""
    names = folder_names(model.classes)
    for label in classes:
        (folder / names[label]).mkdir(parents=True, exist_ok=True)
    extension, encode = _encoder(model)
    total = len(classes) * per_class
    for first in range(rank * UNIT, total, UNIT * world_size):
        numbers = torch.arange(first, min(first + UNIT, total))
        labels = torch.tensor(classes)[numbers // per_class]
        numbers = numbers % per_class
        samples = model.sample_numbers(labels, numbers, seed, temperatures)
        for label, number, sample in zip(labels.tolist(), numbers.tolist(), samples, strict=True):
            (folder / names[label] / f"{number:06d}.{extension}").write_bytes(encode(sample))


def _encoder(model: PretrainedModel) -> tuple[str, Callable[[Any], bytes]]:
    """Extension of the files, and what makes their bytes of a picture or a point [C] in float32."""
    if model.shape.is_image:
        codec = Codec()
        return codec.extension, codec.pack

    def point(array: Any) -> bytes:
        stream = io.BytesIO()
        np.save(stream, array)
        return stream.getvalue()

    return "npy", point


def folder_names(classes: tuple[str, ...]) -> list[str]:
    """A folder's name for each class: its own, without what a file system or a glob minds.

    Classes whose names would become one, or nothing, or are too long, get their number in front.
    """
    plain = [_plain(name) for name in classes]
    times = Counter(plain)
    kept = [bool(name) and times[name] == 1 and name == _cut(name) for name in plain]
    taken = {name for name, keeps in zip(plain, kept, strict=True) if keeps}
    found = []
    for label, (name, keeps) in enumerate(zip(plain, kept, strict=True)):
        if not keeps:
            prefixes = (f"{label}-" + (f"{turn}-" if turn else "") for turn in count())
            # another class may be called what this one is with its number in front
            name = next(tried for prefix in prefixes if (tried := _cut(prefix + name)) not in taken)
            taken.add(name)
        found.append(name)
    return found


def _plain(name: str) -> str:
    """Without what would lead elsewhere or hide the folder, in any order at the beginning."""
    return re.sub(r"^[\s.]+|\s+$", "", "".join("-" if c in "/\\\0" else c for c in name))


def _cut(name: str) -> str:
    """The whole letters of it that fit into a file's name."""
    content = name.encode(errors="surrogateescape")
    return name if len(content) <= _NAME_BYTES else content[:_NAME_BYTES].decode(errors="ignore").rstrip()


def _pack(
    model: PretrainedModel, folder: Path, directory: Path, classes: list[int], per_class: int, command: str
) -> None:
    """The files of ``folder`` as the shards of a split whose classes are all of the model's."""
    extension, _ = _encoder(model)
    names = folder_names(model.classes)
    files = [(label, f"{names[label]}/{n:06d}.{extension}") for label in classes for n in range(per_class)]
    write_split(
        directory,
        [Sample(str(folder / name), label, name) for label, name in files],
        lambda sample: (Path(sample.reference).read_bytes(), {}),
        Layout(shape=model.shape, extension=extension),
        classes=model.classes,
        command=command,
        source="generated",
    )
