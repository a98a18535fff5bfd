"""Files of weights that are not what they should be: a sentence each, and nothing is executed."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dist_dsvae.evaluation.judging.judge import load_judge
from dist_dsvae.evaluation.judging.scoring_networks import empty_face_network, empty_inception_v3
from dist_dsvae.evaluation.judging.weight_files import JudgeError, fill
from tests.unit.evaluation.weights import random_state


def refused(path: Path, match: str, kind: str | None = None) -> None:
    with pytest.raises(JudgeError, match=match) as caught:
        load_judge(path, device="cpu", kind=kind)
    assert str(path) in str(caught.value)
    assert "weights_only=False" not in str(caught.value).replace(" ", "")


@pytest.fixture
def fragment(tmp_path: Path) -> Path:
    """Some tensors of no known network."""
    path = tmp_path / "part.safetensors"
    save_file({"b.weight": torch.zeros(2), "a.weight": torch.zeros(3), "c": torch.zeros(1)}, path)
    return path


def test_a_missing_file_says_where_weights_come_from(tmp_path: Path) -> None:
    for project in ("facenet-pytorch", "torchvision", "torch-fidelity"):
        refused(tmp_path / "none.pt", f"there is no file .*{project}")
    refused(tmp_path, "cannot be read .*directory")


def test_unknown_kinds_and_suffixes(fragment: Path) -> None:
    refused(fragment, "no kind of judge 'vgg'.*facenet, inception-v3, inception-v3-tf, fid-inc", kind="vgg")
    other = fragment.rename(fragment.with_suffix(".bin"))
    refused(other, r"ends in '.bin'; files of weights end in .safetensors, .pt, .pth")


@pytest.mark.parametrize("content", [b"", b"x", b"garbage" * 99, b"PK\x03\x04" + b"\0" * 60, b"\x80\x02."])
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    refused(tmp_path / "a.safetensors", "is no safetensors file")
    (tmp_path / "a.pt").write_bytes(content)
    refused(tmp_path / "a.pt", "weights-only reader refuses it")


def test_a_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "half.pth"
    torch.save({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])
    refused(path, "is damaged")


class Bomb:
    """Unpickling it leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("kind", [None, "facenet", "inception-v3", "fid-inception", "torchscript-trunk"])
def test_a_crafted_pickle_is_never_executed(tmp_path: Path, kind: str | None) -> None:
    trace = tmp_path / "executed"
    for path, crafted in ((tmp_path / "a.pt", {"fc.weight": Bomb(trace)}), (tmp_path / "b.pt", Bomb(trace))):
        torch.save(crafted, path)
        refused(path, "refuses it|is no TorchScript program", kind=kind)
    (tmp_path / "c.pth").write_bytes(pickle.dumps(Bomb(trace), protocol=2))
    refused(tmp_path / "c.pth", "refuses it|is no TorchScript program", kind=kind)
    assert not trace.exists()
    torch.load(tmp_path / "b.pt", weights_only=False)  # the test can fail: the pickle does what it says
    assert trace.exists()


def test_what_is_no_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    for content, message in (
        ([1, 2], "holds an object of type list, not a state dict"),
        ({}, "holds nothing, not a state dict"),
        ({"epoch": 3, "model": {}}, "entry 'epoch' is an object of type int, not a tensor"),
    ):
        torch.save(content, path)
        refused(path, message)


def test_unknown_layouts_name_what_was_seen(fragment: Path) -> None:
    refused(
        fragment, r"its 3 tensors are a.weight, b.weight, c\. Known are facenet-pytorch's .*torchvision's"
    )
    many = {f"layer{i}": torch.zeros(1) for i in range(5)}
    save_file(many, fragment)
    refused(fragment, r"its 5 tensors are layer0, layer1, layer2, \.\.\.")
    for kind in ("facenet", "inception-v3", "inception-v3-tf", "fid-inception"):
        refused(fragment, rf"does not fit the layout '{kind}' of \d+ tensors: \d+ missing .*5 unknown", kind)
    refused(fragment, "is no TorchScript program", kind="torchscript-trunk")


@pytest.fixture(scope="module")
def face_state() -> dict[str, Tensor]:
    return random_state(empty_face_network(4))


def test_names_and_shapes_must_fit(face_state: dict[str, Tensor]) -> None:
    path = Path("faces.pt")
    without = {name: value for name, value in face_state.items() if name != "last_linear.weight"}
    reshaped = face_state | {"last_bn.bias": torch.zeros(7)}
    for state, message in (
        (without, r"1 missing \(last_linear.weight\)\. Give"),
        (face_state | {"more": torch.zeros(1)}, r"of 716 tensors: 1 unknown \(more\)\. Give"),
        (reshaped, r"1 of another shape \(last_bn.bias \[7\] instead of \[512\]\)\. Give"),
        (without | {"more": torch.zeros(1)}, r"1 missing \(last_linear.weight\); 1 unknown \(more\)\. Give"),
    ):
        with pytest.raises(JudgeError, match=r"^faces.pt does not fit the layout 'facenet' .*" + message):
            fill(empty_face_network(4), state, path, "facenet")


def test_layouts_round_trip(face_state: dict[str, Tensor]) -> None:
    for empty, state in (
        (empty_face_network(4), face_state),
        (inception := empty_inception_v3(3, aux_logits=True), random_state(inception)),
    ):
        fill(empty, state, Path("x.pt"), "any")
        filled = empty.state_dict()
        assert filled.keys() == state.keys()
        assert all(torch.equal(filled[name], value) for name, value in state.items())


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fid.safetensors"
    save_file(random_state(empty_inception_v3(1008, aux_logits=False)), path)
    for module in ("torch_fidelity", "torch_fidelity.feature_extractor_inceptionv3"):
        monkeypatch.setitem(sys.modules, module, None)
    refused(path, r'torch-fidelity, and that cannot be imported .*pip install "dist_dsvae\[evaluate\]"')
