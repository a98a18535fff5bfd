"""Programs of a model compute what it does, in PyTorch and in ONNX Runtime, and the card's lines run."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from dist_dsvae import PretrainedModel
from dist_dsvae.config import CGANConfig, ClassifierConfig, CVAEConfig, DSVAEConfig
from dist_dsvae.core.noise import Draw
from dist_dsvae.methods.abilities import Generative
from dist_dsvae.methods.dsvae import DSVAE
from dist_dsvae.pretrained.programs import ProgramError, ProgramKind, computed, save_programs
from dist_dsvae.pretrained.requests import RequestError
from tests.unit.pretrained.making import make_model

Run = Callable[..., Any]


def installed(kind: ProgramKind) -> ProgramKind:
    """``kind``, where its packages are."""
    for name in ("onnx", "onnxscript", "onnxruntime") if kind == "onnx" else ():
        pytest.importorskip(name)
    return kind


def opened(path: Path) -> Run:
    """A program, as one without this package runs it: tensors by position in, several tensors out."""
    if path.suffix == ".pt2":
        network = torch.export.load(path).module()
        return lambda *inputs: found if isinstance(found := network(*inputs), tuple) else (found,)
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(str(path))
    names = [each.name for each in session.get_inputs()]

    def run(*inputs: Tensor) -> list[Tensor]:
        given = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        return [torch.from_numpy(array) for array in session.run(None, given)]

    return run


class Numbers:
    """Given ones, as the prior asks for them."""

    def __init__(self, numbers: Tensor) -> None:
        self.numbers = numbers

    def normal(self, draw: Draw, size: int) -> Tensor:
        assert self.numbers.shape[1] == size
        return self.numbers


def lines_for(card: str, kind: str) -> str:
    """The Python of the card's section on programs of a kind."""
    found = re.search(rf"## Use the `\.{kind}` files\n.*?```python\n(.*?)```", card, re.DOTALL)
    assert found is not None, card
    return found[1]


class Saved(NamedTuple):
    """A model with its card and programs in a folder. sentence: what saving said."""

    model: PretrainedModel
    folder: Path
    sentence: str


@pytest.fixture(scope="module", params=[DSVAEConfig(), CVAEConfig(), CGANConfig()], ids=lambda c: c.name)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Both kinds, once for all tests: making them takes longer than running them."""
    model, folder = make_model(request.param), tmp_path_factory.mktemp("model")
    kinds: tuple[ProgramKind, ...] = ("pt2", installed("onnx"))
    model.save_pretrained(folder, model_card_kwargs={"programs": kinds})
    return Saved(model, folder, save_programs(model, folder, kinds))


@pytest.mark.parametrize("kind", ["pt2", "onnx"])
def test_programs_compute_what_the_model_does(saved: Saved, kind: ProgramKind) -> None:
    """In batches of other sizes than they were traced with."""
    model, folder = saved.model, saved.folder
    zs, zu = (torch.randn(7, width) for width in model.code_dims)
    (decoded,) = opened(folder / f"decoder.{kind}")(zs, zu)
    torch.testing.assert_close(decoded, model.decode(zs, zu), atol=1e-5, rtol=0)

    sampler, labels = opened(folder / f"sampler.{kind}"), torch.tensor([1, 0])
    images, codes = sampler(labels, zs[:2], zu[:2])
    method = model.published.method
    assert isinstance(method, Generative)
    expected = method.prior_codes(labels, Numbers(zs[:2]), Numbers(zu[:2]))
    zs_dim, zu_dim = model.code_dims
    torch.testing.assert_close(codes, expected[:, :zs_dim], atol=1e-5, rtol=0)
    drawn = model.decode(expected[:, :zs_dim], expected[:, zs_dim:], code_kind="prior")
    torch.testing.assert_close(images, drawn, atol=1e-5, rtol=0)
    if isinstance(method, DSVAE):
        _, means = sampler(labels, torch.zeros(2, zs_dim), torch.zeros(2, zu_dim))
        torch.testing.assert_close(means, method.mixture_prior.mean[labels], atol=1e-5, rtol=0)

    assert (folder / f"encoder.{kind}").exists() == model.can_encode == (f"encoder.{kind}" in saved.sentence)
    if model.can_encode:
        inputs, classes = torch.rand(1, 1, 32, 32), torch.tensor([2])
        given = (inputs, classes) if model.needs_labels else (inputs,)
        zs, mean, _ = opened(folder / f"encoder.{kind}")(*given)
        encoded = model.encode(inputs, classes)
        for got, coded in ((zs, encoded.zs), (mean, encoded.zu.mean)):
            torch.testing.assert_close(got, coded, atol=1e-5, rtol=0)


@torch.no_grad()
def test_what_rounding_is_allowed_is_what_rounding_does() -> None:
    """Of a chain of sums in float32 and in float64: within it, and not by far."""
    torch.manual_seed(0)
    layers = [nn.Linear(900, 900, bias=False) for _ in range(4)]
    for layer in layers:
        nn.init.normal_(layer.weight, std=900**-0.5)  # passes the size of its inputs on
    network, inputs = nn.Sequential(*layers), torch.randn(64, 900)
    (output,), (bound,) = computed(network, inputs)
    error = float((network.double()(inputs.double()) - output).abs().max())
    assert bound / 100 < error < bound


@pytest.mark.parametrize("kind", ["pt2", "onnx"])
def test_the_lines_of_the_card_run(saved: Saved, kind: ProgramKind) -> None:
    """As they stand there, without this package; ten lines or so."""
    lines = lines_for((saved.folder / "README.md").read_text(), kind)
    assert len(lines.splitlines()) <= 12
    result = "swapped" if saved.model.can_encode else "again"
    script = lines + f"import sys\nprint(list({result}.shape), float(abs({result}).max()) <= 1)\n"
    script += "assert not [name for name in sys.modules if name.startswith('dist_dsvae')]\n"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=saved.folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[4, 1, 32, 32] True\n"


def test_a_card_tells_of_what_is_there_alone(saved: Saved) -> None:
    plain = str(saved.model.generate_model_card())
    assert ".pt2" not in plain
    assert ".onnx" not in plain


@pytest.mark.parametrize("kind", ["pt2", "onnx"])
def test_a_program_that_differs_is_not_left_behind(tmp_path: Path, kind: ProgramKind) -> None:
    model = make_model(CGANConfig())
    model.published.method.decoder.register_forward_hook(lambda *call: call[-1] + torch.rand_like(call[-1]))
    with pytest.raises(ProgramError, match=r"differs from the model by .* it was removed"):
        save_programs(model, tmp_path, (installed(kind),))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_made_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match="cannot make pictures"):
        save_programs(make_model(ClassifierConfig(width=4), "resnet32"), tmp_path)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else find(name))
    with pytest.raises(ProgramError, match=r"need onnx, not installed here: pip install .*\[onnx\]"):
        save_programs(make_model(CGANConfig()), tmp_path, ("pt2", "onnx"))
    assert list(tmp_path.iterdir()) == []
