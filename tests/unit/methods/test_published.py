"""Published models: the same numbers after a round trip; nothing foreign is ever executed."""

from __future__ import annotations

import json
import math
import os
import pickle
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

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


def test_keys_by_their_former_names(published: tuple[DSVAE, Path]) -> None:
    method, directory = published
    place = directory / "config.json"
    text = place.read_text()
    for name in ("gm", "joint", "unlabelled"):
        assert f'"{name}_updates"' in text
        text = text.replace(f'"{name}_updates"', f'"{name}_steps"')
    place.write_text(text)
    assert load_published(directory).config == method.config


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
        (description | {"classes": ["a", "b", "c", "d", "a"]}, "the class 'a' is there twice"),
        (description | {"classes": {}}, "classes must be a list of names"),
        (description | {"classes": [1, 2, 3, 4, 5]}, "classes must be a list of names"),
        (description | {"classes": ["a", "b", "c", "d", "\ud800"]}, "cannot be read .it holds half"),
        (description | {"shape": {"channels": 1, "height": 32.0, "width": 32}}, "sizes are whole numbers"),
        (description | {"shape": {"channels": 10**9, "height": 32, "width": 32}}, "does not"),
        (description | {"shape": {"channels": 1, "height": 2**62, "width": 2**62}}, "does not"),
        (
            description | {"shape": {"channels": "1", "height": [], "width": None}},
            "does not describe a model",
        ),
        (description | {"model": description["model"] | {"zs_dim": 4096}}, "does not fit config.json"),
        (description | {"classes": [str(i) for i in range(100_000)]}, "does not fit config.json"),
        ({k: v for k, v in description.items() if k != "shape"}, "describe a model: it lacks 'shape'"),
    ):
        (directory / "config.json").write_text(json.dumps(changed))
        with pytest.raises(PublishedModelError, match=message):
            load_published(directory)
    (directory / "config.json").write_text(json.dumps(description))
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(PublishedModelError, match="cannot be read"):
        load_published(directory)


def test_sizes_are_checked_before_memory_is_taken(published: tuple[DSVAE, Path]) -> None:
    """A prior of a million classes and 4,096 dimensions would take 32 GB."""
    _, directory = published
    description = json.loads((directory / "config.json").read_text())
    description["classes"] = [str(i) for i in range(1_000_000)]
    description["model"]["zs_dim"] = 4096
    (directory / "config.json").write_text(json.dumps(description))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PublishedModelError, match=r"does not fit config\.json beside it"):
        load_published(directory)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB


def test_weights_that_are_no_numbers_get_a_sentence(published: tuple[DSVAE, Path]) -> None:
    _, directory = published
    tensors = load_file(directory / "model.safetensors")
    tensors["mixture_prior.mean"][1, 2] = math.nan
    save_file(tensors, directory / "model.safetensors", metadata={"format": "dist_dsvae/1"})
    with pytest.raises(
        PublishedModelError, match=r"values of mixture_prior\.mean that are infinite or no num"
    ):
        load_published(directory)


def test_weights_of_a_kind_that_networks_do_not_compute_in_get_a_sentence(
    published: tuple[DSVAE, Path],
) -> None:
    _, directory = published
    place = directory / "model.safetensors"
    tensors = load_file(place)
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        save_file(tensors | {"mixture_prior.mean": tensors["mixture_prior.mean"].to(kind)}, place)
        assert load_published(directory).method.mixture_prior.mean.dtype == torch.float32
    for kind in (torch.float8_e4m3fn, torch.float8_e5m2):
        save_file(tensors | {"mixture_prior.mean": tensors["mixture_prior.mean"].to(kind)}, place)
        with pytest.raises(
            PublishedModelError, match=r"mixture_prior\.mean as float8_e\w+; allowed are float16,"
        ):
            load_published(directory)


def test_nothing_else_is_replaced(published: tuple[DSVAE, Path]) -> None:
    _, directory = published
    again = load_published(directory)
    save_published(again, directory)
    (directory / "config.json").write_text('{"train": {}}')
    with pytest.raises(PublishedModelError, match="a file of its name there is no published model's"):
        save_published(again, directory)
    assert (directory / "config.json").read_text() == '{"train": {}}'
