"""The pictures and figures of merit that the trainer makes of its own model.

Rank 0 draws; nothing here is collective but ``held_out_figures``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dist_dsvae import distributed
from dist_dsvae.config import ExperimentConfig
from dist_dsvae.data.manifest import Manifest, write_atomically
from dist_dsvae.data.stream import one_pass
from dist_dsvae.data.transforms import to_device_batch
from dist_dsvae.engine.runtime import Runtime
from dist_dsvae.evaluation.probes import accuracy, linear_probe_accuracy
from dist_dsvae.methods.dsvae import DSVAE
from dist_dsvae.models.encoder import sample_gaussian
from dist_dsvae.noise import Draw, Noise
from dist_dsvae.sampling.generate import Decode, class_grid, sample_codes, spread
from dist_dsvae.sampling.grids import save_grid, save_scatter
from dist_dsvae.sampling.swap import swap_grid

Figures = dict[str, float | int]

PROBE_TRAIN_SAMPLES = 10_000
_EVALUATION_BATCH = 256


class Visuals:
    """Draws a method's samples and swaps, with real pictures from ``manifest``."""

    def __init__(self, method: DSVAE, manifest: Manifest, config: ExperimentConfig, runtime: Runtime) -> None:
        self.method = method
        self.manifest = manifest
        self.config = config.sampling
        self.runtime = runtime
        self.seed = config.seed
        self.skip_corrupt = config.data.corrupt_sample == "replace"
        self._pictures: dict[int, Tensor] | None = None

    def draw(self, directory: Path, name: str, decode: Decode) -> list[Path]:
        """Write the pictures of one moment; their paths. Leaves the method in training mode.

        decode: the decoder to draw with (the averaged one where there is an average).
        """
        self.method.eval()
        with torch.no_grad(), self.runtime.autocast():
            draw = self._draw_images if self.manifest.shape.is_image else self._draw_points
            paths = draw(directory, name, decode)
        self.method.train()
        return paths

    def _draw_images(self, directory: Path, name: str, decode: Decode) -> list[Path]:
        method, c = self.method, self.config
        classes = spread(self.manifest.num_classes, c.num_classes)
        names = [self.manifest.classes[i] for i in classes]
        samples = class_grid(decode, method.mixture_prior, classes, c.num_columns, method.zu_dim, self.seed)
        grid = directory / f"{name}.png"
        save_grid(
            grid, samples, title=f"{name}: samples, a class per row, one zu per column", row_names=names
        )

        found = self._pictures_of(classes[: c.num_columns])
        pictures = torch.stack(list(found.values()))
        names = [self.manifest.classes[i] for i in found]
        swapped = swap_grid(
            method.encoder_s, lambda x: method.encoder_u(x).mean, decode, pictures, pictures.roll(1, 0)
        )
        swap = directory / f"{name}-swap.png"
        save_grid(
            swap,
            swapped,
            title=f"{name}: zs from the left, zu from the top",
            row_names=names,
            row_images=pictures,
            column_images=pictures.roll(1, 0),
        )
        return [grid, swap]

    def _pictures_of(self, classes: list[int]) -> dict[int, Tensor]:
        """A real picture [C, H, W] of each class, the split's first; classes without one are left out."""
        if self._pictures is None:
            wanted, found = set(classes), dict[int, Tensor]()
            hosts = one_pass(self.manifest, _EVALUATION_BATCH, skip_corrupt=self.skip_corrupt)
            for host in hosts:
                batch = to_device_batch(host, self.runtime.device, self.runtime.dtype)
                for image, label in zip(batch.images, batch.labels.tolist(), strict=True):
                    if label in wanted:
                        found.setdefault(label, image)
                if wanted == found.keys():
                    break
            self._pictures = {label: found[label] for label in classes if label in found}
        return self._pictures

    def _draw_points(self, directory: Path, name: str, decode: Decode) -> list[Path]:
        count = min(self.config.num_points, self.manifest.num_samples)
        hosts = list(one_pass(self.manifest, _EVALUATION_BATCH, limit=count, skip_corrupt=self.skip_corrupt))
        real = torch.cat([host.images for host in hosts])
        labels = torch.cat([host.labels for host in hosts])
        codes = sample_codes(
            self.method.mixture_prior, labels.to(self.runtime.device), self.method.zu_dim, seed=self.seed
        )
        path = directory / f"{name}.png"
        panels = [("real", real, labels), ("ours", decode(codes).cpu(), labels)]
        save_scatter(path, panels, self.manifest.classes)
        return [path]


def held_out_figures(
    method: DSVAE, train: Manifest, test: Manifest, runtime: Runtime, corrupt_sample: str
) -> Figures:
    """Held-out accuracy from zs and of a linear probe from zu. Called by all ranks.

    zs_accuracy: argmax of the mixture posterior on the test split.
    zu_probe_accuracy: logistic regression from zu, fitted on (at most 10,000 samples of) the training
    split, on the test split; near chance where zu says nothing of the class. zu is what the decoder
    is given, a sample of its posterior; zu_mean_probe_accuracy probes the posterior's mean, which no
    network of the method ever sees without its noise.
    """
    method.eval()
    skip = corrupt_sample == "replace"
    fit = _codes(method, train, runtime, PROBE_TRAIN_SAMPLES, skip)
    held_out = _codes(method, test, runtime, None, skip)
    method.train()
    num_classes = test.num_classes
    return {
        "zs_accuracy": accuracy(held_out.log_posterior, held_out.labels),
        "zu_probe_accuracy": linear_probe_accuracy(
            fit.zu, fit.labels, held_out.zu, held_out.labels, num_classes
        ),
        "zu_mean_probe_accuracy": linear_probe_accuracy(
            fit.zu_mean, fit.labels, held_out.zu_mean, held_out.labels, num_classes
        ),
        "test_samples": len(held_out.labels),
    }


class _Codes(NamedTuple):
    log_posterior: Tensor  # [N, C] log p(c | zs)
    zu: Tensor  # [N, zu_dim] sampled from its posterior
    zu_mean: Tensor  # [N, zu_dim]
    labels: Tensor  # [N]


@torch.no_grad()
def _codes(
    method: DSVAE, manifest: Manifest, runtime: Runtime, limit: int | None, skip_corrupt: bool
) -> _Codes:
    """The codes of a split (or ``limit`` of its samples), encoded by all ranks and gathered."""
    parts: list[_Codes] = []
    ranks = (runtime.rank, runtime.world_size)
    for host in one_pass(manifest, _EVALUATION_BATCH, *ranks, limit=limit, skip_corrupt=skip_corrupt):
        batch = to_device_batch(host, runtime.device, runtime.dtype)
        with runtime.autocast():
            zs, posterior = method.encoder_s(batch.images), method.encoder_u(batch.images)
        epsilon = Noise(0, batch.positions, runtime.dtype).normal(Draw.POSTERIOR_ZU, method.zu_dim)
        zu = sample_gaussian(posterior, epsilon)
        parts.append(_Codes(method.mixture_prior.log_posterior(zs), zu, posterior.mean, batch.labels))
    if not parts:  # fewer batches than ranks
        widths = (method.num_classes, method.zu_dim, method.zu_dim)
        a, b, c = (torch.empty(0, width, dtype=runtime.dtype, device=runtime.device) for width in widths)
        parts.append(_Codes(a, b, c, torch.empty(0, dtype=torch.int64, device=runtime.device)))
    return _Codes(*(distributed.gather_rows(torch.cat(column)) for column in zip(*parts, strict=True)))


def write_summary(path: Path, figures: Figures) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(figures, indent=1) + "\n").encode())
