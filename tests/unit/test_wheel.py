"""The wheel alone, outside the repository, loads an exported model and samples."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dist_dsvae.config import DSVAEConfig
from tests.unit.pretrained.making import make_model

REPOSITORY = Path(__file__).parents[2]


def test_the_wheel_loads_a_model_and_samples(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")  # the build's own; nothing is fetched for this test
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "dist_dsvae", source / "dist_dsvae", ignore=ignored)
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("dist_dsvae-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")

    make_model(DSVAEConfig()).save_pretrained(tmp_path / "model")
    script = (
        "import dist_dsvae; from dist_dsvae import PretrainedModel; print(dist_dsvae.__file__);"
        "print(PretrainedModel.from_pretrained('./model').sample('bag', 2, 0))"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path / "installed"))
    assert done.stdout.count("PIL.Image") == 2
