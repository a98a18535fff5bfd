"""Shards in order of classes: measured from the indexes, warned about, and mixed by a larger window."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from dist_dsvae.building.writer import Layout, Sample, write_split
from dist_dsvae.config import DataConfig, ExperimentConfig, ModelConfig, TrainConfig
from dist_dsvae.core.noise import Draw, permutation
from dist_dsvae.core.types import ImageShape
from dist_dsvae.data.mixing import measure_mixing, warning_about
from dist_dsvae.data.shards.manifest import UNLABELLED, Manifest
from dist_dsvae.data.stream import Slice, stream
from dist_dsvae.engine.choices import with_choices_made
from tests.unit.data.making import encode_value

CLASSES = 40


def write(
    directory: Path, labels: np.ndarray, per_shard: int, classes: tuple[str, ...] | None = None
) -> Manifest:
    """A split whose samples have ``labels``, in this order, as another tool may have written it."""
    layout = Layout(shape=ImageShape(1, 4, 4), extension="png", samples_per_shard=per_shard)
    order = permutation(len(labels), int(Draw.BUILD_ORDER)).argsort().tolist()  # undoes the writer's own
    samples = [Sample(i % 200, int(labels[i]), f"sample {i}") for i in order]
    names = classes or tuple(f"class {i:03d}" for i in range(CLASSES))
    return write_split(
        directory / "split",
        samples,
        encode_value,
        layout,
        classes=names,
        command="a test",
        source="test",
    ).manifest


@pytest.fixture(scope="module")
def ordered(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return write(tmp_path_factory.mktemp("ordered"), np.repeat(np.arange(CLASSES), 24), 8)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(CLASSES), 24))
    return write(tmp_path_factory.mktemp("mixed"), labels, 8)


def classes_met(split: Manifest, window: int, batches: int = 60) -> float:
    config = DataConfig(train="", shuffle_window_shards=window, num_workers=0)
    endless = stream(split, config, 0, Slice(global_batch_size=32, rank=0, world_size=1))
    return float(np.mean([len(next(endless).labels.unique()) for _ in range(batches)]))


@pytest.mark.parametrize("window", [4, 8, 32, 120])
def test_what_is_measured_is_what_batches_meet(ordered: Manifest, mixed: Manifest, window: int) -> None:
    for split in (ordered, mixed):
        measured = measure_mixing(split, 32, window)
        assert measured.classes == pytest.approx(classes_met(split, window), rel=0.12)
        assert measured.classes_if_mixed == pytest.approx(classes_met(split, 120), rel=0.05)


def test_a_window_is_chosen_that_mixes(ordered: Manifest, mixed: Manifest) -> None:
    assert measure_mixing(mixed, 32, None).window_shards == 8
    chosen = measure_mixing(ordered, 32, None)
    assert chosen.window_shards == chosen.enough_shards == 64
    assert not chosen.is_ordered


def test_memory_bounds_the_window(ordered: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    tar = ordered.shards[0].num_bytes
    monkeypatch.setattr("dist_dsvae.data.mixing.MOST_WINDOW_BYTES", 16 * tar)
    assert measure_mixing(ordered, 32, None).window_shards == 16


def test_training_warns_with_the_remedy(ordered: Manifest, caplog: pytest.LogCaptureFixture) -> None:
    def chosen(
        split: Manifest, window: int | None, record: ExperimentConfig | None = None
    ) -> ExperimentConfig:
        data = DataConfig(train="", shuffle_window_shards=window, batch_size=32)
        config = ExperimentConfig(data=data, model=ModelConfig(architecture="small"))
        return with_choices_made(config, split, record)

    with caplog.at_level(logging.WARNING):
        by_hand = chosen(ordered, 4)
    (said,) = caplog.messages
    assert "hold their samples in order of classes: a batch of 32 from 4 shards" in said
    assert "from a shuffled list of the samples" in said
    assert "or set data.shuffle_window_shards to 64" in said
    assert by_hand.data.shuffle_window_shards == 4
    caplog.clear()
    assert chosen(ordered, None).data.shuffle_window_shards == 64
    assert caplog.messages == []
    unlabelled = DataConfig(train="", unlabelled="x", batch_size=32)
    with_choices_made(
        ExperimentConfig(data=unlabelled, model=ModelConfig(architecture="small")), ordered, None
    )
    assert caplog.messages[0].startswith("No update takes the pictures of data.unlabelled")
    caplog.clear()
    idle = ExperimentConfig(
        data=DataConfig(train="", batch_size=32),
        model=ModelConfig(architecture="small"),
        train=TrainConfig(ema_ramp_up=0.5),
    )
    with_choices_made(idle, ordered, None)
    assert caplog.messages[0].startswith("train.ema_ramp_up is 0.5, which has no effect: ")
    # a run that is resumed keeps its window, whatever would be chosen for it now
    assert chosen(ordered, None, by_hand).data.shuffle_window_shards == 4


def test_labels_that_mean_nothing_are_in_no_order(tmp_path: Path) -> None:
    split = write(tmp_path, np.zeros(200, np.int64), 8, UNLABELLED)
    mixing = measure_mixing(split, 32, None)
    assert mixing.window_shards == 8
    assert warning_about(split, 32, mixing) is None
