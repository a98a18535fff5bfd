"""Statistics of batch norm do not depend on the number of ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dist_dsvae.config import CVAEConfig, DSVAEConfig, MethodConfig
from dist_dsvae.core import distributed
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.engine.iteration.batch_norm import synchronise
from dist_dsvae.models.norm_statistics import Moments
from dist_dsvae.runs import measure_statistics as engine_statistics
from dist_dsvae.runs.measure_statistics import Measured, measure
from dist_dsvae.sampling import statistics_codes as sampling_statistics
from tests.forking import on_ranks
from tests.unit.engine.making import write_images
from tests.unit.methods.making import SHAPES, make_any


def two_measure_what_one_does(
    rank: int, world_size: int, split: str, config: MethodConfig, read: int
) -> None:
    sampling_statistics.BATCH_SIZE = 16  # of 48 pictures and codes: three batches, two of them rank 0's
    engine_statistics.BATCH_SIZE = read
    method = synchronise(make_any(config)).eval()
    manifest = Manifest.load(split)
    together = measure(method, manifest, skip_corrupt=False, num_codes=48)
    digests = distributed.gather_objects([moments.mean.sum().item() for moments in every(together)])
    assert digests[0] == digests[1]
    if rank == 1:  # nothing collective in it
        return
    alone = measure(make_any(config).eval(), manifest, skip_corrupt=False, num_codes=48, alone=True)
    assert together.decoder.keys() == alone.decoder.keys() == {"images", "prior"}
    assert together.encoders.keys() == alone.encoders.keys() >= {"encoder_u"}
    for ours, theirs in zip(every(together), every(alone), strict=True):
        torch.testing.assert_close(ours.mean, theirs.mean, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(ours.variance, theirs.variance, rtol=1e-9, atol=1e-11)


def every(measured: Measured) -> list[Moments]:
    groups = [*measured.decoder.values(), *measured.encoders.values()]
    return [moments for statistics in groups for moments in statistics]


@pytest.mark.parametrize("read", [16, 128], ids=["all-read", "one-reads"])
@pytest.mark.parametrize("config", [DSVAEConfig(), CVAEConfig()], ids=lambda c: c.name)
def test_two_ranks_measure_what_one_does(tmp_path: Path, config: MethodConfig, read: int) -> None:
    split = write_images(tmp_path / "split", ("a", "b", "c", "d", "e"), 12, SHAPES["small32"])
    on_ranks(2, two_measure_what_one_does, str(split.directory), config, read)
