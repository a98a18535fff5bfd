"""launch/slurm/ without a cluster: the shell reads the scripts."""

from __future__ import annotations

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
