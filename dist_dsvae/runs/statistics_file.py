"""The statistics of a checkpoint's encoders and decoder, measured once and kept beside it.

    <run>/statistics/step-00001000-ema.safetensors   the decoder's, by kind of codes: "images.mean_0", ...
                                                     the encoders', by name: "encoder_u.mean_0", ...
                                                     metadata: format, and of which checkpoint they are

Encoding thousands of pictures takes a CPU a while; whoever draws from the same checkpoint next finds them
here. A file of another format is nobody's to overwrite; one of another checkpoint (a run was set back and
trained anew), a damaged one with our mark, or one from before encoders were measured is replaced.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from dist_dsvae.core import distributed
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.files import sha256_of, write_atomically
from dist_dsvae.core.text import parse_json
from dist_dsvae.core.types import CodeKind
from dist_dsvae.data.open_split import open_split
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.methods.abilities import Autoencoding, Generative
from dist_dsvae.models.norm_statistics import Moments, Statistics, batch_norms
from dist_dsvae.runs.checkpoint import MARKER
from dist_dsvae.runs.measure_statistics import Measured, measure, measure_or_warn
from dist_dsvae.runs.run import Run

logger = logging.getLogger(__name__)

FORMAT = "dist_dsvae-statistics/1"
_MAX_HEADER_BYTES = 2**20


def measured_of_checkpoint(checkpoint: Path, method: nn.Module, weights: str) -> Measured:
    """For drawing: the statistics of ``method`` in evaluation mode, with the weights of a checkpoint.

    weights: "ema" or "raw". Called by all ranks; rank 0 measures what is not there, so that all draw
    the same to the bit. Where the run's training split cannot be read, a warning says so, and those of
    images, the encoders' among them, are missing.
    """
    config = Run.of_checkpoint(checkpoint).config
    found = Measured()
    if distributed.is_main():
        found = load_measured(checkpoint, method, weights)
        if not _is_complete(found, method):
            skip = config.data.replaces_corrupt
            found = measure_or_warn(method, lambda: _training_split(checkpoint), skip_corrupt=skip)
            save_measured(checkpoint, weights, found)
    return _on_device(distributed.broadcast_object(_on_device(found, None)), method)


def measured_for_evaluation(
    checkpoint: Path, method: nn.Module, weights: str, train: Manifest, *, skip_corrupt: bool
) -> Measured:
    """The same, measured by all ranks together where it is not there, from a split that is known to be."""
    found = load_measured(checkpoint, method, weights) if distributed.is_main() else Measured()
    found = _on_device(distributed.broadcast_object(_on_device(found, None)), method)
    if not _is_complete(found, method):
        found = measure(method, train, skip_corrupt=skip_corrupt)
        if distributed.is_main():
            save_measured(checkpoint, weights, found)
    return found


def load_measured(checkpoint: Path, method: nn.Module, weights: str) -> Measured:
    """What is kept of a checkpoint; nothing if that is of another, does not fit, or cannot be read."""
    path = _path(checkpoint, weights)
    if not path.is_file():
        return Measured()
    networks = _networks(method)
    found: dict[str, Statistics] = {}
    try:
        with safe_open(path, framework="pt") as opened:
            if opened.metadata() != _metadata(checkpoint, weights):
                return Measured()
            names = set(opened.keys())
            for group, network in networks.items():
                if f"{group}.mean_0" in names:
                    found[group] = tuple(
                        Moments(
                            opened.get_tensor(f"{group}.mean_{i}"), opened.get_tensor(f"{group}.variance_{i}")
                        )
                        for i in range(len(batch_norms(network)))
                    )
    except (OSError, SafetensorError) as error:
        logger.warning("%s cannot be read (%s) and is not used.", path, error)
        return Measured()
    if not all(_fits(statistics, networks[group]) for group, statistics in found.items()):
        return Measured()
    return _on_device(_measured(found), method)


def save_measured(checkpoint: Path, weights: str, measured: Measured) -> None:
    """Keep statistics, whole or not at all; not in place of a foreign file, nor where writing fails."""
    path = _path(checkpoint, weights)
    groups = _groups(measured)
    if not groups or (path.exists() and not _is_ours(path)):
        return
    tensors = {
        f"{group}.{name}_{number}": tensor.cpu().contiguous()
        for group, statistics in groups.items()
        for number, moments in enumerate(statistics)
        for name, tensor in moments._asdict().items()
    }
    try:
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, save(tensors, _metadata(checkpoint, weights)))
    except OSError as error:
        logger.info("%s cannot be kept (%s); it will be measured again.", path, error.strerror)


def _path(checkpoint: Path, weights: str) -> Path:
    return checkpoint.parent.parent / "statistics" / f"{checkpoint.name}-{weights}.safetensors"


def _metadata(checkpoint: Path, weights: str) -> dict[str, str]:
    """The marker has the checksums of everything in the checkpoint, so its own stands for all of it."""
    digest = sha256_of(checkpoint / MARKER)
    return {"format": FORMAT, "checkpoint": checkpoint.name, "sha256": digest, "weights": weights}


def _is_ours(path: Path) -> bool:
    """Whether a file, damaged or not, says at its beginning that this module wrote it."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = parse_json(file.read(min(length, _MAX_HEADER_BYTES)))
        return bool(header["__metadata__"]["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _training_split(checkpoint: Path) -> Manifest:
    """The split that the run was trained on. Raises DataError if it is not there as it was."""
    run = Run.of_checkpoint(checkpoint)
    train = open_split(run.config.data.train, run.config.data)
    trained_on = (run.shape, run.classes, run.fingerprint or train.fingerprint)
    if (train.shape, train.classes, train.fingerprint) != trained_on:
        raise DataError(f"the shards in {train.location} are not those that {run.directory} was trained on")
    return train


def _networks(method: nn.Module) -> dict[str, nn.Module]:
    """What there are statistics of, by the names of ``_groups``: networks with batch norm."""
    found: dict[str, nn.Module] = {}
    if isinstance(method, Generative):
        found["prior"] = method.decoding_network()
    if isinstance(method, Autoencoding):
        found |= {"images": method.decoding_network(), **method.encoding_networks()}
    return {group: network for group, network in found.items() if batch_norms(network)}


def _is_complete(found: Measured, method: nn.Module) -> bool:
    return _networks(method).keys() <= _groups(found).keys()


def _fits(statistics: Statistics, network: nn.Module) -> bool:
    shapes = [norm.weight.shape for norm in batch_norms(network)]
    return [m.mean.shape for m in statistics] == shapes == [m.variance.shape for m in statistics]


def _groups(measured: Measured) -> dict[str, Statistics]:
    """All statistics, by kind of codes or by encoder."""
    return {**dict[str, Statistics](measured.decoder.items()), **measured.encoders}


def _measured(groups: Mapping[str, Statistics]) -> Measured:
    """What ``_groups`` took apart."""
    kinds: tuple[CodeKind, ...] = get_args(CodeKind)
    return Measured(
        {kind: groups[kind] for kind in kinds if kind in groups},
        {name: statistics for name, statistics in groups.items() if name not in kinds},
    )


def _on_device(measured: Measured, method: nn.Module | None) -> Measured:
    """Where, and as precise as, the method's weights are; None: on the CPU."""
    parameter = None if method is None else next(method.parameters())
    moved = {
        group: tuple(
            Moments(*(t.cpu() if parameter is None else t.to(parameter) for t in moments))
            for moments in statistics
        )
        for group, statistics in _groups(measured).items()
    }
    return _measured(moved)
