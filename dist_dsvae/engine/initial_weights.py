"""The weights that a new run takes over from another one, or from a published model, as fine-tuning does.

Networks with their buffers, and the moving average, come from there; optimisers, counters and the order of
the samples start afresh. An average with a ramp-up counts the new run's updates, so it soon follows these.

With other classes everything is taken but what belongs to a class: the mixture, the latent classifier's last
layer, the discriminator's embedding; in the baselines the columns of the one-hot label. Classes that both
know, by their names, keep theirs; the others begin anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from dist_dsvae.config import ExperimentConfig, MethodConfig, ModelConfig
from dist_dsvae.core.types import ImageShape
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.engine.iteration.ema import ExponentialMovingAverage
from dist_dsvae.methods.choose import sketch_method
from dist_dsvae.methods.conditional import first_class_place
from dist_dsvae.methods.published import WEIGHTS_FILE, load_published
from dist_dsvae.methods.update import averaged_networks, in_network, weights_of
from dist_dsvae.runs import checkpoint
from dist_dsvae.runs.marker import MARKER, CheckpointError
from dist_dsvae.runs.run import Run
from dist_dsvae.runs.run_directory import checkpoint_to_resume


class Taken(NamedTuple):
    """where: the checkpoint or the model. sentence: on what was taken, and what begins anew."""

    where: Path
    sentence: str


def take_weights(
    place: str,
    config: ExperimentConfig,
    method: nn.Module,
    ema: ExponentialMovingAverage | None,
    train: Manifest,
) -> Taken:
    """Load the weights at ``place``: a run, a checkpoint of one, or a published model; in place.

    config, method, ema, train: of the new run.
    Called by all ranks. Raises CheckpointError if there is none, or if its networks are not these;
    PublishedModelError for a model that is damaged.
    """
    shape, classes = train.shape, train.classes
    former = _former(place)
    _check_same_networks(former, config.method, config.model, shape, len(classes))
    keeps_average = ema is not None and former.averages(method, ema.networks)
    is_whole = former.run is not None and former.classes == classes
    axes = {} if is_whole else _class_axes(config.method, config.model, shape)
    if is_whole:
        tensors: dict[str, Any] = {"method": method.state_dict()}
        if ema is not None and keeps_average:
            tensors["ema"] = ema.averaged
        checkpoint.load(former.where, tensors)
    else:
        networks = ema.networks if ema is not None and keeps_average else ()
        weights, averages = former.read(networks)
        place_of = {name: there for there, name in enumerate(former.classes)}
        places = {here: place_of[name] for here, name in enumerate(classes) if name in place_of}
        transfer = _Transfer(axes, shape, places, len(former.classes), len(classes))
        transfer.into(method.state_dict(), weights)
        _converge_spectral_norms(method, axes)
        if ema is not None and keeps_average:
            prefix = f"{networks[0]}." if not in_network(networks, networks[0]) else ""
            live = {f"{prefix}{name}": tensor for name, tensor in ema.averaged.items()}
            transfer.into(live, {f"{prefix}{name}": tensor for name, tensor in averages.items()})
    if ema is not None and not keeps_average:
        ema.restart()
    return Taken(former.where, _sentence(former, axes, classes))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Former:
    """Where weights come from.

    run: its configuration; None for a published model. weights: of a published model.
    """

    where: Path
    run: ExperimentConfig | None
    method: MethodConfig
    model: ModelConfig
    shape: ImageShape
    classes: tuple[str, ...]
    weights: Mapping[str, Tensor]

    def sketch(self, num_classes: int) -> nn.Module:
        """Its method for so many classes, without memory."""
        return sketch_method(self.method, self.model, self.shape, num_classes)

    def averages(self, method: nn.Module, networks: tuple[str, ...]) -> bool:
        """Whether it keeps a moving average of these networks. A published model's weights may be one."""
        train = None if self.run is None else self.run.train
        return train is not None and train.averages and averaged_networks(method, train) == networks

    def read(self, averaged: tuple[str, ...]) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """All weights, and the averages of the networks ``averaged``, as ``weights_of`` names them."""
        if self.run is None:
            return self.weights, {}
        sketch = self.sketch(len(self.classes))
        sketch.to(torch.float64 if self.run.train.double_precision else torch.float32)
        state = {name: torch.empty_like(t, device="cpu") for name, t in sketch.state_dict().items()}
        average = {
            name: torch.empty_like(t, device="cpu") for name, t in weights_of(sketch, averaged).items()
        }
        checkpoint.load(self.where, {"method": state} | ({"ema": average} if averaged else {}))
        return state, average


