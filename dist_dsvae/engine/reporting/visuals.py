"""The pictures that the trainer makes of its own model, as far as its method has the ability.

Rank 0 draws; nothing here is collective. Batch norm is measured for the weights that are drawn, on fewer
codes than a finished model's, and forgotten after.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dist_dsvae.config import ExperimentConfig
from dist_dsvae.core.types import Codes, Gaussian
from dist_dsvae.data.pick import first_of_classes
from dist_dsvae.data.shards.manifest import Manifest
from dist_dsvae.data.stream import one_pass
from dist_dsvae.data.transforms import normalise
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.engine.reporting.outputs import Tolerant
from dist_dsvae.methods.abilities import Autoencoding, Generative
from dist_dsvae.runs.measure_statistics import for_samples, measure_or_warn, using
from dist_dsvae.sampling.generate import class_grid, sample_codes, spread
from dist_dsvae.sampling.grids import draw_grid, save_scatter
from dist_dsvae.sampling.image_file import ForeignImageError, write_image
from dist_dsvae.sampling.statistics_codes import FEW_CODES
from dist_dsvae.sampling.swap import swap_grid

_EVALUATION_BATCH = 256


@dataclass(eq=False)
class Visuals:
    """Draws a method's samples and swaps, with real pictures from ``manifest``. train: the training split."""

    method: nn.Module
    manifest: Manifest
    train: Manifest
    config: ExperimentConfig
    runtime: Runtime

    def __post_init__(self) -> None:
        self._skip_corrupt = self.config.data.replaces_corrupt
        self._tolerant = Tolerant("The grid of samples", (ForeignImageError, OSError))
        self._images: dict[int, Tensor] | None = None

    def draw(self, directory: Path, name: str) -> list[Path]:
        """Write the pictures of one moment; their paths. Leaves the method in training mode."""
        if not isinstance(self.method, Generative):
            return []
        method = self.method
        self.method.eval()
        draw = self._draw_images if self.manifest.shape.is_image else self._draw_points
        measured = measure_or_warn(
            self.method, lambda: self.train, skip_corrupt=self._skip_corrupt, num_codes=FEW_CODES
        )
        measured = for_samples(measured, as_images=self.config.evaluation.samples_as_images)
        with torch.no_grad(), using(self.method, measured), self.runtime.autocast():
            paths: list[Path] = []
            self._tolerant(lambda: paths.extend(draw(method, directory, name)))
        self.method.train()
        return paths

    def _draw_images(self, method: Generative, directory: Path, name: str) -> list[Path]:
        c = self.config.sampling
        classes = spread(self.manifest.num_classes, c.num_classes)
        samples = class_grid(
            method,
            classes,
            c.num_columns,
            seed=self.config.seed,
            device=self.runtime.device,
            dtype=self.runtime.dtype,
        )
        grid = directory / f"{name}.png"
        write_image(
            grid,
            draw_grid(
                samples,
                title=f"{name}: samples, a class per row, one zu per column",
                row_names=[self.manifest.classes[i] for i in classes],
            ),
        )
        if not isinstance(method, Autoencoding):
            return [grid]

        found = self._images_of(classes[: c.num_columns])
        if not found:
            return [grid]
        images = torch.stack(list(found.values()))
        labels = torch.tensor(list(found), device=self.runtime.device)
        rows = method.encode(images, labels)
        columns = Codes(rows.zs.roll(1, 0), Gaussian(*(t.roll(1, 0) for t in rows.zu)))
        swap = directory / f"{name}-swap.png"
        write_image(
            swap,
            draw_grid(
                swap_grid(method, rows, columns),
                title=f"{name}: zs from the left, zu from the top",
                row_names=[self.manifest.classes[i] for i in found],
                row_images=images,
                column_images=images.roll(1, 0),
            ),
        )
        return [grid, swap]

    def _images_of(self, classes: list[int]) -> dict[int, Tensor]:
        """A real picture [C, H, W] of each class, the split's first; classes without one are left out."""
        if self._images is None:
            found = first_of_classes(self.manifest, classes, skip_corrupt=self._skip_corrupt)
            self._images = {
                label: normalise(found[label][0].to(self.runtime.device), self.runtime.dtype)
                for label in classes
                if label in found
            }
        return self._images

    def _draw_points(self, method: Generative, directory: Path, name: str) -> list[Path]:
        c, runtime = self.config, self.runtime
        count = min(c.sampling.num_points, self.manifest.num_samples)
        hosts = list(one_pass(self.manifest, _EVALUATION_BATCH, limit=count, skip_corrupt=self._skip_corrupt))
        real = torch.cat([host.images for host in hosts])
        labels = torch.cat([host.labels for host in hosts])
        codes = sample_codes(method, labels.to(runtime.device), seed=c.seed, dtype=runtime.dtype)
        path = directory / f"{name}.png"
        panels = [("real", real, labels), (c.method.name, method.decode(codes, "prior").cpu(), labels)]
        save_scatter(path, panels, self.manifest.classes)
        return [path]
