"""Small models whose random pictures differ visibly from each other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from dist_dsvae.config import DSVAEConfig, MethodConfig, ModelConfig
from dist_dsvae.config.reading import load_config, to_tree
from dist_dsvae.core.faces.align import Alignment
from dist_dsvae.core.faces.crop_record import FaceCrops
from dist_dsvae.methods.published import Published
from dist_dsvae.pretrained.model import PretrainedModel
from dist_dsvae.pretrained.photographs import Photographs
from dist_dsvae.runs import checkpoint
from tests.unit.building.drawn_faces import Marks
from tests.unit.pretrained.making import CLASSES, make_published

_CONTRAST = 8.0
_REPOSITORY = Path(__file__).parents[3]
NUM_SAMPLES = 1000


def make_lively(config: MethodConfig, architecture: str = "small32") -> Published:
    """``make_published``, its decoder's last layer with more contrast."""
    published = make_published(config, architecture)
    with torch.no_grad():
        last = [weights for weights in published.method.decoder.parameters() if weights.dim() > 1][-1]
        last.mul_(_CONTRAST)
    return published


def make_model(config: MethodConfig, architecture: str = "small32") -> PretrainedModel:
    return PretrainedModel(make_lively(config, architecture))


def face_model() -> PretrainedModel:
    """A model of faces, with a stand-in for the detector that finds drawn ones."""
    crops = FaceCrops(alignment=Alignment(32), detector=Marks().record)
    published = make_lively(DSVAEConfig())._replace(face_crops=crops)
    model = PretrainedModel(published)
    model.photographs = Photographs(crops, published.shape, "auto", Marks())
    return model


def make_run(run: Path) -> None:
    """A run that has started, of the networks of ``make_lively``; its shards are not at hand."""
    run.mkdir()
    config = load_config(_REPOSITORY / "configs/quickstart.json")
    config = replace(
        config,
        data=replace(config.data, train="nowhere/train", test=None, build_command=""),
        model=ModelConfig(architecture="small32", zs_dim=6, zu_dim=4),
        method=DSVAEConfig(),
        train=replace(config.train, epochs=8.0, ema_half_life_updates=0.0),
    )
    (run / "config.json").write_text(json.dumps(to_tree(config)), "utf-8")
    shape = {"channels": 1, "height": 32, "width": 32}
    dataset = {"shape": shape, "classes": CLASSES, "num_samples": NUM_SAMPLES}
    (run / "dataset.json").write_text(json.dumps(dataset), "utf-8")


def save_checkpoint(run: Path, step: int, *, brightness: float = 0.0) -> None:
    """A checkpoint of ``make_lively`` at ``step``. brightness: added before the decoder's last function."""
    method = make_lively(DSVAEConfig()).method
    with torch.no_grad():
        [bias for bias in method.decoder.parameters() if bias.dim() == 1][-1].add_(brightness)
    checkpoint.save(run / "checkpoints", step, {"method": method.state_dict()}, {"step": step}, keep=5)
