"""The house: imports point strictly downward, and only a few modules may speak to other processes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "dist_dsvae"

FLOORS = {
    "types": 0,
    "text": 0,
    "paths": 0,
    "noise": 0,
    "versions": 0,
    "inventory": 0,
    "option_types": 0,
    "config_fields": 0,
    "method_config": 0,
    "config": 0,
    "config_checks": 0,
    "config_io": 0,
    "config_reference": 0,
    "distributed": 0,
    "models": 1,
    "losses": 1,
    "data": 1,
    "methods": 2,
    "sampling": 3,
    "evaluation": 3,
    "pretrained": 4,
    "engine": 5,
    "explore": 6,
}
# within floor 0, where there is no other order
ALLOWED_ON_ONE_FLOOR = {
    ("method_config", "config_fields"),
    ("config", "config_fields"),
    ("config", "method_config"),
    ("config_checks", "config"),
    ("config_checks", "method_config"),
    ("config_io", "config"),
    ("config_io", "paths"),
    ("config_io", "text"),
    ("config_io", "config_checks"),
    ("option_types", "paths"),
    ("config_reference", "config"),
    ("config_reference", "config_fields"),
}
DISTRIBUTED_LIBRARIES = ("accelerate", "deepspeed", "torch.distributed")
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def place(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def inner(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if parts[0] == "dist_dsvae" and len(parts) > 1 else None


def violations(here: str, imported: Iterator[str]) -> list[str]:
    """What a module standing at ``here`` may not import."""
    found = []
    for name in imported:
        there = inner(name)
        if there in FLOORS and there != here:
            downward = FLOORS[there] < FLOORS[here]
            if not downward and (here, there) not in ALLOWED_ON_ONE_FLOOR:
                found.append(f"{here} -> {there}")
        if name.startswith(DISTRIBUTED_LIBRARIES) and here not in ("distributed", "engine"):
            found.append(f"{here} -> {name}")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downward(path: Path) -> None:
    here = place(path)
    if here == "__init__":
        return
    assert here in FLOORS, f"{path} stands on no floor; give {here!r} a place in FLOORS"
    assert violations(here, imports(path)) == []


def test_the_test_can_fail() -> None:
    assert violations("models", iter(["dist_dsvae.engine.trainer"])) == ["models -> engine"]
    assert violations("models", iter(["dist_dsvae.data.plan"])) == ["models -> data"]
    assert violations("sampling", iter(["dist_dsvae.evaluation.probes"])) == ["sampling -> evaluation"]
    assert violations("methods", iter(["torch.distributed"])) == ["methods -> torch.distributed"]
    assert violations("engine", iter(["dist_dsvae.methods.step", "accelerate"])) == []


def test_evaluation_and_sampling_know_no_trainer() -> None:
    for folder in ("evaluation", "sampling"):
        for path in (PACKAGE / folder).glob("*.py"):
            assert "rainer" not in path.read_text(encoding="utf-8").replace("never of a trainer", "")


@pytest.mark.parametrize("path", sorted((REPOSITORY / "shards").glob("*.py")), ids=lambda p: p.name)
def test_shard_tools_use_only_the_data_floor(path: Path) -> None:
    used = {inner(name) for name in imports(path)} - {None}
    assert used <= {"data", "noise", "types", "option_types", "paths"}


def test_no_utils_and_no_big_files() -> None:
    for path in MODULES:
        assert path.stem not in ("utils", "helpers", "misc", "common")
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 330, path
