"""Reading files of weights: what is in them is checked, and never executed.

    path -> bytes -> (hash compared) -> tensors by name -> (names and shapes compared) -> module

A file is read once; its hash is that of the very bytes whose tensors are used.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

WEIGHT_SOURCES = (
    "Weights are not part of this package: facenet-pytorch's releases have those for faces (VGGFace2), "
    "torchvision those of inception_v3, and torch-fidelity's releases those of the FID Inception of "
    "2015-12-05; download one and give the path of the file"
)
SUFFIXES = (".safetensors", ".pt", ".pth")
TRACKED = "num_batches_tracked"  # a counter of batch norm; no output in evaluation mode depends on it


class JudgeError(ValueError):
    """Weights or images that no judge can be made of or applied to; the message says why and what to do."""


def read_file(path: Path) -> tuple[bytes, str]:
    """The bytes of a file and their sha256 in lower-case hexadecimal.

    Raises JudgeError if there is no such file, or it cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise JudgeError(f"there is no file {path}. {WEIGHT_SOURCES}.") from None
    except OSError as error:
        raise JudgeError(
            f"{path} cannot be read ({error.strerror}); give the path of a readable file of weights."
        ) from None
    return data, hashlib.sha256(data).hexdigest()


def is_torchscript(data: bytes) -> bool:
    """Whether the bytes are a TorchScript archive: a program with its weights."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return any(Path(name).name == "constants.pkl" for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def parse_tensors(data: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors in a state dict's bytes, floating ones as float32, on the CPU.

    ``path`` gives the format by its suffix (.safetensors; .pt and .pth are torch.save's) and errors a name.
    Raises JudgeError if the bytes hold anything but tensors by name.
    """
    if path.suffix not in SUFFIXES:
        raise JudgeError(
            f"{path} ends in {path.suffix!r}; files of weights end in {', '.join(SUFFIXES)}. Give it the "
            "suffix of its format."
        )
    if path.suffix == ".safetensors":
        try:
            content: object = safetensors.torch.load(data)
        except SafetensorError as error:
            raise JudgeError(f"{path} is no safetensors file ({error}). Download it again.") from None
    else:
        content = _unpickled_tensors(data, path)
    if not isinstance(content, Mapping) or not content:
        raise JudgeError(f"{path} holds {_described(content)}, not a state dict. {WEIGHT_SOURCES}.")
    strangers = {name: value for name, value in content.items() if not isinstance(value, Tensor)}
    if strangers:
        name, value = next(iter(strangers.items()))
        raise JudgeError(
            f"{path} is no plain state dict: its entry {name!r} is {_described(value)}, not a tensor. Save "
            "the network's state_dict() alone."
        )
    return {
        str(name): value.float() if value.is_floating_point() else value for name, value in content.items()
    }


def fill(module: nn.Module, tensors: Mapping[str, Tensor], path: Path, layout: str) -> None:
    """Make ``tensors`` the parameters and buffers of ``module``, which may stand on the meta device.

    Counters of batch norm may be missing. Raises JudgeError if other names or shapes differ, and names some.
    """
    expected = module.state_dict()
    missing = [name for name in expected if name not in tensors and not name.endswith(TRACKED)]
    unknown = [name for name in tensors if name not in expected]
    reshaped = [
        f"{name} {list(value.shape)} instead of {list(expected[name].shape)}"
        for name, value in tensors.items()
        if name in expected and value.shape != expected[name].shape
    ]
    problems = [
        f"{len(names)} {what} ({some(names)})"
        for names, what in ((missing, "missing"), (unknown, "unknown"), (reshaped, "of another shape"))
        if names
    ]
    if problems:
        raise JudgeError(
            f"{path} does not fit the layout {layout!r} of {len(expected)} tensors: {'; '.join(problems)}. "
            "Give a file in that layout as its project publishes it, or name the kind of network this "
            "file holds."
        )
    counters = {name: torch.zeros((), dtype=torch.int64) for name in expected if name.endswith(TRACKED)}
    module.load_state_dict(counters | dict(tensors), assign=True)


def some(names: Iterable[str]) -> str:
    """The first three names, separated by commas, and dots if there are more."""
    first = list(itertools.islice(names, 4))
    return ", ".join(first[:3]) + (", ..." if len(first) > 3 else "")


def _unpickled_tensors(data: bytes, path: Path) -> object:
    """What torch.save wrote, by the unpickler that makes tensors and plain containers and nothing else."""
    if is_torchscript(data):
        raise JudgeError(
            f"{path} is a TorchScript program, which runs code of its own. If you trust where it comes from "
            "and it is an Inception trunk for FID, load it with kind='torchscript-trunk'; otherwise give a "
            "state dict."
        )
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
    ):
        # torch's message would recommend to switch the safe unpickler off
        raise JudgeError(
            f"{path} is damaged, or no file of tensors alone: torch's weights-only reader refuses it. "
            "Download it again, or save the network's state_dict() alone."
        ) from None


def _described(value: object) -> str:
    return (
        "nothing" if isinstance(value, Mapping) and not value else f"an object of type {type(value).__name__}"
    )
