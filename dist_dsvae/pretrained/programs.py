"""A model's networks as programs that run without this package, checked against the model when written.

    encoder   images [N, C, H, W] float in [-1, 1]  ->  zs, mean and log-variance of zu
              (images, labels [N] int64 where the encoder is told the label)
    decoder   zs [N, zs_dim], zu [N, zu_dim]        ->  images
    sampler   labels [N] int64, standard normal numbers [N, zs_dim] and [N, zu_dim]  ->  images, zs
              zs of numbers that are all 0 is the mean of the class

N is free. The sampler uses the batch norm for codes of the prior, the decoder that for codes of pictures (of
a cgan, which encodes none, that of the prior). Kinds of files: ``.pt2``, which torch.export.load reads, and
``.onnx`` for ONNX Runtime and others; both are made of one trace.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from dist_dsvae.core.noise import Draw
from dist_dsvae.core.types import CodeKind
from dist_dsvae.methods.abilities import Autoencoding, Generative, LabelFree

if TYPE_CHECKING:
    from dist_dsvae.pretrained.model import PretrainedModel

ProgramKind = Literal["pt2", "onnx"]
Run = Callable[..., tuple[Tensor, ...]]

_TRACED, _CHECKED = 3, 5  # rows: the check is on another number than the program was traced with
_UNIT = 2.0**-24  # by how much float32 rounds, at most, as a share
_DEVIATIONS = 5.0  # one value in two million is further off
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class ProgramError(ValueError):
    """A program that cannot be made here, or does not compute what the model does."""


class _Decoder(nn.Module):
    def __init__(self, method: Generative) -> None:
        super().__init__()
        self.method = method

    def forward(self, zs: Tensor, zu: Tensor) -> Tensor:
        code_kind: CodeKind = "images" if isinstance(self.method, Autoencoding) else "prior"
        return self.method.decode(torch.cat([zs, zu], dim=1), code_kind)


class _Sampler(nn.Module):
    def __init__(self, method: Generative) -> None:
        super().__init__()
        self.method = method

    def forward(self, labels: Tensor, zs_noise: Tensor, zu_noise: Tensor) -> tuple[Tensor, Tensor]:
        codes = self.method.prior_codes(labels, _Given(zs_noise), _Given(zu_noise))
        return self.method.decode(codes, "prior"), codes[:, : zs_noise.shape[1]]


class _Given(NamedTuple):
    """Numbers that are given, in place of drawn ones."""

    numbers: Tensor

    def normal(self, draw: Draw, size: int) -> Tensor:
        return self.numbers


class _Encoder(nn.Module):
    def __init__(self, method: Autoencoding) -> None:
        super().__init__()
        self.method = method

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        zs, (mean, log_variance) = self.method.encode(images, labels)
        return zs, mean, log_variance


class _LabelFreeEncoder(nn.Module):
    def __init__(self, method: LabelFree) -> None:
        super().__init__()
        self.method = method

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        zs, (mean, log_variance) = self.method.encode_unlabelled(images)
        return zs, mean, log_variance


class _Part(NamedTuple):
    """One program: its network, example inputs by name, and the names of what it gives."""

    network: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]


def check_packages(kinds: Sequence[ProgramKind]) -> None:
    """Raise ProgramError if a package is missing that a kind of program needs to be made and checked."""
    missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if "onnx" in kinds and missing:
        raise ProgramError(
            f"ONNX programs need {', '.join(missing)}, not installed here: "
            'pip install "dist_dsvae[onnx]", or leave --onnx out.'
        )


def save_programs(model: PretrainedModel, directory: Path, kinds: Sequence[ProgramKind] = ("pt2",)) -> str:
    """Write what the model has of encoder, decoder and sampler, in each kind; returns a sentence on them.

    Raises ProgramError where a program, read back, differs from the model by more than rounding (and then
    leaves no file of it) or cannot be made, and RequestError for a model that makes no pictures.
    """
    check_packages(kinds)
    differences = []
    for name, part in _parts(model).items():
        program = _traced(part)
        for kind in kinds:
            path = directory / f"{name}.{kind}"
            (_save_pt2 if kind == "pt2" else _save_onnx)(program, part, path)
            run = _run_pt2(path) if kind == "pt2" else _run_onnx(path)
            differences.append(f"{path.name} (off by at most {_difference(path, run, part):.1g})")
    return f"Wrote {', '.join(differences)}, compared with the model."


def _parts(model: PretrainedModel) -> dict[str, _Part]:
    method: object = model.published.method
    shape = model.shape
    generator = torch.Generator().manual_seed(0)
    zs, zu, zs_noise, zu_noise = (
        torch.randn(_CHECKED, width, generator=generator) for width in (*model.code_dims, *model.code_dims)
    )
    dims = (shape.channels, shape.height, shape.width) if shape.is_image else (shape.channels,)
    images = torch.rand(_CHECKED, *dims, generator=generator) * 2 - 1
    labels = torch.arange(_CHECKED) % len(model.classes)
    assert isinstance(method, Generative)  # or code_dims would have raised
    noise = {"zs_noise": zs_noise, "zu_noise": zu_noise}
    parts = {
        "decoder": _Part(_Decoder(method), {"zs": zs, "zu": zu}, ("images",)),
        "sampler": _Part(_Sampler(method), {"labels": labels, **noise}, ("images", "zs")),
    }
    codes = ("zs", "zu_mean", "zu_log_variance")
    if isinstance(method, LabelFree):
        parts["encoder"] = _Part(_LabelFreeEncoder(method), {"images": images}, codes)
    elif isinstance(method, Autoencoding):
        parts["encoder"] = _Part(_Encoder(method), {"images": images, "labels": labels}, codes)
    device = next(model.published.method.parameters()).device
    return {
        name: part._replace(
            network=part.network.eval(), inputs={key: each.to(device) for key, each in part.inputs.items()}
        )
        for name, part in parts.items()
    }


def _traced(part: _Part) -> ExportedProgram:
    batch = Dim("batch", min=1)
    with torch.no_grad():
        return torch.export.export(
            part.network,
            tuple(tensor[:_TRACED] for tensor in part.inputs.values()),
            dynamic_shapes=tuple({0: batch} for _ in part.inputs),
        )


def _save_pt2(program: ExportedProgram, part: _Part, path: Path) -> None:
    torch.export.save(program, path)


def _run_pt2(path: Path) -> Run:
    network = torch.export.load(path).module()
    return lambda *inputs: _tensors(network(*inputs))


def _save_onnx(program: ExportedProgram, part: _Part, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporter, to its own developers
        torch.onnx.export(
            program,
            f=path,
            input_names=list(part.inputs),
            output_names=list(part.outputs),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _run_onnx(path: Path) -> Run:
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        given = {name: tensor.cpu().numpy() for name, tensor in zip(names, inputs, strict=True)}
        return tuple(torch.from_numpy(array) for array in session.run(None, given))

    return run


def _difference(path: Path, run: Run, part: _Part) -> float:
    """The largest, of any output, between a program that was read back and the model."""
    expected, allowed = computed(part.network, *part.inputs.values())
    pairs = list(zip(expected, run(*part.inputs.values()), allowed, strict=True))
    differences = [float((ours.cpu() - theirs.cpu()).abs().max()) for ours, theirs, _ in pairs]
    for difference, (_, _, bound) in zip(differences, pairs, strict=True):
        if not difference <= bound:  # also a NaN
            path.unlink()
            raise ProgramError(
                f"The program written to {path} differs from the model by {difference:g}, more than the "
                f"{bound:.2g} of rounding; it was removed. Use the model itself, from Python."
            )
    return max(differences)


def computed(network: nn.Module, *inputs: Tensor) -> tuple[tuple[Tensor, ...], tuple[float, ...]]:
    """What a network makes of ``inputs``, and how far sums in another order may take each output from it.

    A float32 sum of K products errs by some u sqrt(K / 6) of its size: each addition by up to u, u / sqrt(3)
    in the mean, of a partial sum whose square is half the last one's. Program and model err alike, layers
    independently of one another, and normalised layers pass errors on as they are: u sqrt(sum of K / 3),
    and ``_DEVIATIONS`` of that for the largest of all values; of 1, or of outputs that are larger.
    """
    terms: list[float] = []

    def count(layer: nn.Module, given: object, made: object) -> None:
        weight = cast(Tensor, layer.weight)
        if isinstance(layer, nn.ConvTranspose2d):
            terms.append(weight[:, 0].numel() / math.prod(layer.stride))
        else:
            terms.append(weight[0].numel())

    sums = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    hooks = [layer.register_forward_hook(count) for layer in network.modules() if isinstance(layer, sums)]
    with torch.no_grad():
        outputs = _tensors(network(*inputs))
    for hook in hooks:
        hook.remove()
    rounding = _DEVIATIONS * _UNIT * math.sqrt(sum(terms) / 3)
    return outputs, tuple(rounding * max(1.0, float(output.abs().max())) for output in outputs)


def _tensors(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
