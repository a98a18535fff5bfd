"""Export: a checkpoint of a run as a published model (``methods.published``), with its card."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from dist_dsvae.core.staging import building, check_free
from dist_dsvae.core.text import read_json
from dist_dsvae.core.versions import version_of
from dist_dsvae.methods.published import Published, halve
from dist_dsvae.pretrained.description import WEIGHTS
from dist_dsvae.pretrained.model import PretrainedModel
from dist_dsvae.pretrained.programs import ProgramKind, check_packages, save_programs
from dist_dsvae.runs.checkpoint import is_described_by, read_marker
from dist_dsvae.runs.measure_statistics import adopt
from dist_dsvae.runs.run import Run
from dist_dsvae.runs.run_directory import last_command
from dist_dsvae.runs.statistics_file import measured_of_checkpoint

Weights = Literal["auto", "ema", "raw"]


def export(
    run_dir: Path,
    out: Path,
    step: int | None = None,
    weights: Weights = "auto",
    *,
    license: str = "other",
    programs: Sequence[ProgramKind] = (),
    half: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> str:
    """Write the model of a run's checkpoint into ``out``; returns a sentence on what was written.

    step: of the checkpoint (default: the newest). weights: see ``Run.load_method``. license: for the
    card. programs: kinds of them to add, which run without this package (``pretrained.programs``).
    half: store the weights as float16. overwrite: replace an earlier export (``staging.building``). say: is
    told what begins. Single process.
    Raises CheckpointError if the run has no such checkpoint, or no average that was asked for; DataError if
    ``out`` is taken; ProgramError if a program cannot be made; PublishedModelError for weights that float16
    cannot hold.
    """
    check_free(out, overwrite)
    check_packages(programs)
    say(f"Reading a checkpoint of {run_dir}; its batch norms are measured, if that was not done before.")
    model = PretrainedModel(published_of_run(run_dir, step, weights))
    say(f"Writing {out}.")
    written = ""
    with building(out, overwrite=overwrite) as staging:
        model.save_pretrained(staging, model_card_kwargs={"license": license, "programs": tuple(programs)})
        if half:
            halve(staging)
            model = PretrainedModel.from_pretrained(staging)  # as it is read from now on
        if programs:
            say("Exporting the networks as programs, and comparing them with the model.")
            written = f" {save_programs(model, staging, programs)}"
    about = model.published.about
    checkpoint = run_dir / "checkpoints" / about["checkpoint"]
    return f"Wrote {out} from {checkpoint} ({WEIGHTS[about['weights']]}).{written}"


def published_of_run(
    run_dir: Path,
    step: int | None = None,
    weights: Weights = "auto",
    device: torch.device = torch.device("cpu"),  # noqa: B008 - immutable
) -> Published:
    """A run's checkpoint on the CPU, as ``published.load_published`` would give it, and its history.

    device: to measure batch norm on, which is done where no one has yet (``statistics_file``). Called by
    all ranks, where there are several.
    Raises CheckpointError as ``Run.checkpoint`` and ``Run.load_method`` do.
    """
    run = Run.open(run_dir)
    chosen, config = run.checkpoint(step), run.config
    method, which = run.load_method(chosen, weights, device)
    method.eval()
    adopt(method, measured_of_checkpoint(chosen, method, which))
    of_step = "" if step is None else f" --step {step}"
    about = {
        "run": run_dir.resolve().name,
        "data": config.data.train,
        "num_samples": run.num_samples,
        "checkpoint": chosen.name,
        "weights": which,
        "commands": {
            "train": last_command(run_dir) or config.command,
            "export": f"dsvae export --run {shlex.quote(str(run_dir))}{of_step} --weights {which}",
        },
        "versions": {package: version_of(package) or "not installed" for package in ("dist_dsvae", "torch")},
        "evaluation": _evaluation(run, chosen, which),
    }
    return Published(
        method.cpu(),
        run.shape,
        run.classes,
        config.method,
        config.model,
        about,
        face_crops=run.face_crops,
    )


def _evaluation(run: Run, chosen: Path, weights: str) -> dict[str, Any]:
    """The run's scores, if they are of these weights; else the figures of its end, if this is its end.

    Figures of other weights, or of samples that are decoded otherwise, say nothing of these.
    """
    run_dir = run.directory
    scores = _read(run_dir / "evaluation/scores.json")
    as_images = scores.get("settings", {}).get("batch_norm") == "images"
    is_alike = scores.get("weights") == weights and as_images == run.config.evaluation.samples_as_images
    if is_alike and is_described_by(chosen, scores):
        return {key: scores[key] for key in ("figures", "real", "judges", "settings") if key in scores}
    summary = _read(run_dir / "evaluation/summary.json")
    if summary.get("samples_seen") != read_marker(chosen).get("samples_seen"):  # of an end before
        return {}
    about = ("train_seconds", "samples_seen", "weights")
    figures = {key: value for key, value in summary.items() if key not in about}
    described = WEIGHTS[summary.get("weights", "raw")]  # older runs scored the last ones
    return {"figures": figures, "note": f"At the end of training, with the {described}."} if figures else {}


def _read(path: Path) -> dict[str, Any]:
    """What a damaged file, or none, had to say is not known."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
