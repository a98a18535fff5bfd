"""Statistics of batch norm do not depend on the number of ranks."""

from __future__ import annotations

from pathlib import Path

import torch

from dist_dsvae.data.manifest import Manifest
from dist_dsvae.engine.batch_norm import synchronise
from dist_dsvae.engine.statistics import measure
from dist_dsvae.sampling import statistics
from tests.distributed.test_collectives import on_ranks
from tests.unit.engine.making import write_pictures
from tests.unit.methods.making import SHAPES, make_method


def two_measure_what_one_does(rank: int, world_size: int, split: str) -> None:
    statistics.BATCH_SIZE = 16  # codes go through the decoder in three batches, pictures are read in one
    method = synchronise(make_method()).eval()
    manifest = Manifest.load(split)
    together = measure(method, manifest, skip_corrupt=False, num_codes=48)
    if rank == 1:  # nothing collective in it
        return
    alone = measure(make_method().eval(), manifest, skip_corrupt=False, num_codes=48, alone=True)
    assert together.keys() == alone.keys() == {"images", "prior"}
    for kind, expected in alone.items():
        for ours, theirs in zip(together[kind], expected, strict=True):
            torch.testing.assert_close(ours.mean, theirs.mean, rtol=1e-9, atol=1e-11)
            torch.testing.assert_close(ours.variance, theirs.variance, rtol=1e-9, atol=1e-11)


def test_two_ranks_measure_what_one_does(tmp_path: Path) -> None:
    split = write_pictures(tmp_path / "split", ("a", "b", "c", "d", "e"), 12, SHAPES["small32"])
    on_ranks(2, two_measure_what_one_does, str(split.directory))
