"""Opening a large split as training does: seconds to the first batch, and peak memory of a process."""

from __future__ import annotations

import argparse
import errno
import hashlib
import io
import math
import multiprocessing
import os
import re
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import webdataset
from PIL import Image

from dist_dsvae.building.indexing import index
from dist_dsvae.commands.benchmarks.timing import Result
from dist_dsvae.config import DataConfig
from dist_dsvae.data.mixing import measure_mixing
from dist_dsvae.data.open_split import open_split
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.shards.table import ShardTable
from dist_dsvae.data.stream import Slice, stream

_SIDE = 8
_SWEEPS = {
    "shards": ((1_000, 100, 530), (10_000, 100, 530), (100_000, 100, 530)),
    "samples": ((1_000, 10, 530), (1_000, 100, 530), (1_000, 1_000, 530)),
    "classes": ((1_000, 100, 530), (1_000, 100, 10_000), (1_000, 100, 200_000)),
}


def run(args: argparse.Namespace) -> Result:
    if args.shards is None and args.classes is None:
        return _sweep(args.workers)
    shards, classes = args.shards or 1_000, args.classes or 530
    return {
        "benchmark": "scale-data",
        "shards": shards,
        "samples": shards * args.samples_per_shard,
        "classes": classes,
        **measure(shards, args.samples_per_shard, classes, args.workers),
    }


def _sweep(workers: int) -> Result:
    result: Result = {"benchmark": "scale-data"}
    growth = {}
    for what, sizes in _SWEEPS.items():
        rows = [
            (
                {"shards": n, "samples": n * per_shard, "classes": classes},
                measure(n, per_shard, classes, workers),
            )
            for n, per_shard, classes in sizes
        ]
        result[f"by {what}"] = {f"{size[what]:,}": figures for size, figures in rows}
        (first, before), (last, after) = rows[0], rows[-1]
        growth[what] = {
            name: round(math.log(after[name] / before[name]) / math.log(last[what] / first[what]), 2)
            for name in after
        }
    return {**result, "growth": growth}


def measure(shards: int, samples_per_shard: int, classes: int, workers: int) -> dict[str, float]:
    """``seconds_to_first_batch``, and ``peak_mib`` of the largest process, of such a split.

    The peak is what opening adds to ``libraries_mib``, which torch and the others take in any case.
    """
    with tempfile.TemporaryDirectory() as folder:
        make_split(Path(folder), shards, samples_per_shard, classes)
        # a process of its own, whose memory is that of the opening alone
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(open_as_training, folder, workers).result()


def make_split(directory: Path, shards: int, samples_per_shard: int, classes: int) -> None:
    """Write the split: ``shards`` links to one tar of ``samples_per_shard`` tiny pictures, and its index."""
    pattern, tar, table = directory / "pattern", "000000.tar", "000000.index.npy"
    pattern.mkdir()
    stream = io.BytesIO()
    Image.new("L", (_SIDE, _SIDE), 128).save(stream, "PNG")
    with webdataset.TarWriter(str(pattern / tar)) as writer:
        for i in range(samples_per_shard):
            writer.write({"__key__": f"{i:06d}", "png": stream.getvalue(), "cls": i % classes})
    names = [f"{label:07d}" for label in range(classes)]
    (made,) = index(pattern, command="benchmark", names=names, max_empty_classes=classes)
    originals = [pattern / tar, pattern / table]
    known = []
    for number in range(shards):
        files = [f"{number:07d}.tar", f"{number:07d}.index.npy"]
        for place, file in enumerate(files):
            originals[place] = _link(originals[place], directory / file)
        known.append(replace(made.shards[0], file=files[0], index_file=files[1]))
    described = f"{shards} shards of {samples_per_shard} samples of {classes} classes"
    Manifest(
        directory=directory,
        classes=tuple(names),
        shape=made.shape,
        encoding=made.encoding,
        shards=ShardTable.of(known),
        samples_per_class=tuple(shards * count for count in made.samples_per_class),
        fingerprint=hashlib.sha256(described.encode()).hexdigest(),
        command="benchmark",
        source="index",
    ).save()
    shutil.rmtree(pattern)


def _link(original: Path, path: Path) -> Path:
    """Make ``path`` a link; what to link to from then on, for a file has 65,000 names at most on ext4."""
    try:
        os.link(original, path)
    except OSError as error:
        if error.errno != errno.EMLINK:
            raise
        shutil.copyfile(original, path)
        return path
    return original


def open_as_training(directory: str, workers: int) -> dict[str, float]:
    """Open the split and read the first batch of 96; this process and its readers are looked at."""
    multiprocessing.set_start_method(None, force=True)  # of training; a spawned process would spawn
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts from here
    libraries = _mib(os.getpid(), "VmRSS")
    begin = time.perf_counter()
    config = DataConfig(train=directory, num_workers=workers)
    part = Slice(global_batch_size=96, rank=0, world_size=1)
    split = open_split(directory, config)
    measure_mixing(split, part.global_batch_size, None)
    batches = stream(split, config, 0, part)
    next(batches)
    seconds = time.perf_counter() - begin
    own = psutil.Process()
    peak = max(_mib(process.pid, "VmHWM") for process in (own, *own.children()))
    return {
        "seconds_to_first_batch": round(seconds, 2),
        "peak_mib": max(peak - libraries, 1),
        "libraries_mib": libraries,
    }


def _mib(pid: int, what: str) -> int:
    found = re.search(rf"{what}:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    assert found is not None, "Linux says so of every process"
    return int(found.group(1)) // 1024
