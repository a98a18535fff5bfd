"""Fine-tuning on unlabelled images: where the weights come from, what moves, which samples come when."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from dist_dsvae.config import DataConfig, TrainConfig
from dist_dsvae.config.reading import ConfigError
from dist_dsvae.core.errors import DataError
from dist_dsvae.data.open_splits import open_splits
from dist_dsvae.data.stream import Slice
from dist_dsvae.engine.iteration.streams import Streams
from dist_dsvae.engine.processes.runtime import Runtime
from tests.distributed.launching import REPOSITORY, checkpoint_tensors, write_config
from tests.unit.engine.test_every_method import Entries, entry, train
from tests.unit.methods.making import make_method

__all__ = ["entry"]

SHARDS = REPOSITORY / "shards/fashion-mnist-mini"
SPLITS = {"train": f"{SHARDS}/train", "unlabelled": f"{SHARDS}/test"}
ONLY_UNLABELLED = {"gm_updates": 0, "joint_updates": 0, "unlabelled_updates": 2}


def make_streams(source: str, batch_size: int = 8, **method: int) -> Streams:
    data = DataConfig(**SPLITS, batch_size=batch_size, num_workers=0, source=source)
    part = Slice(global_batch_size=batch_size, rank=0, world_size=1)
    return Streams(make_method(**method), open_splits(data), data, part, Runtime(TrainConfig()), seed=0)


@pytest.mark.parametrize("source", ["stream", "resident"])
def test_both_streams_are_found_again_at_any_iteration(source: str) -> None:
    streams = make_streams(source, gm_updates=2, unlabelled_updates=2)
    assert streams.order == ("train", "train", "train", "unlabelled", "unlabelled")
    assert streams.num_samples == 12_000
    walked = list(itertools.islice(streams.iterations(0), 4))
    jumped = list(itertools.islice(streams.iterations(2), 2))
    for one, other in zip(walked[2:], jumped, strict=True):
        for expected, got in zip(one, other, strict=True):
            for e, g in zip(expected.tensors, got.tensors, strict=True):
                assert torch.equal(e, g)
    positions = [[inputs.tensors[-1][0].item() for inputs in iteration] for iteration in walked]
    assert positions == [[24 * i, 24 * i + 8, 24 * i + 16, 16 * i, 16 * i + 8] for i in range(4)]


def test_a_batch_larger_than_a_split_that_it_is_drawn_from_gets_a_sentence() -> None:
    make_streams("stream", 10_000).check_batch()  # all of train; nothing is drawn from the smaller unlabelled
    make_streams("stream", 2_000, **ONLY_UNLABELLED).check_batch()
    with pytest.raises(ConfigError, match=r"size is 10,001, .*train has 10,000 samples.* to 10000 or less"):
        make_streams("stream", 10_001).check_batch()
    with pytest.raises(ConfigError, match=r"size is 2,001, .*test has 2,000 samples.* to 2000 or less"):
        make_streams("stream", 2_001, **ONLY_UNLABELLED).check_batch()


def test_an_unlabelled_epoch_is_every_sample_once() -> None:
    streams = make_streams("resident", **ONLY_UNLABELLED)
    assert streams.num_samples == 2_000
    batches = itertools.islice(streams.iterations(0), 125)
    places = torch.cat([inputs.tensors[0] for iteration in batches for inputs in iteration])
    assert places.sort().values.tolist() == list(range(2_000))
    assert places.tolist() != list(range(2_000))


def test_unlabelled_shards_of_another_size_get_a_sentence(tmp_path: Path) -> None:
    shutil.copytree(SHARDS / "test", tmp_path / "other")
    manifest = json.loads((tmp_path / "other/manifest.json").read_text())
    manifest["shape"]["height"] = 64
    (tmp_path / "other/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"1 x 64 x 32 values, .* of 1 x 32 x 32"):
        open_splits(DataConfig(train=SPLITS["train"], unlabelled=str(tmp_path / "other")))


def test_steps_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="are all 0, so there is nothing to train"):
        make_method(gm_updates=0, joint_updates=0)
    with pytest.raises(ValueError, match=r'method\.joint_batch is "last"'):
        make_method(gm_updates=0, joint_batch="last")


def config_of(path: Path, iterations: int, batches: int, samples: int, **sections: Any) -> Path:
    train_section = {"epochs": iterations * batches * 12 / samples, "evaluate_at_end": False}
    train_section |= sections.pop("train", {})
    return write_config(path, **sections, train=train_section)


@pytest.fixture(scope="module")
def supervised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two iterations, without labels of anything unlabelled."""
    folder = tmp_path_factory.mktemp("supervised")
    config = config_of(folder / "c.json", 2, 4, 10_000, train={"ema_half_life_updates": 2.0})
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(REPOSITORY)
        patched.setattr("sys.argv", ["train", "--config", str(config), "--run-dir", str(folder / "run")])
        assert train.main() == 0
    return folder / "run"


