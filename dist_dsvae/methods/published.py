"""Published models: a directory with weights and plain JSON, safe to load from anyone.

    model.safetensors   every parameter and buffer, by its name in the method; among them, but in
                        older models, what the decoder's batch norm uses for codes of images and of
                        the prior; the encoders' running statistics, where they could be measured, are
                        those of these weights on training images
    config.json         format, method, model, shape of a sample, names of the classes, how faces were
                        cut out of photographs (face_crops, if they were), and (about) where the model
                        comes from, for its model card

Nothing in it is ever unpickled or executed: other files in the directory are not even opened.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from dist_dsvae.config import MethodConfig, ModelConfig
from dist_dsvae.config.reading import from_tree, to_tree
from dist_dsvae.core.faces.crop_record import RECORD_KEY, FaceCrops
from dist_dsvae.core.files import write_atomically
from dist_dsvae.core.text import clause, read_json
from dist_dsvae.core.types import CodeKind, ImageShape
from dist_dsvae.methods.abilities import Generative
from dist_dsvae.methods.choose import make_method, sketch_method

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
FORMAT = "dist_dsvae/1"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_LARGEST_CONFIG = 2**26  # bytes: of more classes than anybody has


class PublishedModelError(ValueError):
    """A directory that is no published model, or a damaged one; the message says what is wrong."""


@dataclass(frozen=True)
class _Described:
    """The part of config.json whose kind its own ``name`` tells."""

    method: MethodConfig


class Published(NamedTuple):
    """A published model.

    method: one of ``methods.choose``; ``methods.abilities`` says what it can do.
    shape: of its samples. classes: their names, in the order of the labels.
    config, model: what ``method`` was made from.
    about: JSON on where it comes from (``pretrained.card`` reads it); believed by nobody else.
    place: the directory, or the repository of a hub, that it was read from; "" for what was not.
    face_crops: how its training images were cut out of photographs, if they are faces and it is known.
    """

    method: nn.Module
    shape: ImageShape
    classes: tuple[str, ...]
    config: MethodConfig
    model: ModelConfig
    about: Mapping[str, Any]
    place: str = ""
    face_crops: FaceCrops | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """For other processes: networks go by their state, as torch pickles no spectral norms."""
        return _unpickled, (self._replace(method=None)._asdict(), self.method.state_dict())  # type: ignore[arg-type]


def save_published(published: Published, directory: Path) -> None:
    """Write a model into ``directory`` (made if it is missing), whatever device it is on.

    Raises PublishedModelError where its files would replace others than an earlier model's.
    """
    check_replaceable(directory)
    directory.mkdir(parents=True, exist_ok=True)
    state = published.method.state_dict()
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    description: dict[str, Any] = {
        "format": FORMAT,
        "method": to_tree(published.config),
        "model": to_tree(published.model),
        "shape": published.shape._asdict(),
        "classes": list(published.classes),
        "about": dict(published.about),
    }
    if published.face_crops is not None:
        description[RECORD_KEY] = published.face_crops.to_tree()
    _write_weights(directory / WEIGHTS_FILE, tensors)
    write_atomically(directory / CONFIG_FILE, f"{json.dumps(description, indent=1)}\n".encode())


def halve(directory: Path) -> None:
    """Store a saved model's weights as float16, half the bytes: they are float32 again when it is loaded.

    Raises PublishedModelError for weights that float16 cannot hold.
    """
    place = directory / WEIGHTS_FILE
    tensors = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in load_file(place).items()
    }
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise PublishedModelError(
                f"{name} has values beyond 65504, the largest of float16; leave --half."
            )
    _write_weights(place, tensors)


def _write_weights(place: Path, tensors: dict[str, Tensor]) -> None:
    """Whole or not at all: an earlier model's weights stay where the disk is full. Raises OSError."""
    write_atomically(place, save(tensors, metadata={"format": FORMAT}))


def check_replaceable(directory: Path) -> None:
    """Raise PublishedModelError where saving to ``directory`` would replace files that are no model's."""
    config, weights = directory / CONFIG_FILE, directory / WEIGHTS_FILE
    try:
        if config.exists():
            _read_description(directory)
        if weights.exists():
            with safe_open(weights, framework="pt") as opened:
                if (opened.metadata() or {}).get("format") != FORMAT:
                    raise PublishedModelError(f"{weights} is none of this program's")
    except (PublishedModelError, OSError, SafetensorError) as error:
        raise PublishedModelError(
            f"A model cannot be saved to {directory}: a file of its name there is no published model's "
            f"({error}). Choose another folder."
        ) from None


