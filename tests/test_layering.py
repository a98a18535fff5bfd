"""The house: imports point strictly downward, and only a few modules may speak to other processes."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "dist_dsvae"

# From the ground up; rooms on one floor ignore each other. A room holds the modules of its folder,
# and those of inner folders that are not rooms themselves.
FLOORS = (
    ("core",),
    ("config", "core.faces"),
    ("models", "data.shards"),
    ("methods", "data.remote"),
    ("sampling", "evaluation.judging", "data"),
    ("evaluation", "building"),
    ("evaluation.comparing", "pretrained"),
    ("runs",),
    ("explore", "engine.processes"),
    ("engine.reporting", "engine.stopping"),
    ("engine.iteration",),
    ("engine.evaluating", "engine.doctor", "engine.measuring"),
    ("engine",),
    ("commands",),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
SHARDS = {"data.shards", "data.remote", "data", "building"}
NETWORKS = {"models", "methods", "sampling", "evaluation.judging", "evaluation", "pretrained"}
# What stands lower, and is no business of theirs all the same
NEVER = {
    **dict.fromkeys(SHARDS, NETWORKS),
    **dict.fromkeys(NETWORKS, SHARDS),
    "explore": {"building"},
}
MAY_SPEAK = ("core.distributed.", "runs.checkpoint.", "engine.", "commands.benchmarks.")  # to other processes
DISTRIBUTED_LIBRARIES = ("accelerate", "deepspeed", "torch.distributed")
MODULES = sorted(PACKAGE.rglob("*.py"))
MOST_ENTRIES = 15


def imports(tree: ast.AST, where: object = "") -> Iterator[str]:
    """All that is imported anywhere in ``tree``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{where}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name_of(path: Path) -> str:
    """Of a module in the package, dotted: "data.plan"; "" for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(name: str) -> str | None:
    while name and name not in FLOOR_OF:
        name = name.rpartition(".")[0]
    return name or None


def violations(module: str, imported: Iterator[str]) -> list[str]:
    """What a module of the dotted name ``module`` may not import."""
    here = room_of(module)
    assert here is not None, f"{module} stands on no floor; give it a place in FLOORS"
    found = []
    for name in imported:
        if name.startswith(DISTRIBUTED_LIBRARIES) and not f"{module}.".startswith(MAY_SPEAK):
            found.append(f"{module} -> {name}")
        package, _, inner = name.partition(".")
        there = room_of(inner) if package == "dist_dsvae" else None
        if there in (None, here):
            continue
        if FLOOR_OF[there] >= FLOOR_OF[here] or there in NEVER.get(here, ()):
            found.append(f"{here} -> {there}")
    return sorted(set(found))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: name_of(p) or "dist_dsvae")
def test_imports_point_downward(path: Path) -> None:
    if module := name_of(path):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert violations(module, imports(tree, path)) == []


def test_the_test_can_fail() -> None:
    assert violations("models.decoder", iter(["dist_dsvae.engine.trainer"])) == ["models -> engine"]
    assert violations("engine.iteration.ema", iter(["dist_dsvae.engine.trainer"])) == [
        "engine.iteration -> engine"
    ]
    assert violations("data.plan", iter(["dist_dsvae.building.writer"])) == ["data -> building"]
    assert violations("data.shards.store", iter(["dist_dsvae.data.plan"])) == ["data.shards -> data"]
    assert violations("data.plan", iter(["dist_dsvae.models.decoder"])) == ["data -> models"]
    assert violations("pretrained.model", iter(["dist_dsvae.building.writer"])) == ["pretrained -> building"]
    assert violations("methods.dsvae", iter(["torch.distributed"])) == ["methods.dsvae -> torch.distributed"]
    assert violations("engine.trainer", iter(["dist_dsvae.methods.update", "accelerate"])) == []


def test_no_import_goes_in_a_circle() -> None:
    names = {name_of(path) for path in MODULES}
    graph = {}
    for path in MODULES:
        at_once = [
            n for n in ast.parse(path.read_text("utf-8")).body if not isinstance(n, ast.If)
        ]  # TYPE_CHECKING
        inner = (name.removeprefix("dist_dsvae.") for name in imports(ast.Module(at_once, [])))
        graph[name_of(path)] = {name for name in inner if name in names} - {name_of(path)}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_scripts_are_only_doors() -> None:
    for folder in ("launch", "shards"):
        for path in (REPOSITORY / folder).glob("*.py"):
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 13, path


def test_pictures_from_a_model_need_nothing_that_builds_shards() -> None:
    script = "import sys, dist_dsvae.pretrained.model, dist_dsvae.runs.export; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "dist_dsvae.pretrained.model" in loaded.split()
    assert not [name for name in loaded.split() if name.startswith("dist_dsvae.building")]


def test_a_stranger_finds_things() -> None:
    """No drawer for everything, no file or folder too large to look through, no name for two things."""
    stems: dict[str, list[Path]] = {}
    for path in MODULES:
        assert path.stem not in ("utils", "helpers", "misc", "common")
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 330, path
        if path.stem != "__init__" and path.parent.name != "commands":  # which are called as they are typed
            stems.setdefault(path.stem, []).append(path)
    assert {stem: paths for stem, paths in stems.items() if len(paths) > 1} == {}
    classes = [
        node.name
        for path in MODULES
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert sorted({name for name in classes if classes.count(name) > 1}) == []
    for folder in {path.parent for path in MODULES}:
        entries = [entry for entry in folder.iterdir() if entry.name != "__pycache__"]
        assert len(entries) <= MOST_ENTRIES, folder


def test_contributing_shows_the_house() -> None:
    from tests.house import lines

    shown = "\n".join(lines(PACKAGE, rooms_only=True))
    assert shown in (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8"), shown
