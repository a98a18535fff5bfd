"""What a run has trained: its record, its checkpoints, the method with their weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from dist_dsvae.config import ExperimentConfig
from dist_dsvae.config.reading import from_tree
from dist_dsvae.core.faces.crop_record import FaceCrops
from dist_dsvae.core.text import clause, read_json
from dist_dsvae.core.types import ImageShape
from dist_dsvae.methods.choose import make_method
from dist_dsvae.methods.published import WEIGHTS_FILE
from dist_dsvae.methods.update import Method, averaged_networks, put_weights, weights_of
from dist_dsvae.runs import checkpoint, checkpoint_folder
from dist_dsvae.runs.marker import CheckpointError
from dist_dsvae.runs.run_directory import checkpoint_to_resume


@dataclass(frozen=True)
class Run:
    """A run directory, as training recorded it: ``Run.open(Path("runs/quickstart"))``.

    shape: of a sample. classes: their names, by label. fingerprint, num_samples: of the training split, where
    they were recorded. face_crops: how its images were cut out of photographs, if they are faces.
    """

    directory: Path
    config: ExperimentConfig
    shape: ImageShape
    classes: tuple[str, ...]
    fingerprint: str | None = None
    num_samples: int | None = None
    face_crops: FaceCrops | None = None

    @classmethod
    def open(cls, directory: Path) -> Run:
        """Raises CheckpointError if ``directory`` is not a run."""
        if (directory / WEIGHTS_FILE).is_file():
            raise CheckpointError(
                f"{directory} is an exported model, not a run directory. Give it as --model where a command "
                "has that option, or give the run that it was exported from."
            )
        try:
            config = from_tree(ExperimentConfig, read_json(directory / "config.json"))
            dataset = read_json(directory / "dataset.json")
            shape, classes = ImageShape(**dataset["shape"]), tuple(dataset["classes"])
            recorded = (dataset.get("fingerprint"), dataset.get("num_samples"))
            return cls(directory, config, shape, classes, *recorded, FaceCrops.from_document(dataset))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{directory} is not a run directory, or a damaged one: {clause(error)}. Give one such as "
                "runs/quickstart."
            ) from None

    def checkpoint(self, step: int | None = None) -> Path:
        """The checkpoint of ``step``, or the newest undamaged one. Called by all ranks.

        Raises CheckpointError if there is none, or the one of ``step`` is damaged.
        """
        folder = self.directory / "checkpoints"
        steps = [checkpoint_folder.step_of(path) for path in checkpoint_folder.complete_checkpoints(folder)]
        if step is not None and step not in steps:
            raise CheckpointError(
                f"{self.directory} has no checkpoint of step {step}. It has those of {steps}."
            )
        if step is not None:  # named by a person, whether or not a cluster starts this job again
            named = folder / checkpoint_folder.checkpoint_name(step)
            checkpoint.verify(named)
            return named
        chosen = checkpoint_to_resume(self.directory, "auto")
        if chosen is None:
            raise CheckpointError(
                f"{self.directory} has no checkpoint yet. Train it first, or give another run."
            )
        return chosen

    def load_method(
        self, chosen: Path, wanted: Literal["auto", "ema", "raw"], device: torch.device
    ) -> tuple[nn.Module, str]:
        """The method with a checkpoint's weights, and which: "ema" or "raw".

        wanted: "auto" takes the moving average (of the networks that train.ema_networks says) if the run
        keeps one. In the run's own precision. Called by all ranks.
        Raises CheckpointError if an average is wanted and the run keeps none.
        """
        train = self.config.train
        method = make_method(self.config.method, self.config.model, self.shape, len(self.classes))
        assert isinstance(method, Method)
        method.to(device, torch.float64 if train.double_precision else torch.float32)
        if wanted == "ema" and not train.averages:
            raise CheckpointError(
                f"{self.directory} keeps no moving average (train.ema_half_life_updates is 0). Take its last "
                "weights: --weights raw, or evaluation.weights=raw."
            )
        networks = averaged_networks(method, train)
        state: dict[str, Any] = {"method": method.state_dict()}
        use_average = train.averages and wanted != "raw"
        if use_average:
            state["ema"] = {name: t.detach().clone() for name, t in weights_of(method, networks).items()}
        checkpoint.load(chosen, state)
        if use_average:
            put_weights(method, networks, state["ema"])
        return method, "ema" if use_average else "raw"
