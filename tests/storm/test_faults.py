"""Law 4 under fire: disks and networks that fail, jobs that meet, ranks that stop, workers that die.

pytest -m storm tests/storm -s
"""

from __future__ import annotations

import collections
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import webdataset

from dist_dsvae.building.indexing import index
from tests.distributed.launching import (
    REPOSITORY,
    command,
    differing_tensors,
    environment,
    epochs_of,
    kill_job,
    metrics,
    ranks_of,
    train,
    write_config,
)
from tests.unit.data.http_server import Server, serving
from tests.unit.data.test_stream import png

COUNTS = [24] * 6
ITERATIONS = 6  # of 48 samples: two epochs
STEPS = 60
pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faults") / "faults.so"
    source = Path(__file__).with_name("faults.c")
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", path, source, "-ldl"], check=True)
    except FileNotFoundError:
        pytest.skip("there is no C compiler (cc)")
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("shards")
    (folder / "train").mkdir()
    rng = np.random.default_rng(0)
    for shard, count in enumerate(COUNTS):
        with webdataset.TarWriter(str(folder / "train" / f"{shard:06d}.tar")) as writer:
            for row in range(count):
                image = png(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
                writer.write({"__key__": f"{shard}-{row}", "png": image, "cls": row % 3})
    index(folder / "train", command="test")
    with serving(folder) as running:
        yield running


def config_of(folder: Path, server: Server, **train_settings: Any) -> Path:
    """Everything at once: shards from afar in a cache that is too small, pictures, curves, checkpoints."""
    folder.mkdir()
    cache = {"cache_dir": str(folder / "cache"), "cache_gib": 3e-4}
    patience = {"fetch_tries": 4, "fetch_pause_seconds": 0.01}
    schedule = {
        "epochs": epochs_of(ITERATIONS, num_samples=sum(COUNTS)),
        "checkpoint_every_steps": 1,
        "sample_every_steps": 3,
        "evaluate_at_end": False,
        "trackers": ["tensorboard"],
        "ema_half_life_updates": 2.0,
    }
    return write_config(
        folder / "c.json",
        data={"train": server.url, "shuffle_window_shards": 1, **cache, **patience},
        train=schedule | train_settings,
    )


def storm(library: Path, config: Path, run_dir: Path, seed: int, every: int) -> dict[str, Any]:
    log = config.parent.with_name(f"{run_dir.name}.log")  # which no fault is to reach
    with log.open("wb") as stream:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.storm.train_again",
                str(config),
                str(run_dir),
                str(seed),
                str(every),
            ],
            cwd=REPOSITORY,
            env=environment() | {"LD_PRELOAD": str(library), "FAULTS_UNDER": str(config.parent)},
            stdout=subprocess.PIPE,
            stderr=stream,
            timeout=1800,
            check=False,
        )
    said = log.read_text()
    assert "Traceback" not in said, said[said.index("Traceback") - 300 :][:4000]
    assert done.returncode == 0, said[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    # every end but the last had its sentence
    assert said.count("error: ") == result["starts"] - 1
    return result


def assert_same(run_dir: Path, undisturbed: Path) -> None:
    """The same tensors bit for bit; no line of metrics twice or otherwise than it was. Some may be lost."""
    assert differing_tensors(run_dir, undisturbed, ITERATIONS) == []
    lines, expected = metrics(run_dir), metrics(undisturbed)
    assert all(line in expected for line in lines)
    seen = [line["samples_seen"] for line in lines]
    assert seen == sorted(set(seen))


@pytest.mark.storm
def test_faults_in_whole_trainings(library: Path, server: Server, tmp_path: Path) -> None:
    config = config_of(tmp_path / "faulty", server)
    train(1, tmp_path / "undisturbed", config)
    faults: collections.Counter[str] = collections.Counter()
    runs = starts = 0
    while faults.total() < 20:
        run_dir = config.parent / f"run-{runs}"
        result = storm(library, config, run_dir, runs, 1500)
        faults.update(result["faults"])
        runs, starts = runs + 1, starts + result["starts"]
        assert_same(run_dir, tmp_path / "undisturbed")
    print(f"\n{faults.total()} faults in {starts} starts of {runs} runs, all survived: {dict(faults)}")


def saved_again(server: Server, folder: Path, library: Path | None, seed: int, every: int) -> dict[str, Any]:
    folder.mkdir()
    faulty = {} if library is None else {"LD_PRELOAD": str(library), "FAULTS_UNDER": str(folder)}
    program = [sys.executable, "-m", "tests.storm.save_again", server.url, str(folder)]
    done = subprocess.run(
        [*program, str(seed), str(every), str(STEPS)],
        cwd=REPOSITORY,
        env=environment() | faulty,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Traceback" not in done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    result["lines"] = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return result


def test_a_few_faults(library: Path, server: Server, tmp_path: Path) -> None:
    undisturbed = saved_again(server, tmp_path / "undisturbed", None, 0, 0)
    result = saved_again(server, tmp_path / "run", library, 9, 100)
    assert sum(result["faults"].values()) > 10
    assert result["mixed"] == undisturbed["mixed"]


@pytest.mark.storm
def test_hundreds_of_faults_without_networks(library: Path, server: Server, tmp_path: Path) -> None:
    """Lock, shards from afar, metrics and checkpoints alone: quick enough for every call to fail often."""
    undisturbed = saved_again(server, tmp_path / "undisturbed", None, 0, 0)
    assert len(undisturbed["lines"]) == STEPS
    faults: collections.Counter[str] = collections.Counter()
    starts = lost_lines = 0
    for seed in range(4):
        result = saved_again(server, tmp_path / f"run-{seed}", library, seed, 30)
        assert result["mixed"] == undisturbed["mixed"]  # no sample lost or repeated, no state mixed up
        assert all(line in undisturbed["lines"] for line in result["lines"])
        seen = [line["samples_seen"] for line in result["lines"]]
        assert seen == sorted(set(seen))
        lost_lines += STEPS - len(seen)
        starts += result["starts"]
        faults.update(result["faults"])
    assert faults.total() >= 200
    assert min(faults.values()) >= 5
    print(f"\n{faults.total()} faults in {starts} starts, all survived, {lost_lines} lines: {dict(faults)}")


def started(run_dir: Path, config: Path, processes: int) -> subprocess.Popen[bytes]:
    """A job that has begun to train."""
    log = run_dir / "metrics.jsonl"
    before = log.stat().st_mtime_ns if log.exists() else 0
    output = run_dir.with_suffix(".log").open("ab")
    job = subprocess.Popen(
        command(processes, run_dir, config), cwd=REPOSITORY, env=environment(), stdout=output, stderr=output
    )
    deadline = time.monotonic() + 180
    while not log.exists() or log.stat().st_mtime_ns == before:
        assert job.poll() is None, run_dir.with_suffix(".log").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return job


def workers_of(job: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Data workers: children of the training process."""
    children = psutil.Process(job.pid).children(recursive=True)
    return [
        p
        for p in children
        if "launch/train.py" in " ".join(p.cmdline()) and len(p.parents()) and not p.children()
    ]


@pytest.mark.storm
def test_jobs_that_meet_workers_that_die_and_ranks_that_stop(tmp_path: Path) -> None:
    num = 4000
    schedule = {
        "epochs": epochs_of(num),
        "checkpoint_every_steps": 5,
        "collective_timeout_seconds": 8,
        "max_seconds": 0,
        "evaluate_at_end": False,
    }
    config = write_config(tmp_path / "c.json", data={"num_workers": 1}, train=schedule)
    run_dir = tmp_path / "run"
    survived: collections.Counter[str] = collections.Counter()

    # Two jobs on one directory, again and again, while the first trains; then its worker dies
    for _ in range(3):
        job = started(run_dir, config, 1)
        said = train(1, run_dir, config, check=False)
        assert "is in use: process" in said
        survived["second job"] += 1
        for worker in workers_of(job)[:1]:
            worker.kill()
        assert job.wait(timeout=120) == 1
        said = run_dir.with_suffix(".log").read_text()
        assert "error: " in said
        assert f"{REPOSITORY}/dist_dsvae" not in said  # no traceback but the launcher's own
        survived["worker killed"] += 1

    # A rank stands still: the other names it and ends
    for _ in range(2):
        job = started(run_dir, config, 2)
        ranks = ranks_of(psutil.Process(job.pid))
        os.kill(ranks[1].pid, signal.SIGSTOP)
        try:
            gone, _ = psutil.wait_procs(ranks[:1], timeout=120)
            assert len(gone) == 1
        finally:
            kill_job(job)
        assert "was last heard of" in run_dir.with_suffix(".log").read_text()
        survived["rank stopped"] += 1

    # What is left is a run like any other, and goes on to the same end as one that was left alone
    end = max(int(path.name[5:]) for path in (run_dir / "checkpoints").glob("step-*")) + 3
    more = ("--set", f"train.epochs={epochs_of(end)}")
    train(1, run_dir, config, *more)
    train(1, tmp_path / "undisturbed", config, *more)
    got = {line["samples_seen"]: line for line in metrics(run_dir)}
    assert list(got) == [line["samples_seen"] for line in metrics(tmp_path / "undisturbed")]
    print(f"\nsurvived: {dict(survived)}")
