"""Figures of merit on the held-out split: what can be read from the codes, and how well images come back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dist_dsvae.config import ExperimentConfig
from dist_dsvae.core import distributed
from dist_dsvae.core.files import write_atomically
from dist_dsvae.core.noise import Draw, Noise
from dist_dsvae.core.types import Batch
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.stream import one_pass
from dist_dsvae.data.transforms import to_device_batch
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.evaluation.probes import Share, linear_probe_accuracy, mlp_probe_accuracy
from dist_dsvae.methods.abilities import Autoencoding, Classifying
from dist_dsvae.models.encoder import sample_gaussian
from dist_dsvae.runs.measure_statistics import Measured, measure, using

Figures = dict[str, float | int]

PROBE_TRAIN_SAMPLES = 10_000
_EVALUATION_BATCH = 256


class TestCodes(NamedTuple):
    """What ``read_out`` gives of the test split, and of the part of the training split that probes fit."""

    test: dict[str, Tensor]
    fit: dict[str, Tensor]
    num_classes: int


def read_held_out(
    method: nn.Module,
    train: Manifest,
    test: Manifest,
    runtime: Runtime,
    corrupt_sample: str,
    *,
    with_drawn_zs: bool = False,
) -> TestCodes:
    """Read both splits with a method in evaluation mode. Called by all ranks.

    with_drawn_zs: of the training split, for a prior that is fitted to it; it encodes that split once more.
    """
    skip = corrupt_sample == "replace"
    found = read_out(method, test, runtime, None, skip)
    probed = isinstance(method, Autoencoding)
    fit: dict[str, Tensor] = {}
    if probed:
        fit = read_out(method, train, runtime, PROBE_TRAIN_SAMPLES, skip, with_drawn_zs=with_drawn_zs)
    return TestCodes(found, fit, test.num_classes)


def final_figures(
    method: nn.Module, config: ExperimentConfig, train: Manifest, test: Manifest | None, runtime: Runtime
) -> Figures:
    """``held_out_figures`` at the end of training; in training mode after. Called by all ranks.

    None where there is no test split, or the config does not want them.
    """
    if test is None or not config.train.evaluate_at_end:
        return {}
    corrupt = config.data.corrupt_sample
    measured = Measured()
    method.eval()
    if config.evaluation.batch_norm == "precise":
        measured = measure(method, train, skip_corrupt=corrupt == "replace", kinds=["images"])
    with using(method, measured):
        held_out = read_held_out(method, train, test, runtime, corrupt)
    method.train()
    return held_out_figures(held_out)


def held_out_figures(held_out: TestCodes) -> Figures:
    """The figures that the method's abilities allow.

    accuracy, zs_accuracy: argmax of the posterior (dsvae: of the mixture's, given zs) on the test split.
    zu_probe_accuracy: logistic regression from zu, fitted on (at most 10,000 samples of) the training
    split, on the test split; near chance where zu says nothing of the class. zu is what the decoder
    is given, a sample of its posterior; zu_mean_probe_accuracy probes the posterior's mean, which no
    network of the method ever sees without its noise.
    reconstruction_error: mean squared error per value, in [0, 4], of decode(zs, mean of zu).
    """
    test = held_out.test
    figures: Figures = {}
    if "predicted" in test:
        name = "zs_accuracy" if "zu" in test else "accuracy"
        figures[name] = (test["predicted"] == test["labels"]).double().mean().item()
    if "zu" in test:
        for code in ("zu", "zu_mean"):
            figures[f"{code}_probe_accuracy"] = _linear_probe(held_out, code)
        figures["reconstruction_error"] = test["squared_error"].double().mean().item()
    return figures | {"test_samples": len(test["labels"])}


def more_probe_figures(held_out: TestCodes) -> Figures:
    """The linear probe from zs, and a perceptron's from zs and zu: nothing linear may hide in zu either."""
    if "zu" not in held_out.test:
        return {}
    figures: Figures = {}
    if "predicted" in held_out.test:  # else zs is the label itself
        figures["zs_probe_accuracy"] = _linear_probe(held_out, "zs")
        figures["zs_mlp_accuracy"] = _mlp_probe(held_out, "zs")
    return figures | {"zu_mlp_accuracy": _mlp_probe(held_out, "zu")}


def _linear_probe(held_out: TestCodes, code: str) -> float:
    """Called by all ranks, which share the work."""
    test, fit, num_classes = held_out
    share = Share(distributed.rank(), distributed.world_size(), distributed.all_reduce_sum)
    return linear_probe_accuracy(
        fit[code], fit["labels"], test[code], test["labels"], num_classes, share=share
    )


def _mlp_probe(held_out: TestCodes, code: str) -> float:
    test, fit, num_classes = held_out
    return mlp_probe_accuracy(fit[code], fit["labels"], test[code], test["labels"], num_classes)


@torch.no_grad()
def read_out(
    method: nn.Module,
    manifest: Manifest,
    runtime: Runtime,
    limit: int | None,
    skip_corrupt: bool,
    *,
    with_drawn_zs: bool = False,
) -> dict[str, Tensor]:
    """What the method makes of a split (or ``limit`` of its samples), row by row; called by all ranks.

    labels [N] always; predicted [N], the likeliest label, of a method that classifies; zs [N, zs_dim],
    zu (a sample) and zu_mean [N, zu_dim] and squared_error [N] of one that encodes, and drawn_zs
    [N, zs_dim], a sample of zs's posterior, if it is asked for. Encoded by all ranks, each
    its share of the batches, and gathered in the split's order.
    """
    rows: dict[str, list[Tensor]] = {}
    share = (runtime.rank, runtime.world_size)
    for host in one_pass(manifest, _EVALUATION_BATCH, *share, limit=limit, skip_corrupt=skip_corrupt):
        batch = to_device_batch(host, runtime.device, runtime.dtype)
        for name, values in _read_batch(method, batch, runtime, with_drawn_zs).items():
            rows.setdefault(name, []).append(values)
    own = {name: torch.cat(values) for name, values in rows.items()}
    # a rank without a batch learns from the others what to send none of
    known = {name: (values.shape[1:], values.dtype) for name, values in own.items()}
    shapes = next(found for found in distributed.gather_objects(known) if found)
    for name, (shape, dtype) in shapes.items():
        own.setdefault(name, torch.empty(0, *shape, dtype=dtype, device=runtime.device))
    gathered = {name: distributed.gather_rows(own[name]) for name in shapes}
    order = gathered.pop("positions").argsort()  # the split's own, whatever the number of ranks
    return {name: rows[order] for name, rows in gathered.items()}


def _read_batch(method: nn.Module, batch: Batch, runtime: Runtime, with_drawn_zs: bool) -> dict[str, Tensor]:
    found = {"positions": batch.positions, "labels": batch.labels}
    if isinstance(method, Classifying):
        with runtime.autocast():
            found["predicted"] = method.log_posterior(batch.images).argmax(dim=1)
    if isinstance(method, Autoencoding):
        with runtime.autocast():
            zs, posterior = method.encode(batch.images, batch.labels)
            rebuilt = method.decode(torch.cat([zs, posterior.mean], dim=1), "images")
        noise = Noise(0, batch.positions, runtime.dtype)
        found["zs"], found["zu_mean"] = zs, posterior.mean
        found["zu"] = sample_gaussian(posterior, noise.normal(Draw.POSTERIOR_ZU, method.zu_dim))
        if with_drawn_zs:
            with runtime.autocast():
                drawn = method.draw_codes(batch.images, batch.labels, noise)
            found["drawn_zs"] = drawn[:, : zs.shape[1]]
        found["squared_error"] = (rebuilt.to(batch.images.dtype) - batch.images).square().flatten(1).mean(1)
    return found


def write_figures(path: Path, figures: Mapping[str, Any]) -> None:
    """A JSON file, whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(figures, indent=1) + "\n").encode())
