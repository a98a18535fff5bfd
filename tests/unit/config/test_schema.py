"""The JSON schema says what the reader of configurations says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from dist_dsvae.config import ExperimentConfig
from dist_dsvae.config.reading import ConfigError, from_tree, load_config, to_tree
from dist_dsvae.config.reference import keys
from dist_dsvae.config.schema import schema

REPOSITORY = Path(__file__).parents[3]
MINIMAL: dict[str, Any] = {"data": {"train": "t"}, "model": {"architecture": "small32"}}
VALIDATOR = Draft202012Validator(schema())


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").rglob("*.json")), ids=lambda p: p.stem)
def test_shipped_configs_and_what_their_runs_record_are_valid(path: Path) -> None:
    VALIDATOR.validate(json.loads(path.read_text()))
    recorded = json.loads(json.dumps(to_tree(load_config(path))))
    VALIDATOR.validate(recorded)


@pytest.mark.parametrize(
    "sections",
    [
        {"optimzer": {}},
        {"optimizer": {"learning_rat": 1}},
        {"seed": "one"},
        {"seed": 1.5},
        {"seed": -1},
        {"train": {"epochs": 0}},
        {"train": {"epochs": None}},
        {"train": {"tensorboard": 1}},
        {"optimizer": {"beta1": 1.5}},
        {"data": {}},
        {"data": []},
        {"data": {"train": "t", "batch_size": 1}},
        {"model": {"architecture": "conv23"}},
        {"method": {"name": "nothing"}},
        {"method": {"name": "cgan", "kl_weight": 1}},
        {"method": {"feature_weight": 1}},
        {"evaluation": {"temperature_zs": 11}},
        {"evaluation": {"temperature_zs": 0}},
    ],
    ids=json.dumps,
)
def test_both_refuse(sections: dict[str, Any]) -> None:
    tree = MINIMAL | sections
    assert not VALIDATOR.is_valid(tree)
    with pytest.raises(ConfigError):
        from_tree(ExperimentConfig, tree)


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"data": {"train": "t", "test": None, "shuffle_window_shards": None}},
        {"train": {"epochs": 3, "ema_half_life_samples": None}},
        {"method": {"mixture_fit": "moments"}},
        {"method": {"name": "cgan", "adversarial": "hinge"}},
        {"method": {"name": "cvae_gan", "feature_weight": 0}},
    ],
    ids=json.dumps,
)
def test_both_take(sections: dict[str, Any]) -> None:
    tree = MINIMAL | sections
    VALIDATOR.validate(tree)
    from_tree(ExperimentConfig, tree)


def test_a_file_may_name_its_schema(tmp_path: Path) -> None:
    tree = {"$schema": "dsvae.schema.json", **MINIMAL}
    VALIDATOR.validate(tree)
    (tmp_path / "c.json").write_text(json.dumps(tree))
    assert load_config(tmp_path / "c.json").data.train == "t"


def test_every_key_has_its_meaning_and_its_default() -> None:
    properties = schema()["properties"]
    for key in keys():
        *parents, last = key.name.split(".")
        found = properties
        for parent in parents:
            options = found[parent].get("oneOf", [found[parent]])
            named = [
                each for each in options if each["properties"].get("name", {}).get("default", "") == key.of
            ]
            found = (named or options)[0]["properties"]
        assert found[last]["description"], key.name
        is_required = "must be given" in key.default
        assert ("default" in found[last]) != is_required, key.name
        if not is_required:
            assert f"`{json.dumps(found[last]['default'])}`" == key.default, key.name
