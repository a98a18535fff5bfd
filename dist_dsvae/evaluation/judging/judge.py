"""Judges: fixed networks that turn images into logits and features, loaded from local files of weights.

    images [-1, 1] -> three channels -> resized and scaled as the network was trained -> Scores

Inception Score needs logits, FID features, identity a face embedding. Nothing is downloaded.

| kind                | weights                                                  | logits | features      |
|---------------------|----------------------------------------------------------|--------|---------------|
| `facenet`           | Inception-ResNet-v1 in facenet-pytorch's layout          | if any | 512, length 1 |
| `inception-v3`      | torchvision's inception_v3                               | 1000   | 2048          |
| `inception-v3-tf`   | the same layout, weights trained in TensorFlow           | 1000   | 2048          |
| `fid-inception`     | the FID Inception of 2015-12-05, torch-fidelity's layout | 1008   | 2048          |
| `torchscript-trunk` | an Inception trunk for FID as a TorchScript program      | none   | 2048          |

Figures of different kinds, or of different files of one kind, must not be compared: write `name` and `sha256`
beside every figure.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dist_dsvae.evaluation.judging.scoring_networks import (
    INCEPTION_FEATURES,
    INCEPTION_SIDE,
    FaceScores,
    FidelityScores,
    InceptionV3Scores,
    TrunkScores,
    empty_face_network,
    empty_inception_v3,
)
from dist_dsvae.evaluation.judging.weight_files import (
    JudgeError,
    fill,
    is_torchscript,
    parse_tensors,
    read_file,
    some,
)
from dist_dsvae.models.classifiers.inception_resnet_v1 import NUM_FEATURES as FACE_FEATURES

FACENET = "facenet"
INCEPTION = "inception-v3"
INCEPTION_TF = "inception-v3-tf"
FID_INCEPTION = "fid-inception"
TORCHSCRIPT = "torchscript-trunk"
KINDS = (FACENET, INCEPTION, INCEPTION_TF, FID_INCEPTION, TORCHSCRIPT)

FID_CLASSES = 1008
IMAGENET_CLASSES = 1000


class Scores(NamedTuple):
    """What a judge says about N images, float32."""

    logits: Tensor | None  # [N, C]; None for a network without a classifier
    features: Tensor  # [N, d]


@dataclass(frozen=True)
class Judge:
    """A network in evaluation mode, and where its weights come from.

    ``network`` maps RGB images [N, 3, H, W] in [-1, 1] to (logits or None, features), resizing included.
    """

    name: str  # kind and name of the file
    sha256: str  # of the file
    num_classes: int | None
    num_features: int
    network: nn.Module

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Scores:
        """Scores of images [N, C, H, W] with C 1 or 3, floating, in [-1, 1], on the network's device.

        Grey images are repeated to three channels. Computed in float32 also under autocast and where TF32 is
        allowed, all N at once: the caller chooses how many fit in memory.

        Raises JudgeError for another shape or type.
        """
        if images.dim() != 4 or images.shape[1] not in (1, 3) or not images.is_floating_point():
            raise JudgeError(
                f"the judge {self.name} got a tensor {list(images.shape)} of {images.dtype}; it takes "
                "images [N, C, H, W] with 1 or 3 channels as floating-point values in [-1, 1]."
            )
        rgb = images.float().expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, enabled=False), _plain_float32():
            logits, features = self.network(rgb)
        return Scores(logits, features)


def load_judge(path: str | Path, *, device: torch.device | str, kind: str | None = None) -> Judge:
    """The judge whose weights are in the file ``path``, on ``device``.

    Without ``kind`` the layout is told from the names and shapes of the tensors. Two cannot be told:
    ``inception-v3-tf`` looks like ``inception-v3`` (which is assumed), and ``torchscript-trunk`` is a program
    that runs code of its own and therefore has to be asked for: only load one from a source you trust.
    Other files (.safetensors; .pt and .pth through torch's weights-only reader) execute nothing.

    Raises JudgeError if the file is missing, unreadable, or of a layout that is unknown or not that of
    ``kind``; also if ``fid-inception`` lacks its package.
    """
    path = Path(path)
    if kind is not None and kind not in KINDS:
        raise JudgeError(
            f"there is no kind of judge {kind!r} (for {path}); the kinds are {', '.join(KINDS)}."
        )
    data, sha256 = read_file(path)
    if kind == TORCHSCRIPT:
        network = _torchscript_trunk(data, path, device)
        num_classes, num_features = None, INCEPTION_FEATURES
    else:
        tensors = parse_tensors(data, path)
        kind = kind or _detect(tensors, path)
        network = _from_tensors(kind, tensors, path)
        rows = tensors.get("logits.weight" if kind == FACENET else "fc.weight")
        num_classes = None if rows is None else rows.shape[0]
        num_features = FACE_FEATURES if kind == FACENET else INCEPTION_FEATURES
    network = network.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    return Judge(f"{kind}:{path.stem}", sha256, num_classes, num_features, network)


def _detect(tensors: Mapping[str, Tensor], path: Path) -> str:
    """The kind whose layout these tensors have, by one name that only it has and by the number of classes."""
    if "repeat_1.0.branch0.conv.weight" in tensors:
        return FACENET
    if "Mixed_5b.branch_pool.conv.weight" in tensors:
        return FID_INCEPTION if _num_rows(tensors, "fc.weight") == FID_CLASSES else INCEPTION
    raise JudgeError(
        f"{path} has no known layout: its {len(tensors)} tensors are {some(sorted(tensors))}. Known are "
        "facenet-pytorch's Inception-ResNet-v1, torchvision's inception_v3 and torch-fidelity's FID "
        "Inception; give a file of one of these, without prefixes in its names."
    )


def _from_tensors(kind: str, tensors: Mapping[str, Tensor], path: Path) -> nn.Module:
    if kind == FACENET:
        face_network = empty_face_network(_num_rows(tensors, "logits.weight"))
        fill(face_network, tensors, path, kind)
        return FaceScores(face_network)
    if kind == FID_INCEPTION:
        fill(
            empty_inception_v3(FID_CLASSES, aux_logits=False), tensors, path, kind
        )  # the same names and shapes
        try:
            return FidelityScores(tensors)
        except ImportError as error:
            raise JudgeError(
                f"{path} holds the FID Inception, which runs in the package torch-fidelity, and that cannot "
                f'be imported ({error}). Install it: pip install "dist_dsvae[evaluate]"'
            ) from None
    num_classes = _num_rows(tensors, "fc.weight") or IMAGENET_CLASSES
    aux_logits = any(name.startswith("AuxLogits.") for name in tensors)
    inception = empty_inception_v3(num_classes, aux_logits=aux_logits)
    fill(inception, tensors, path, kind)
    return InceptionV3Scores(inception, tensorflow_pools=kind == INCEPTION_TF)


def _num_rows(tensors: Mapping[str, Tensor], name: str) -> int | None:
    """How many classes a matrix of that name tells apart; None if there is no such matrix."""
    return tensors[name].shape[0] or None if name in tensors and tensors[name].dim() else None


def _torchscript_trunk(data: bytes, path: Path, device: torch.device | str) -> nn.Module:
    if not is_torchscript(data):
        raise JudgeError(
            f"{path} is no TorchScript program, which kind={TORCHSCRIPT!r} asks for; leave the kind out for "
            "a file of tensors."
        )
    try:
        trunk = TrunkScores(torch.jit.load(io.BytesIO(data), map_location=device))  # type: ignore[no-untyped-call]
        with torch.no_grad():
            _, features = trunk(torch.zeros(1, 3, INCEPTION_SIDE, INCEPTION_SIDE, device=device))
        shape = list(features.shape)
    except (RuntimeError, ValueError, AttributeError) as error:
        reason = str(error).strip().splitlines()[-1]  # the lines before are the program's stack
        raise JudgeError(
            f"{path} is a TorchScript program that cannot be run on an image of "
            f"{INCEPTION_SIDE}x{INCEPTION_SIDE} pixels ({reason}); give an Inception trunk for FID."
        ) from None
    if shape != [1, INCEPTION_FEATURES]:
        raise JudgeError(
            f"{path} gives {shape} for one image; an Inception trunk for FID gives "
            f"[1, {INCEPTION_FEATURES}]. Give one that ends at the averaged features."
        )
    return trunk


@contextlib.contextmanager
def _plain_float32() -> Iterator[None]:
    """float32 as such in convolutions and matrix products, whatever shortcuts the process has allowed."""
    cudnn: Any = torch.backends.cudnn
    switches = (cudnn.conv, cudnn.rnn)  # both: torch refuses to tell its old switch while they differ
    before = [switch.fp32_precision for switch in switches]
    products_before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    for switch in switches:
        switch.fp32_precision = "ieee"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products_before)
        for switch, precision in zip(switches, before, strict=True):
            switch.fp32_precision = precision
