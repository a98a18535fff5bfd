"""Decoding from shards on one core: our stream, the usual WebDataset pipeline, the bare decoder."""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
import webdataset
from PIL import Image

from dist_dsvae.building.indexing import index
from dist_dsvae.commands.benchmarks.timing import Result, in_turn
from dist_dsvae.config import DataConfig
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.stream import Slice, stream

_BATCH_SIZE = 96


def write_jpeg_shards(directory: Path, count: int, side: int = 64) -> list[bytes]:
    """RGB JPEGs as `shards/build.py folder` writes them (quality 95, 4:4:4, 3 kB as faces have)."""
    rng = np.random.default_rng(0)
    encoded = []
    for half in range(2):
        with webdataset.TarWriter(str(directory / f"{half:06d}.tar")) as writer:
            for i in range(count // 2):
                coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
                fine = rng.integers(-2, 3, (side, side, 3))
                pixels = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)) + fine
                out = io.BytesIO()
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
                    out, "JPEG", quality=95, subsampling=0
                )
                encoded.append(out.getvalue())
                writer.write({"__key__": f"{half}{i:06d}", "jpg": out.getvalue(), "cls": i % 10})
    return encoded


def run(args: argparse.Namespace) -> Result:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        encoded = write_jpeg_shards(directory, args.images)
        index(directory, command="benchmark")
        manifest = Manifest.load(directory)
        num_batches = args.images // _BATCH_SIZE

        def rate(batches: Iterator[Any]) -> float:
            begin = time.perf_counter()
            for _ in range(num_batches):
                next(batches)
            elapsed = time.perf_counter() - begin
            return float(num_batches * _BATCH_SIZE / elapsed)

        def usual() -> float:
            urls = [str(path) for path in sorted(directory.glob("*.tar"))]
            pipeline = webdataset.WebDataset(urls, shardshuffle=False)
            return rate(iter(pipeline.decode("pil").to_tuple("jpg", "cls").batched(_BATCH_SIZE)))

        part = Slice(global_batch_size=_BATCH_SIZE, rank=0, world_size=1)
        endless = stream(manifest, DataConfig(train="", num_workers=0), 0, part)

        def libjpeg_turbo() -> float:
            begin = time.perf_counter()
            for data in encoded:
                simplejpeg.decode_jpeg(data)
            return len(encoded) / (time.perf_counter() - begin)

        sides = {"usual pipeline": usual, "ours": lambda: rate(endless), "raw libjpeg-turbo": libjpeg_turbo}
        rates = in_turn(sides, args.rounds)
    return {
        "benchmark": "data",
        "images_per_second": {name: round(value) for name, value in rates.items()},
        "mean_bytes_per_image": round(statistics.mean(map(len, encoded))),
        "share_of_raw_decoder": round(rates["ours"] / rates["raw libjpeg-turbo"], 3),
        "ratio": round(rates["ours"] / rates["usual pipeline"], 2),
    }
