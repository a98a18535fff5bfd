"""launch/slurm/ without a cluster: the shell reads the scripts."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.distributed.launching import REPOSITORY

SCRIPTS = sorted((REPOSITORY / "launch/slurm").glob("*.s*"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_reads_it(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_shellcheck_has_nothing_to_say() -> None:
    done = subprocess.run(["shellcheck", *map(str, SCRIPTS)], capture_output=True, text=True, check=False)
    assert done.stdout == ""


def test_scripts_ask_slurm_for_the_same() -> None:
    """seeds.sbatch goes on as train.sbatch, whose options SLURM does not read then."""
    train, seeds = (
        {
            line
            for line in (REPOSITORY / f"launch/slurm/{name}.sbatch").read_text().splitlines()
            if "#SBATCH" in line
        }
        for name in ("train", "seeds")
    )
    assert seeds - train == {"#SBATCH --job-name=dist_dsvae-seeds", "#SBATCH --array=0-4"}
    assert train - seeds == {"#SBATCH --job-name=dist_dsvae"}


@pytest.mark.parametrize(
    ("config", "run_dir"),
    [
        ("configs/lfw.json", "runs/lfw-seed-4"),
        ("configs/paper/lfw.json", "runs/paper-lfw-seed-4"),
        ("/home/me/v1.2/own.json", "runs/own-seed-4"),
    ],
)
def test_seeds_of_two_experiments_have_folders_of_their_own(
    config: str, run_dir: str, tmp_path: Path
) -> None:
    (tmp_path / "launch/slurm").mkdir(parents=True)
    (tmp_path / "launch/slurm/train.sbatch").write_text('printf "%s\\n" "$@"\n')
    done = subprocess.run(
        ["bash", str(REPOSITORY / "launch/slurm/seeds.sbatch"), config, "--set", "train.epochs=1"],
        env=os.environ | {"SLURM_ARRAY_TASK_ID": "4", "SLURM_SUBMIT_DIR": str(tmp_path), "RUNS_FOLDER": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        config, "--set", "train.epochs=1", "--set", "seed=4", "--run-dir", run_dir,
    ]  # fmt: skip
