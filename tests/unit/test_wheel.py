"""The wheel alone, in an empty directory outside the repository: commands, configs, data, model."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dist_dsvae.config import DSVAEConfig
from dist_dsvae.core.shipped import SHIPPED
from tests.programs import REPOSITORY
from tests.unit.pretrained.making import make_model

# Behind every training: two iterations of small networks, on one thread
SMALL = {
    "train.epochs": "1e-9",
    "train.cpu_threads": "1",
    "train.evaluate_at_end": "false",
    "data.batch_size": "8",
    "data.num_workers": "0",
    "model.zs_dim": "4",
    "model.zu_dim": "4",
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the wheel's files, below which no source is."""
    pytest.importorskip("setuptools", minversion="77")  # the build's own; nothing is fetched for these tests
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("dist_dsvae", *SHIPPED):
        shutil.copytree(REPOSITORY / name, source / name, ignore=ignored)
    pip = [sys.executable, "-m", "pip"]
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(folder)]
    subprocess.run([*pip, "wheel", *options, str(source)], check=True, cwd=folder)
    (wheel,) = folder.glob("dist_dsvae-*.whl")
    target = ["--target", str(folder / "installed")]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--quiet", *target, str(wheel)], check=True)
    shutil.rmtree(source)
    return folder / "installed"


def environment(installed: Path) -> dict[str, str]:
    """The packages that tests run with, and in the place of the sources the wheel's files."""
    return os.environ | {"PYTHONPATH": str(installed), "XDG_CACHE_HOME": str(installed.parent / "cache")}


def run(installed: Path, directory: Path, *command: str, status: int = 0) -> str:
    """What a command prints, in a directory; it has to end with ``status``."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=directory,
        env=environment(installed),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def workplace(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that was empty before the quickstart ran in it for an iteration."""
    directory = tmp_path_factory.mktemp("empty")
    settings = [f"--set={key}={value}" for key, value in SMALL.items()]
    printed = run(installed, directory, str(installed / "bin/dsvae"), "train", "quickstart", *settings)
    assert "10,000 samples of 10 classes in 5 shards" in printed
    assert [path.name for path in directory.iterdir()] == ["runs"]
    return directory


def test_it_loads_a_model_and_samples(installed: Path, tmp_path: Path) -> None:
    make_model(DSVAEConfig()).save_pretrained(tmp_path / "model")
    script = (
        "import dist_dsvae; from dist_dsvae import PretrainedModel; print(dist_dsvae.__file__);"
        "print(PretrainedModel.from_pretrained('./model').sample('bag', 2, 0))"
    )
    printed = run(installed, tmp_path, "-c", script)
    assert printed.startswith(str(installed))
    assert printed.count("PIL.Image") == 2


def test_it_names_its_experiments(installed: Path, tmp_path: Path) -> None:
    dsvae = str(installed / "bin/dsvae")
    names = run(installed, tmp_path, dsvae, "config", "--names").split()
    configs = REPOSITORY / "configs"
    assert names == sorted(
        str(path.relative_to(configs))[: -len(".json")] for path in configs.rglob("*.json")
    )
    printed = run(installed, tmp_path, dsvae, "train", "baselines/cvae-quickstart", "--print-run-dir")
    assert "runs/cvae-quickstart" in printed.splitlines()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_quickstart_is_drawn_from_and_evaluated(installed: Path, workplace: Path) -> None:
    dsvae = str(installed / "bin/dsvae")
    run(installed, workplace, dsvae, "generate", "grid", "--run", "runs/quickstart")
    assert Image.open(workplace / "grid.png").width > 600
    few = ["--samples-per-class", "4", "--set", "evaluation.diversity_samples=3"]
    few += ["--set", "evaluation.splits=2", "--set", "evaluation.neighbour_samples=9"]
    printed = run(installed, workplace, dsvae, "evaluate", "--run", "runs/quickstart", *few)
    assert "fid" in (workplace / "runs/quickstart/evaluation/scores.json").read_text(), printed


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_figures_need_no_argument(installed: Path, tmp_path: Path) -> None:
    dsvae = str(installed / "bin/dsvae")
    has_model = (installed / "dist_dsvae/box/shards/fashion-mnist-mini/model/config.json").is_file()
    printed = run(installed, tmp_path, dsvae, "generate", "grid", status=0 if has_model else 1)
    if has_model:
        assert Image.open(tmp_path / "grid.png").width > 600
    else:
        assert "No model is given, and none comes with this installation. Give --run RUN" in printed


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("arguments", "shown"), [([], b"fashion-mnist"), (["--run", "runs/quickstart"], b"quickstart")]
)
def test_the_page_opens(installed: Path, workplace: Path, arguments: list[str], shown: bytes) -> None:
    pytest.importorskip("gradio", reason="the page needs the extra explore")
    command = [sys.executable, str(installed / "bin/dsvae"), "explore", *arguments]
    with subprocess.Popen(
        [*command, "--port", "0"],
        cwd=workplace,
        env=environment(installed),
        stdout=subprocess.PIPE,
        text=True,
    ) as page:
        try:
            assert page.stdout is not None
            line = page.stdout.readline()
            assert line.startswith("Open http://127.0.0.1:"), line
            with urllib.request.urlopen(line.split()[1], timeout=60) as answer:
                assert shown in answer.read()
        finally:
            page.terminate()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_persons_photographs_are_trained_on(installed: Path, tmp_path: Path) -> None:
    dsvae = str(installed / "bin/dsvae")
    rng = np.random.default_rng(0)
    for name in ("anna", "ben"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"photos/{name}/{number:02d}.jpg")
    build = ["build", "folder", "photos", "out", "--size", "32", "--test-fraction", "0.2", "--workers", "1"]
    run(installed, tmp_path, dsvae, *build)
    settings = SMALL | {"data.train": "out/train", "data.test": "out/test", "evaluation.classifier": "null"}
    train = ["train", "quickstart", "--run-dir", "runs/mine"]
    printed = run(
        installed, tmp_path, dsvae, *train, *(f"--set={key}={value}" for key, value in settings.items())
    )
    assert "32 samples of 2 classes in 1 shards" in printed
    assert (tmp_path / "runs/mine/checkpoints").is_dir()
