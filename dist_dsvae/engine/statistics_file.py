"""The statistics of a checkpoint's decoder, measured once and kept beside it.

    <run>/statistics/step-00001000-ema.safetensors   decoder.statistics' tensors, "images.mean_0", ...
                                                     metadata: format, and of which checkpoint they are

Encoding thousands of pictures takes a CPU a while; whoever draws from the same checkpoint next finds them
here. A file of another format is nobody's to overwrite; one of another checkpoint (a run was set back and
trained anew), or a damaged one with our mark, is replaced.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import get_args

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from dist_dsvae import distributed
from dist_dsvae.data.errors import DataError
from dist_dsvae.data.manifest import Manifest, write_atomically
from dist_dsvae.data.split import open_split
from dist_dsvae.engine.checkpoint import MARKER
from dist_dsvae.engine.statistics import Measured, measure, measure_or_warn
from dist_dsvae.engine.trained import read_run
from dist_dsvae.methods.abilities import Autoencoding, Generative
from dist_dsvae.models.decoder import Decoder
from dist_dsvae.models.statistics import Moments
from dist_dsvae.types import CodeKind

logger = logging.getLogger(__name__)

FORMAT = "dist_dsvae-statistics/1"
_MAX_HEADER_BYTES = 2**20


def measured_of_checkpoint(checkpoint: Path, method: nn.Module, weights: str) -> Measured:
    """For drawing: the statistics of ``method`` in evaluation mode, with the weights of a checkpoint.

    weights: "ema" or "raw". Called by all ranks; rank 0 measures what is not there, so that all draw
    the same to the bit. Where the run's training split cannot be read, a warning says so, and those of images
    are missing.
    """
    config, _, _ = read_run(checkpoint.parent.parent)
    found: Measured = {}
    if distributed.is_main():
        found = load_measured(checkpoint, method, weights)
        if not _is_complete(found, method):
            skip = config.data.corrupt_sample == "replace"
            found = measure_or_warn(method, lambda: _training_split(checkpoint), skip_corrupt=skip)
            save_measured(checkpoint, weights, found)
    return _on_device(distributed.broadcast_object(_on_device(found, None)), method)


def measured_for_evaluation(
    checkpoint: Path, method: nn.Module, weights: str, train: Manifest, *, skip_corrupt: bool
) -> Measured:
    """The same, measured by all ranks together where it is not there, from a split that is known to be."""
    found = load_measured(checkpoint, method, weights) if distributed.is_main() else {}
    found = _on_device(distributed.broadcast_object(_on_device(found, None)), method)
    if not _is_complete(found, method):
        found = measure(method, train, skip_corrupt=skip_corrupt)
        if distributed.is_main():
            save_measured(checkpoint, weights, found)
    return found


def load_measured(checkpoint: Path, method: nn.Module, weights: str) -> Measured:
    """What is kept of a checkpoint; nothing if that is of another, does not fit, or cannot be read."""
    path = _path(checkpoint, weights)
    if not isinstance(method, Generative) or not path.is_file():
        return {}
    found: Measured = {}
    try:
        with safe_open(path, framework="pt") as opened:
            if opened.metadata() != _metadata(checkpoint, weights):
                return {}
            names = set(opened.keys())
            for kind in get_args(CodeKind):
                if f"{kind}.mean_0" in names:
                    found[kind] = tuple(
                        Moments(
                            opened.get_tensor(f"{kind}.mean_{i}"), opened.get_tensor(f"{kind}.variance_{i}")
                        )
                        for i in range(len(method.decoding_network().blank_statistics()))
                    )
    except (OSError, SafetensorError) as error:
        logger.warning("%s cannot be read (%s) and is not used.", path, error)
        return {}
    return _on_device(found, method) if _fits(found, method.decoding_network()) else {}


def save_measured(checkpoint: Path, weights: str, measured: Measured) -> None:
    """Keep statistics, whole or not at all; not in place of a foreign file, nor where writing fails."""
    path = _path(checkpoint, weights)
    if not measured or (path.exists() and not _is_ours(path)):
        return
    tensors = {
        f"{kind}.{name}_{number}": tensor.cpu().contiguous()
        for kind, statistics in measured.items()
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
    digest = hashlib.sha256((checkpoint / MARKER).read_bytes()).hexdigest()
    return {"format": FORMAT, "checkpoint": checkpoint.name, "sha256": digest, "weights": weights}


def _is_ours(path: Path) -> bool:
    """Whether a file, damaged or not, says at its beginning that this module wrote it."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, _MAX_HEADER_BYTES)))
        return bool(header["__metadata__"]["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _training_split(checkpoint: Path) -> Manifest:
    """The split that the run was trained on. Raises DataError if it is not there as it was."""
    run_dir = checkpoint.parent.parent
    config, shape, classes = read_run(run_dir)
    train = open_split(config.data.train, config.data)
    dataset = json.loads((run_dir / "dataset.json").read_text("utf-8"))
    trained_on = dataset.get("fingerprint", train.fingerprint)
    if (train.shape, train.classes, train.fingerprint) != (shape, classes, trained_on):
        raise DataError(f"the shards in {train.location} are not those that {run_dir} was trained on")
    return train


def _is_complete(found: Measured, method: nn.Module) -> bool:
    if not isinstance(method, Generative) or not method.decoding_network().has_batch_norm:
        return True
    return "prior" in found and ("images" in found or not isinstance(method, Autoencoding))


def _fits(found: Measured, decoder: Decoder) -> bool:
    expected = [moments.mean.shape for moments in decoder.blank_statistics()]
    return all(
        [m.mean.shape for m in statistics] == expected == [m.variance.shape for m in statistics]
        for statistics in found.values()
    )


def _on_device(measured: Measured, method: nn.Module | None) -> Measured:
    """Where, and as precise as, the method's weights are; None: on the CPU."""
    parameter = None if method is None else next(method.parameters())
    return {
        kind: tuple(
            Moments(*(t.cpu() if parameter is None else t.to(parameter) for t in moments))
            for moments in statistics
        )
        for kind, statistics in measured.items()
    }