def load_published(directory: str | Path) -> Published:
    """The method, in evaluation mode on the CPU, and what it was made for.

    Before anything is allocated, the sizes that config.json asks for are compared with the header of the
    weights, so a crafted file asks for no more memory than it has bytes.
    Raises PublishedModelError if files are missing, damaged, or do not fit each other, and for weights that
    are not finite.
    """
    directory = Path(directory)
    description = _read_description(directory)
    try:
        shape = _shape(description["shape"])
        classes = _classes(description["classes"])
        about = dict(description.get("about", {}))
        face_crops = _face_crops(description, shape)
        model = from_tree(ModelConfig, description["model"])
        config = from_tree(_Described, {"method": description["method"]}).method
        sketch = sketch_method(config, model, shape, len(classes))
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else clause(error)
        raise PublishedModelError(
            f"{directory / CONFIG_FILE} does not describe a model: {what}. Copy it again, or export the run "
            "again."
        ) from None
    weights = directory / WEIGHTS_FILE
    try:
        sizes = _sizes(weights)
        _make_room(sketch, sizes)
        expected = {name: tuple(tensor.shape) for name, tensor in sketch.state_dict().items()}
        if sizes != expected:
            raise PublishedModelError(
                f"{weights} does not fit {CONFIG_FILE} beside it: names or shapes of its tensors differ from "
                f"those of {model.architecture} with {len(classes)} classes. Export the model again."
            )
        tensors = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise PublishedModelError(
            f"{weights} cannot be read ({error}). A published model is a directory with {WEIGHTS_FILE} and "
            f"{CONFIG_FILE}, as `dsvae export` writes it."
        ) from None
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            continue
        if tensor.dtype not in _FLOATS:
            kinds = ", ".join(str(kind).removeprefix("torch.") for kind in _FLOATS)
            raise PublishedModelError(
                f"{weights} holds {name} as {str(tensor.dtype).removeprefix('torch.')}; allowed are {kinds}. "
                "Export the model again, with --half for the smallest of these."
            )
        if not tensor.isfinite().all():
            raise PublishedModelError(
                f"{weights} holds values of {name} that are infinite or no numbers: the model was exported "
                "from a run that had failed, or damaged since. Export an earlier checkpoint."
            )
    method = _made(config, model, shape, classes, tensors)
    return Published(method, shape, classes, config, model, about, face_crops=face_crops)


def _made(
    config: MethodConfig,
    model: ModelConfig,
    shape: ImageShape,
    classes: tuple[str, ...],
    tensors: Mapping[str, Tensor],
) -> nn.Module:
    """The method in evaluation mode, with these weights, on the CPU."""
    # a caller's inference mode would make weights that no gradient goes through, as inpainting needs it
    with torch.inference_mode(False), torch.no_grad():
        with torch.random.fork_rng(devices=[]):  # whoever opens a model goes on with the numbers of before
            method = make_method(config, model, shape, len(classes))
        _make_room(method, tensors)
        method.load_state_dict(tensors)
    return method.eval()


def _unpickled(fields: dict[str, Any], tensors: Mapping[str, Tensor]) -> Published:
    method = _made(fields["config"], fields["model"], fields["shape"], fields["classes"], tensors)
    device = next(iter(tensors.values())).device
    return Published(**{**fields, "method": method.requires_grad_(False).to(device)})


def _shape(found: Mapping[str, Any]) -> ImageShape:
    shape = ImageShape(**found)
    if not all(type(size) is int for size in shape):
        raise ValueError(f"shape is {dict(found)}, but sizes are whole numbers")
    return shape


def _face_crops(description: Mapping[str, Any], shape: ImageShape) -> FaceCrops | None:
    found = FaceCrops.from_document(description)
    if found is not None and (shape.height, shape.width) != (found.alignment.size, found.alignment.size):
        raise ValueError(
            f"{RECORD_KEY}.size is {found.alignment.size}, which is not the size of its pictures"
        )
    return found


def _classes(names: Any) -> tuple[str, ...]:
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError("classes must be a list of names")
    classes = tuple(names)
    if len(set(classes)) < len(classes):
        twice = next(name for name, count in Counter(classes).items() if count > 1)
        raise ValueError(f"the class {twice!r} is there twice")
    return classes


def _sizes(weights: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor, from the header alone."""
    with safe_open(weights, framework="pt") as opened:
        return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118


def _make_room(method: nn.Module, names: Iterable[str]) -> None:
    """Let the decoder have statistics of the kinds of codes that there are tensors of, if any."""
    if isinstance(method, Generative):
        present, decoder = set(names), method.decoding_network()
        for kind in get_args(CodeKind):
            if f"decoder.statistics.{kind}.mean_0" in present:
                decoder.set_statistics(kind, decoder.blank_statistics())


def _read_description(directory: Path) -> dict[str, Any]:
    path = directory / CONFIG_FILE
    try:
        description = read_json(path, max_bytes=_LARGEST_CONFIG)
    except (OSError, ValueError) as error:
        raise PublishedModelError(
            f"{directory} is no published model: {CONFIG_FILE} cannot be read ({error}). "
            "`dsvae export` makes one from a run."
        ) from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise PublishedModelError(
            f"{path} is not of the format {FORMAT!r}. Export the model again with this version."
        )
    return description
