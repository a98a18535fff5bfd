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
from dist_dsvae.runs.marker import MARKER
from dist_dsvae.runs.measure_statistics import Measured, for_samples, measure, measure_or_warn
from dist_dsvae.runs.run import Run

logger = logging.getLogger(__name__)

FORMAT = "dist_dsvae-statistics/1"
Groups = dict[str, Statistics]  # by kind of codes, or by encoder
_MAX_HEADER_BYTES = 2**20


def measured_of_checkpoint(checkpoint: Path, method: nn.Module, weights: str) -> Measured:
    """For drawing: the statistics of ``method`` in evaluation mode, with the weights of a checkpoint.

    weights: "ema" or "raw". Called by all ranks; rank 0 measures what is not there, so that all draw
    the same to the bit. Where the run's training split cannot be read, a warning says so, and those of
    images, the encoders' among them, are missing.
    """
    run = Run.open(checkpoint.parent.parent)

    def find() -> Groups:
        kept = _load(checkpoint, method, weights)
        if not kept.keys() >= _networks(method).keys():
            skip = run.config.data.replaces_corrupt
            kept = _groups(measure_or_warn(method, lambda: _training_split(run), skip_corrupt=skip))
            _save(checkpoint, weights, kept)
        return kept

    measured = _measured(distributed.from_main(find), method)
    as_images = run.config.evaluation.samples_as_images
    if as_images and isinstance(method, Autoencoding) and "images" not in measured.decoder:
        logger.warning("So samples are decoded with the statistics of the prior, not of pictures' codes.")
    return for_samples(measured, as_images=as_images)


def measured_for_evaluation(
    checkpoint: Path, method: nn.Module, weights: str, train: Manifest, *, skip_corrupt: bool
) -> Measured:
    """The same, measured by all ranks together where it is not there, from a split that is known to be."""
    kept: Groups = _load(checkpoint, method, weights) if distributed.is_main() else {}
    kept = distributed.broadcast_object(kept)
    if kept.keys() >= _networks(method).keys():
        return _measured(kept, method)
    found = measure(method, train, skip_corrupt=skip_corrupt)
    if distributed.is_main():
        _save(checkpoint, weights, _groups(found))
    return found


def _load(checkpoint: Path, method: nn.Module, weights: str) -> Groups:
    """What is kept of a checkpoint; nothing if that is of another, does not fit, or cannot be read."""
    path = _path(checkpoint, weights)
    if not path.is_file():
        return {}
    networks = _networks(method)
    found: Groups = {}
    try:
        with safe_open(path, framework="pt") as opened:
            if opened.metadata() != _metadata(checkpoint, weights):
                return {}
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
        return {}
    return found if all(_fits(each, networks[group]) for group, each in found.items()) else {}


def _save(checkpoint: Path, weights: str, groups: Groups) -> None:
    """Keep statistics, whole or not at all; not in place of a foreign file, nor where writing fails."""
    path = _path(checkpoint, weights)
    if not groups or (path.exists() and not _is_ours(path)):
        return
    tensors = {
        f"{group}.{name}_{number}": tensor.contiguous()
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


def _training_split(run: Run) -> Manifest:
    """The split that the run was trained on. Raises DataError if it is not there as it was."""
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


def _fits(statistics: Statistics, network: nn.Module) -> bool:
    shapes = [norm.weight.shape for norm in batch_norms(network)]
    return [m.mean.shape for m in statistics] == shapes == [m.variance.shape for m in statistics]


def _groups(measured: Measured) -> Groups:
    """All statistics, on the CPU."""
    groups = {**dict[str, Statistics](measured.decoder.items()), **measured.encoders}
    return {name: tuple(Moments(m.mean.cpu(), m.variance.cpu()) for m in groups[name]) for name in groups}


def _measured(groups: Groups, method: nn.Module) -> Measured:
    """What ``_groups`` took apart, where, and as precise as, the method's weights are."""
    kinds: tuple[CodeKind, ...] = get_args(CodeKind)
    like = next(method.parameters())
    moved = {name: tuple(Moments(*(t.to(like) for t in m)) for m in groups[name]) for name in groups}
    return Measured(
        {kind: moved[kind] for kind in kinds if kind in moved},
        {name: statistics for name, statistics in moved.items() if name not in kinds},
    )
