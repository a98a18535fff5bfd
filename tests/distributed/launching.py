"""Run the real thing: `accelerate launch ... launch/train.py`, in new interpreters or forked ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from tests.forking import REPOSITORY, launch_program, run_program


def command(
    num_processes: int, run_dir: Path, config: Path, *arguments: str, launcher_file: str = "cpu.yaml"
) -> list[str]:
    """What a person types: each process is a new interpreter."""
    words = launcher_words(num_processes, launcher_file)
    return [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        *words,
        *training(run_dir, config, *arguments),
    ]


def launcher_words(num_processes: int, launcher_file: str = "cpu.yaml") -> list[str]:
    """Options of `accelerate launch` for so many processes of this machine."""
    if num_processes == 1 and launcher_file == "cpu.yaml":
        return ["--num_processes", "1"]  # or it would start one for every GPU
    return [
        *("--config_file", str(REPOSITORY / "configs/accelerate" / launcher_file)),
        *("--num_processes", str(num_processes), "--main_process_port", "0"),
    ]


def training(run_dir: Path, config: Path, *arguments: str) -> list[str]:
    """The script, and its arguments."""
    script = str(REPOSITORY / "launch/train.py")
    return [script, "--config", str(config), "--run-dir", str(run_dir), *arguments]


def environment(*, with_gpus: bool = False) -> dict[str, str]:
    """Without what an outer launcher may have set, and without GPUs: these tests are of CPUs.

    configs/accelerate/cpu.yaml is of the type MULTI_GPU, so that each process would take a GPU of its own.
    """
    dropped = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    kept = {k: v for k, v in os.environ.items() if k not in dropped and not k.startswith("ACCELERATE_")}
    return kept if with_gpus else kept | {"CUDA_VISIBLE_DEVICES": ""}


def train(
    num_processes: int,
    run_dir: Path,
    config: Path,
    *arguments: str,
    launcher_file: str = "cpu.yaml",
    check: bool = True,
) -> str:
    """Run to the end, in forked processes; standard output and error together."""
    words = training(run_dir, config, *arguments)
    if num_processes == 1 and launcher_file == "cpu.yaml":
        done = run_program(*words, environment=environment())
    else:
        words = [*launcher_words(num_processes, launcher_file), *words]
        done = launch_program(*words, environment=environment())
    output = done.stdout + done.stderr
    assert not check or done.returncode == 0, output
    return output


def train_anew(run_dir: Path, config: Path, *arguments: str) -> str:
    """One process, a new interpreter, which may see GPUs; standard output and error together."""
    done = subprocess.run(
        command(1, run_dir, config, *arguments),
        cwd=REPOSITORY,
        env=environment(with_gpus=True),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def write_config(path: Path, **sections: Any) -> Path:
    """A tiny experiment on the embedded shards, with ``sections`` merged in."""
    tree: dict[str, Any] = {
        "data": {"train": "shards/fashion-mnist-mini/train", "batch_size": 12, "num_workers": 0},
        "model": {"architecture": "small32", "zs_dim": 8, "zu_dim": 8},
        "train": {
            "log_every_steps": 1,
            "sample_every_steps": 0,
            "checkpoint_every_steps": 0,
            "trackers": [],
            "cpu_threads": 1,
        },
    }
    for section, values in sections.items():
        tree[section] = tree.get(section, {}) | values
    path.write_text(json.dumps(tree))
    return path


def epochs_of(iterations: int, batch_size: int = 12, num_samples: int = 10_000) -> float:
    """train.epochs that gives exactly so many iterations of four batches."""
    return iterations * 4 * batch_size / num_samples


def metrics(run_dir: Path) -> list[dict[str, float]]:
    """The logged lines without what depends on the wall clock."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("images_per_second")
    return lines


def checkpoint_tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint by dotted name."""
    with tempfile.TemporaryDirectory() as folder:
        dcp_to_torch_save(checkpoint, f"{folder}/all.pt")
        tree = torch.load(f"{folder}/all.pt", weights_only=True)
    flat: dict[str, torch.Tensor] = {}

    def walk(prefix: str, node: Any) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                walk(f"{prefix}.{key}", value)
        else:
            flat[prefix] = node

    walk("", tree)
    return flat


def differing_tensors(run_dir: Path, other: Path, step: int) -> list[str]:
    """Names of the tensors in two runs' checkpoints of ``step`` that differ in any bit."""
    name = f"checkpoints/step-{step:08d}"
    got, expected = checkpoint_tensors(run_dir / name), checkpoint_tensors(other / name)
    assert got.keys() == expected.keys()
    return [key for key in expected if not torch.equal(got[key], expected[key])]


def ranks_of(launcher: psutil.Process) -> list[psutil.Process]:
    """The training processes of a launcher, without their data workers."""
    try:
        children = launcher.children()
        return [p for p in children if p.is_running() and "launch/train.py" in " ".join(p.cmdline())]
    except psutil.Error:
        return []


def kill_job(launcher: subprocess.Popen[bytes]) -> None:
    """The launcher and all that it started, if it still runs."""
    if launcher.poll() is None:
        for process in [*psutil.Process(launcher.pid).children(recursive=True), launcher]:
            process.kill()
        launcher.wait()
