"""The scripts run from a clone that is not installed, from any directory."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.distributed.launching import epochs_of, write_config
from tests.programs import PROGRAMS, REPOSITORY


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python's packages without this one, neither code nor metadata."""
    packages = tmp_path_factory.mktemp("packages")
    for folder in {
        sysconfig.get_paths()["purelib"],
        sysconfig.get_paths()["platlib"],
        *site.getsitepackages(),
    }:
        for path in Path(folder).glob("*"):
            if "dist_dsvae" not in path.name and not (packages / path.name).exists():
                (packages / path.name).symlink_to(path)
    return packages


def run(elsewhere: Path, cwd: Path, *arguments: object) -> str:
    # -S: no site-packages, so no .pth file of an editable installation
    environment = os.environ | {"PYTHONPATH": str(elsewhere)}
    done = subprocess.run(
        [sys.executable, "-S", *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_package_is_really_not_installed(elsewhere: Path, tmp_path: Path) -> None:
    script = "import importlib.util, torch; print(importlib.util.find_spec('dist_dsvae'))"
    assert run(elsewhere, tmp_path, "-c", script).strip() == "None"


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_script_finds_the_package_beside_it(elsewhere: Path, tmp_path: Path, program: str) -> None:
    assert run(elsewhere, tmp_path, REPOSITORY / program, "--help").startswith(f"usage: {Path(program).name}")


def test_a_run_and_its_export_record_that_it_is_not_installed(elsewhere: Path, tmp_path: Path) -> None:
    data = {"train": str(REPOSITORY / "shards/fashion-mnist-mini/test")}
    schedule = {"epochs": epochs_of(1, num_samples=2000), "evaluate_at_end": False}
    config = write_config(tmp_path / "c.json", data=data, train=schedule)
    train = (REPOSITORY / "launch/train.py", "--config", config, "--run-dir", "run")
    assert "step 1/1" in run(elsewhere, tmp_path, *train)
    run(elsewhere, tmp_path, REPOSITORY / "launch/export.py", "--run", "run", "--out", "model")
    recorded = json.loads((tmp_path / "run/environment.json").read_text())[0]["packages"]
    assert recorded["torch"] is not None
    assert recorded["dist_dsvae"] is None
    assert "not installed" in (tmp_path / "model/config.json").read_text()
