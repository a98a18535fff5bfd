"""Encoder and decoder as torch.export programs, which run without this package, checked against the model.

    encoder.pt2   images [N, C, H, W] float in [-1, 1]  ->  zs, mean and log-variance of zu
                  (images, labels [N] int64 where the encoder is told the label)
    decoder.pt2   zs [N, zs_dim], zu [N, zu_dim]        ->  images

N is free. Batch norm is that for codes of pictures; of a cgan, which encodes none, that for samples.
``torch.export.load("decoder.pt2").module()(zs, zu)`` runs one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.export import Dim

from dist_dsvae.core.types import CodeKind
from dist_dsvae.methods.abilities import Autoencoding, Generative, LabelFree

if TYPE_CHECKING:
    from dist_dsvae.pretrained.model import PretrainedModel

_TRACED, _CHECKED = 3, 5  # rows: the check is on another number than the program was traced with
_TOLERANCE = 1e-4


class ProgramError(ValueError):
    """An exported program does not compute what the model does."""


class _Decoder(nn.Module):
    def __init__(self, method: Generative) -> None:
        super().__init__()
        self.method = method

    def forward(self, zs: Tensor, zu: Tensor) -> Tensor:
        kind: CodeKind = "images" if isinstance(self.method, Autoencoding) else "prior"
        return self.method.decode(torch.cat([zs, zu], dim=1), kind)


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


def save_programs(model: PretrainedModel, directory: Path) -> str:
    """Write what the model has of encoder.pt2 and decoder.pt2; returns a sentence on them.

    Raises ProgramError where a program, read back, differs from the model by more than 1e-4 (and then
    leaves no file of it), and RequestError for a model that makes no pictures.
    """
    method: object = model.published.method
    shape = model.shape
    generator = torch.Generator().manual_seed(0)
    codes = tuple(torch.randn(_CHECKED, width, generator=generator) for width in model.code_dims)
    dims = (shape.channels, shape.height, shape.width) if shape.is_image else (shape.channels,)
    images = torch.rand(_CHECKED, *dims, generator=generator) * 2 - 1
    labels = torch.arange(_CHECKED) % len(model.classes)
    assert isinstance(method, Generative)  # or code_dims would have raised
    networks: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {"decoder.pt2": (_Decoder(method), codes)}
    if isinstance(method, LabelFree):
        networks["encoder.pt2"] = (_LabelFreeEncoder(method), (images,))
    elif isinstance(method, Autoencoding):
        networks["encoder.pt2"] = (_Encoder(method), (images, labels))
    differences = [
        f"{name} (off by at most {_save(directory / name, network.eval(), inputs):.1g})"
        for name, (network, inputs) in networks.items()
    ]
    return f"Wrote {' and '.join(differences)}, compared with the model."


def _save(path: Path, network: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """Export, write, read back and compare; the largest difference, of any output."""
    device = next(network.parameters()).device
    inputs = tuple(tensor.to(device) for tensor in inputs)
    batch = Dim("batch", min=1)
    with torch.no_grad():
        program = torch.export.export(
            network,
            tuple(tensor[:_TRACED] for tensor in inputs),
            dynamic_shapes=tuple({0: batch} for _ in inputs),
        )
        torch.export.save(program, path)
        expected, got = network(*inputs), torch.export.load(path).module()(*inputs)
    pairs = zip(_tensors(expected), _tensors(got), strict=True)
    difference = max(float((ours - theirs).abs().max()) for ours, theirs in pairs)
    if not difference <= _TOLERANCE:  # also a NaN
        path.unlink()
        raise ProgramError(
            f"The program written to {path} differs from the model by {difference:g}, more than "
            f"{_TOLERANCE:g} allows; it was removed. Use the model itself, from Python."
        )
    return difference


def _tensors(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
