"""Figures drawn from trained runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from dist_dsvae.core.errors import DataError
from dist_dsvae.data.open_splits import open_splits
from dist_dsvae.data.stream import one_pass
from dist_dsvae.methods.abilities import Generative
from dist_dsvae.runs.run import Run
from dist_dsvae.sampling.generate import sample_codes
from dist_dsvae.sampling.grids import save_scatter


@torch.no_grad()
def draw_points(runs: Sequence[Path], out: Path, num_points: int, seed: int) -> None:
    """Figure 2: a panel of held-out points, and one of each run's samples of the same labels.

    Panels are called after their methods; after their directories where several are of one method.

    Raises CheckpointError for what is not a run, DataError for a run on images or on other data than
    the first.
    """
    panels: list[tuple[str, torch.Tensor, torch.Tensor]] = []
    classes: tuple[str, ...] = ()
    opened = [Run.open(run_dir) for run_dir in runs]
    methods = [run.config.method.name for run in opened]
    for run_dir, run, name in zip(runs, opened, methods, strict=True):
        classes = run.classes
        train, test, _ = open_splits(run.config.data)
        if run.shape.is_image:
            raise DataError(f"{run_dir} was trained on images; give runs on points, such as runs/toy.")
        if not panels:
            hosts = list(one_pass(test or train, 1024, limit=num_points))
            labels = torch.cat([host.labels for host in hosts])
            panels.append(("real", torch.cat([host.images for host in hosts]), labels))
            first = train
        elif train.fingerprint != first.fingerprint:
            raise DataError(f"{run_dir} was trained on other data than {runs[0]}; give runs on the same.")
        method, _ = run.load_method(run.checkpoint(), "auto", torch.device("cpu"))
        assert isinstance(method, Generative)
        dtype = torch.float64 if run.config.train.double_precision else torch.float32
        method.eval()
        points = method.decode(sample_codes(method, labels, seed=seed, dtype=dtype), "prior")
        panels.append((name if methods.count(name) == 1 else run_dir.resolve().name, points, labels))
    save_scatter(out, panels, classes)