def test_fine_tuning_moves_only_what_has_no_label(supervised: Path, entry: Entries, tmp_path: Path) -> None:
    """From another run's weights, averages included; resumed after that run is gone."""
    run = tmp_path / "run"
    sections: dict[str, Any] = {
        "data": {"unlabelled": SPLITS["unlabelled"]},
        "method": ONLY_UNLABELLED,
        "train": {"ema_half_life_updates": 2.0},
    }
    begin = config_of(tmp_path / "1.json", 1, 2, 2_000, **sections)
    moved = tmp_path / "moved"
    shutil.copytree(supervised, moved)
    status, printed = entry(
        train, "--config", str(begin), "--run-dir", str(run), "--init-from", str(moved), "--set", "seed=5"
    )
    assert status == 0, printed
    assert f"Starts from the weights of {moved}/checkpoints/step-00000002" in printed
    before = checkpoint_tensors(moved / "checkpoints/step-00000002")
    after = checkpoint_tensors(run / "checkpoints/step-00000001")
    same = {
        name.split(".")[2] for name in before if ".method." in name and torch.equal(before[name], after[name])
    }
    changed = {name for name in before if ".method." in name and not torch.equal(before[name], after[name])}
    assert {"mixture_prior", "latent_classifier"} <= same
    assert not any("mixture_prior" in name or "latent_classifier" in name for name in changed)
    assert not any("discriminator.embedding" in name for name in changed)
    for network in ("encoder_s", "encoder_u", "decoder", "discriminator.layers", "discriminator.head"):
        weights = [n for n in before if f".method.{network}" in n and n.endswith(("weight", "original"))]
        # two steps of Adam at 5e-4 with beta2 = 0.9 carry no weight further than 5e-4 (1 + sqrt(0.19 / 0.1))
        assert weights
        for name in weights:
            assert 0 < (after[name] - before[name]).abs().max() <= 1.19e-3, name
    averages = [name for name in before if name.startswith(".ema.") and name.endswith("weight")]
    assert averages
    for name in averages:
        assert (after[name] - before[name]).abs().max() <= 1.19e-3, name
    assert json.loads((run / "environment.json").read_text())[0]["init_from"].endswith("step-00000002")

    shutil.rmtree(moved)
    onward = config_of(tmp_path / "2.json", 2, 2, 2_000, **sections)
    status, printed = entry(train, "--config", str(onward), "--run-dir", str(run), "--set", "seed=5")
    assert status == 0, printed
    assert "Resumed" in printed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--init-from", "/nowhere"], "/nowhere is not a run directory"),
        (
            ["--init-from", "{run}", "--set", "model.zs_dim=9"],
            "Set model.* and method.name as they are there",
        ),
        (["--init-from", "{run}", "--set", "method.name=cvae_gan"], "has the method dsvae with"),
        (
            ["--init-from", "{run}", "--set", "method.zs_posterior=gaussian"],
            "encoder_s.head.weight is 8 x 256",
        ),
    ],
)
def test_weights_that_cannot_be_taken(
    supervised: Path, entry: Entries, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    config = config_of(tmp_path / "c.json", 1, 4, 10_000)
    filled = [argument.format(run=supervised) for argument in arguments]
    status, printed = entry(train, "--config", str(config), "--run-dir", str(tmp_path / "run"), *filled)
    assert status == 1
    assert sentence in printed, printed
