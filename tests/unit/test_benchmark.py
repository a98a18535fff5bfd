"""The benchmarks' own arithmetic, and that each command runs and prints what it promises."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from dist_dsvae.commands.benchmarks.scaling_model import Collective, Links, collective_seconds, step_seconds
from tests.forking import run_program

LINKS = Links(latency_seconds=1e-5, inside=4e11, between=5e10, gpus_per_node=8)


def test_all_reduce_in_closed_form() -> None:
    million = Collective(kind="all_reduce", num_bytes=1e6)
    assert collective_seconds(million, LINKS, 1) == 0
    assert collective_seconds(million, LINKS, 2) == pytest.approx(2e-5 + 1e6 / 4e11)
    # 2 nodes of 8: four hops there and back; a ring inside, an eighth of the bytes between
    expected = 8e-5 + 2 * 7 / 8 * 1e6 / 4e11 + 1e6 / 8 / 5e10
    assert collective_seconds(million, LINKS, 16) == pytest.approx(expected)


def test_all_gather_in_closed_form() -> None:
    gather = Collective(kind="all_gather", num_bytes=1e3, count=3)
    assert collective_seconds(gather, LINKS, 4) == pytest.approx(3 * (2e-5 + 3e3 / 4e11))
    assert collective_seconds(gather, LINKS, 16) == pytest.approx(3 * (4e-5 + 15e3 / 5e10))


def test_overlapped_collectives_count_beyond_the_backward_pass() -> None:
    large = Collective(kind="all_reduce", num_bytes=4e9, overlapped=True)
    alone = collective_seconds(large, LINKS, 8)
    assert step_seconds(1.0, alone, [large], LINKS, 8) == 1.0
    assert step_seconds(1.0, alone / 4, [large], LINKS, 8) == pytest.approx(1.0 + 0.75 * alone)


def run(*arguments: str) -> dict[str, Any]:
    done = run_program("launch/benchmark.py", *arguments, "--json", environment=os.environ)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_step(tmp_path: Path) -> None:
    image = tmp_path / "profile.png"
    small = ("--architecture", "small32", "--batch-size", "8", "--rounds", "1", "--mixed_precision", "no")
    shards = ("--shards", "shards/fashion-mnist-mini/train")
    result = run("step", *small, *shards, "--profile", str(image))
    assert set(result["seconds_per_iteration"]) == {"plain eager", "ours", "ours, stream", "ours, resident"}
    reached = result["gflop_per_second"]
    share = reached["ours"] / reached["matrix ceiling"]
    assert result["share_of_matrix_ceiling"] == pytest.approx(share, rel=0.05)
    parts = result["seconds_by_part_eager"]
    assert parts["stage 1"] + parts["joint update"] <= parts["whole"]
    assert sum(result["share_by_kind"].values()) == pytest.approx(1, abs=0.01)
    assert image.stat().st_size > 1000


# each is a kernel on a GPU; lower them with every operator that goes
CEILINGS = [("conv32", 10, "no", 665), ("conv32", 10, "bf16", 700), ("vgg64", 530, "bf16", 1182)]


@pytest.mark.parametrize(("architecture", "num_classes", "precision", "ceiling"), CEILINGS)
def test_operators_stay_below_their_ceiling(
    architecture: str, num_classes: int, precision: str, ceiling: int
) -> None:
    networks = ("--architecture", architecture, "--classes", str(num_classes), "--batch-size", "2")
    result = run("operators", *networks, "--mixed_precision", precision)
    assert result["operators"] == sum(result["kinds"].values())
    # what the networks themselves cannot do without: a convolution forward and backward, a norm, ...
    assert 500 < result["operators"] <= ceiling, result["kinds"]


def test_roofline_of_a_config() -> None:
    result = run("roofline", "--device", "h200", "--config", "configs/quickstart.json", "--batch-size", "64")
    assert result["kind"].startswith("a model, not a measurement")
    assert (result["architecture"], result["batch_size"], result["batches"]) == ("small", 64, 4)
    seconds = result["predicted_seconds_per_iteration"]
    assert sum(result["predicted_seconds_by_limit"].values()) == pytest.approx(seconds, rel=0.01)
    assert result["predicted_images_per_second"] == pytest.approx(4 * 64 / seconds, rel=0.01)
    assert len(result["predicted_costliest_kinds"]) == 10
    memory = result["predicted_memory_mib"]
    assert 0 < memory["weights, moments, average, inputs"] < memory["peak"]


def test_roofline_against_this_cpu() -> None:
    """How long both take is the machine's affair; docs/performance.md has figures."""
    networks = ("--architecture", "small32", "--batch-size", "8", "--mixed_precision", "no")
    result = run("roofline", "--device", "cpu", *networks, "--rounds", "1")
    check = result["check"]
    assert check["predicted_seconds"] == result["predicted_seconds_per_iteration"]
    assert sum(result["predicted_seconds_by_limit"].values()) == pytest.approx(
        check["predicted_seconds"], rel=0.01
    )
    ratio = check["predicted_seconds"] / check["measured_seconds"]
    assert check["predicted_over_measured"] == pytest.approx(ratio, rel=0.05)


def test_gm_loss() -> None:
    result = run("gm-loss", "--classes", "10", "200", "--batch-size", "8", "--rounds", "1")
    assert set(result["ratio"]) == {"10 classes", "200 classes"}


def test_data() -> None:
    result = run("data", "--images", "192", "--rounds", "1")
    rates = result["images_per_second"]
    assert result["ratio"] == pytest.approx(rates["ours"] / rates["usual pipeline"], rel=0.05)
    assert result["share_of_raw_decoder"] == pytest.approx(
        rates["ours"] / rates["raw libjpeg-turbo"], rel=0.05
    )


def test_checkpoint() -> None:
    result = run("checkpoint", "--architecture", "mlp2d", "--classes", "3", "--rounds", "1")
    assert result["mib_written"]["rank 0"] > 0


def test_diversity() -> None:
    pytest.importorskip("pytorch_msssim")
    result = run("diversity", "--images", "12", "--side", "32", "--rounds", "1")
    assert result["ratio"] > 1
    assert result["largest_difference"] < 1e-5


def test_scale(tmp_path: Path) -> None:
    image = tmp_path / "scale.png"
    small = ("--architecture", "mlp2d", "--local-batch-size", "8", "--rounds", "1", "--processes", "1", "2")
    result = run("scale", *small, "--picture", str(image), "--device", "h100")
    assert result["compute_seconds_are"] == "a model's prediction for NVIDIA H100 SXM"
    # an iteration of that is launches: some hundreds of two microseconds
    assert 2e-4 < result["compute_seconds"] < 4e-3
    assert result["collectives_per_iteration"] > 3
    curve = result["efficiency"]["synchronised batch norm"]
    assert curve["1"] == 1.0 >= curve["8"] >= curve["1024"] > 0
    assert image.stat().st_size > 1000


def test_scale_data() -> None:
    result = run("scale-data", "--shards", "1200", "--samples-per-shard", "8", "--classes", "12")
    assert result["samples"] == 9600
    # far below what 1,200 shards of counts per class took, and above nothing
    assert 0 < result["seconds_to_first_batch"] < 60
    assert 0 < result["peak_mib"] < 200
