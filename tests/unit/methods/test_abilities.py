"""Abilities are found on every Python: from 3.12 on, isinstance looks members up statically."""

from __future__ import annotations

import inspect
from typing import Protocol

import pytest
from torch import nn

from dist_dsvae.config import (
    CGANConfig,
    ClassifierConfig,
    CVAEConfig,
    CVAEGANConfig,
    DSVAEConfig,
    MethodConfig,
)
from dist_dsvae.methods import abilities
from dist_dsvae.methods.update import Method
from tests.unit.methods.making import make_any

ABILITIES = [
    ability
    for ability in vars(abilities).values()
    if isinstance(ability, type) and issubclass(ability, Protocol) and ability is not Protocol  # type: ignore[arg-type]
    if ability.__module__ == abilities.__name__
]


def members(ability: type) -> set[str]:
    named = {
        name for base in ability.__mro__ for name in (*vars(base), *vars(base).get("__annotations__", {}))
    }
    return {name for name in named if not name.startswith("_")}


@pytest.mark.parametrize(
    "config",
    [DSVAEConfig(), CVAEConfig(), CGANConfig(), CVAEGANConfig(), ClassifierConfig()],
    ids=lambda c: c.name,
)
def test_members_are_found_statically_or_not_at_all(config: MethodConfig) -> None:
    """What hasattr sees and a static look-up does not is a sub-module, on which isinstance says no."""
    method: nn.Module = make_any(config, "resnet32" if config.name == "classifier" else "small32")
    assert ABILITIES
    for ability in [*ABILITIES, Method]:
        for name in members(ability):
            if hasattr(method, name):
                inspect.getattr_static(method, name)  # raises AttributeError