def _former(source: str) -> _Former:
    given = Path(source)
    if (given / WEIGHTS_FILE).is_file():
        published = load_published(given)
        return _Former(
            where=given,
            run=None,
            method=published.config,
            model=published.model,
            shape=published.shape,
            classes=published.classes,
            weights=published.method.state_dict(),
        )
    is_checkpoint = (given / MARKER).is_file()
    run_dir = given.parent.parent if is_checkpoint else given
    run = Run.open(run_dir)
    chosen = checkpoint_to_resume(run_dir, str(given) if is_checkpoint else "auto")
    if chosen is None:
        raise CheckpointError(
            f"{run_dir} has no checkpoint yet, so its weights cannot be taken. Train it first."
        )
    return _Former(
        where=chosen,
        run=run.config,
        method=run.config.method,
        model=run.config.model,
        shape=run.shape,
        classes=run.classes,
        weights={},
    )


def _shapes(method: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in method.state_dict().items()}


def _check_same_networks(
    former: _Former, method: MethodConfig, model: ModelConfig, shape: ImageShape, num_classes: int
) -> None:
    """Raise CheckpointError unless the networks differ in the number of classes alone."""
    if former.shape != shape:
        raise CheckpointError(
            f"{former.where} was trained on {_text(former.shape)} samples, but data.train has {_text(shape)} "
            "samples. Build the shards with its --size and --channels, or train without it."
        )
    if (former.model, former.method.name) != (model, method.name):
        raise CheckpointError(
            f"{former.where} has the method {former.method.name} with {former.model}, but this config has "
            f"{method.name} with {model}. Set model.* and method.name as they are there."
        )
    there = _shapes(former.sketch(num_classes))
    here = _shapes(sketch_method(method, model, shape, num_classes))
    differing = next((name for name in {**there, **here} if there.get(name) != here.get(name)), None)
    if differing is not None:
        raise CheckpointError(
            f"{former.where} has other networks than this config: {differing} is "
            f"{_text(there.get(differing, ()))} there and {_text(here.get(differing, ()))} here. Set method "
            f"as it is there: {former.method}."
        )


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "missing"


# What belongs to classes


def _class_axes(method: MethodConfig, model: ModelConfig, shape: ImageShape) -> dict[str, int]:
    """Name of a tensor with an axis along which the classes lie -> that axis."""
    few, more = (_shapes(sketch_method(method, model, shape, count)) for count in (2, 3))
    return {
        name: next(axis for axis, (a, b) in enumerate(zip(few[name], more[name], strict=True)) if a != b)
        for name in few
        if few[name] != more[name]
    }


@dataclass(frozen=True, slots=True)
class _Transfer:
    """Copies tensors between methods of different classes.

    axes: as of ``_class_axes``. places: of a class here -> there, for those that both know.
    """

    axes: Mapping[str, int]
    shape: ImageShape
    places: Mapping[int, int]
    num_there: int
    num_here: int

    @torch.no_grad()
    def into(self, live: Mapping[str, Tensor], former: Mapping[str, Tensor]) -> None:
        """Into every tensor of ``live`` what ``former`` has for it; what it has not stays."""
        for name, tensor in live.items():
            if name not in self.axes:
                tensor.copy_(former[name])
                continue
            axis, first = self.axes[name], first_class_place(name.split(".")[0], self.shape)
            here, there = tensor.movedim(axis, 0), former[name].movedim(axis, 0)
            here[:first].copy_(there[:first])
            here[first + self.num_here :].copy_(there[first + self.num_there :])
            for own, other in self.places.items():
                here[first + own].copy_(there[first + other])


def _converge_spectral_norms(method: nn.Module, axes: Mapping[str, int]) -> None:
    """Weights of which a part is new have other singular vectors than those that came with the rest."""
    for name in axes:
        if name.endswith(".parametrizations.weight.original"):
            norms = cast(Any, method.get_submodule(name.removesuffix(".original")))
            norms[0].converge(norms.original)


def _sentence(former: _Former, axes: Mapping[str, int], classes: tuple[str, ...]) -> str:
    if former.classes == classes:
        return f"Starts from the weights of {former.where}."
    names = _shapes(former.sketch(2))
    taken = dict.fromkeys(name.split(".")[0] for name in names if name not in axes)
    anew = dict.fromkeys(_module_of(name) for name in axes)
    known = len(set(classes) & set(former.classes))
    what = ", ".join(anew)
    if known == len(classes):
        rest = f"what belongs to classes ({what}) by their names"
    elif known:
        rest = f"what belongs to classes ({what}) by name for {known} of {len(classes)}, anew for the others"
    else:
        rest = f"what belongs to classes begins anew: {what}"
    return f"Starts from the weights of {former.where}: takes {', '.join(taken)}; {rest}."


def _module_of(name: str) -> str:
    """The module that a tensor belongs to, without what spectral norm puts between."""
    module, _, inner = name.partition(".parametrizations")
    return module if inner else module.rpartition(".")[0]
