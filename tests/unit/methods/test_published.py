"""Published models: the same numbers after a round trip; nothing foreign is ever executed."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch

from dist_dsvae.config import ModelConfig
from dist_dsvae.methods.dsvae import DSVAE
from dist_dsvae.methods.published import Published, PublishedModelError, load_published, save_published
from tests.unit.methods.making import SHAPES, make_method

CLASSES = ("a", "b", "c", "d", "e")


@pytest.fixture
def published(tmp_path: Path) -> tuple[DSVAE, Path]:
    method = make_method("small32").float().eval()
    method.to(memory_format=torch.channels_last)
    directory = tmp_path / "model"
    model = ModelConfig(architecture="small32", zs_dim=6, zu_dim=4)
    about = {"data": "shards/five"}
    save_published(Published(method, SHAPES["small32"], CLASSES, method.config, model, about), directory)
    return method, directory


def test_round_trip(published: tuple[DSVAE, Path]) -> None:
    method, directory = published
    again = load_published(directory)
    loaded = again.method
    assert again[1:3] == (SHAPES["small32"], CLASSES)
    assert again.config == method.config
    assert (again.model.zs_dim, again.about) == (6, {"data": "shards/five"})
    assert not loaded.training
    for (name, ours), theirs in zip(loaded.state_dict().items(), method.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    images = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(loaded.encoder_s(images), method.encoder_s(images))


class Bomb:
    """Unpickling it leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "pytorch_model.bin", "model.pt", ".metadata", "model.pkl"]
)
def test_a_crafted_pickle_is_never_executed(published: tuple[DSVAE, Path], tmp_path: Path, name: str) -> None:
    """In place of the files that are read it is refused; beside them it is not opened."""
    _, directory = published
    trace = tmp_path / "executed"
    (directory / name).write_bytes(pickle.dumps(Bomb(trace)))
    if name in ("model.safetensors", "config.json"):
        with pytest.raises(PublishedModelError, match=f"{name} cannot be read"):
            load_published(directory)
    else:
        load_published(directory)
    assert not trace.exists()
    pickle.loads((directory / name).read_bytes())  # the test can fail: the pickle does what it says
    assert trace.exists()


def test_what_is_wrong_gets_a_sentence(published: tuple[DSVAE, Path], tmp_path: Path) -> None:
    _, directory = published
    with pytest.raises(PublishedModelError, match=r"is no published model: config.json cannot be read"):
        load_published(tmp_path / "nowhere")
    description = json.loads((directory / "config.json").read_text())
    for changed, message in (
        (description | {"format": "other"}, "is not of the format"),
        (description | {"classes": ["a"]}, "does not fit config.json beside it"),
        (description | {"model": {"architecture": "vgg99"}}, "does not describe a model: .*vgg99"),
        (description | {"shape": {"channels": 1, "height": 8, "width": 8}}, "does not describe a model"),
        (description | {"about": "me"}, "does not describe a model"),
        ({k: v for k, v in description.items() if k != "shape"}, "does not describe a model"),
    ):
        (directory / "config.json").write_text(json.dumps(changed))
        with pytest.raises(PublishedModelError, match=message):
            load_published(directory)
    (directory / "config.json").write_text(json.dumps(description))
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(PublishedModelError, match="cannot be read"):
        load_published(directory)
