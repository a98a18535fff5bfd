"""The paper's Figures 2 to 9 of trained runs: the commands that draw them, and where each picture goes.

OUT/NAME/figure3-dsvae.png, ...; of points OUT/NAME/figure2.png alone. Figure 9 is Figure 3 of CUB-200 and
CIFAR-100.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from dist_dsvae.commands.reproduce.evaluations import has_zs
from dist_dsvae.commands.reproduce.jobs import Job
from dist_dsvae.commands.reproduce.planned_runs import PlannedRun
from dist_dsvae.config import CVAEGANConfig
from dist_dsvae.sampling.image_file import check_replaceable

_SAMPLES: dict[str, tuple[str, ...]] = {"3": ("grid",)}
_INPAINTING: dict[str, tuple[str, ...]] = {"7": ("inpaint",)}
_TWO_CODES: dict[str, tuple[str, ...]] = {
    "4a": ("interpolate", "zs"),
    "4b": ("interpolate", "zu"),
    "5": ("vary",),
    "6": ("swap",),
    "8": ("grid", "--columns", "20"),
}


def figure_jobs(runs: Sequence[PlannedRun], out: Path) -> list[Job]:
    """What draws all figures that the runs of one data set have, of each method the first seed's.

    out: the folder for them. Raises ForeignImageError where one would replace a picture of a person's.
    """
    shown: dict[str, PlannedRun] = {}
    for run in runs:
        shown.setdefault(run.method, run)
    if runs[0].train.shape.is_image:
        return [job for run in shown.values() for job in _of_images(run, out)]
    directories = [str(run.directory) for run in shown.values()]
    return [_job(runs[0], "2", ("points", "--run", *directories), out / "figure2.png")]


def _of_images(run: PlannedRun, out: Path) -> Iterator[Job]:
    figures = dict(_SAMPLES)
    if has_zs(run):
        figures |= _TWO_CODES | _INPAINTING
    elif isinstance(run.config.method, CVAEGANConfig):
        figures |= _INPAINTING
    for number, (what, *options) in figures.items():
        arguments = (what, *options, "--run", str(run.directory))
        yield _job(run, number, arguments, out / f"figure{number}-{run.method}.png")


def _job(run: PlannedRun, number: str, arguments: Sequence[str], path: Path) -> Job:
    check_replaceable(path)
    return Job(f"{run.title}: Figure {number}", ("generate", *arguments, "--out", str(path)), run.log)
