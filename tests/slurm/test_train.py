"""launch/slurm/ on a real cluster of two nodes: to the end, preempted, requeued, cancelled."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.distributed.launching import (
    REPOSITORY,
    differing_tensors,
    epochs_of,
    metrics,
    train,
    write_config,
)
from tests.slurm.cluster import Cluster, metric_lines, read_json, wait_until, why_not
from tests.unit.data.http_server import serving

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]

ITERATIONS = 72
LAST = f"checkpoints/step-{ITERATIONS:08d}"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slurm")
    return write_config(
        folder / "c.json",
        data={"test": "shards/fashion-mnist-mini/test"},
        train={
            "epochs": epochs_of(ITERATIONS),
            "checkpoint_every_steps": 6,
            "log_every_steps": 2,
            "evaluate_at_end": False,
        },
    )


@pytest.fixture(scope="module")
def undisturbed(config: Path) -> Path:
    """The same run outside SLURM: two processes of one launcher."""
    run_dir = config.parent / "undisturbed"
    train(2, run_dir, config)
    return run_dir


class Job:
    """One submission of a script of launch/slurm, with this interpreter's environment."""

    def __init__(self, cluster: Cluster, log: Path, run_dir: Path, *command: str, **variables: str) -> None:
        self.cluster = cluster
        self.log = log
        self.run_dir = run_dir
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        variables = {"PATH": path} | variables
        self.number = cluster.submit(REPOSITORY, f"--output={log}", *command, **variables)

    def output(self) -> str:
        return self.log.read_text() if self.log.is_file() else ""

    def wait_for_lines(self, lines: int) -> None:
        wait_until(lambda: metric_lines(self.run_dir) >= lines, 90, self.output)

    def wait_for_end(self, state: str, seconds: float = 150) -> None:
        self.cluster.wait_for_end(self.number, state, self.output, seconds)


def submit(cluster: Cluster, run_dir: Path, config: Path, *options: str, **variables: str) -> Job:
    script = str(REPOSITORY / "launch/slurm/train.sbatch")
    command = [*options, script, str(config), "--run-dir", str(run_dir)]
    return Job(cluster, run_dir.with_suffix(".log"), run_dir, *command, **variables)


def preempt(job: Job) -> None:
    """Give the nodes to another job for a second; the first one must queue itself again."""
    urgent = ("--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    other = job.cluster.submit(job.log.parent, *urgent)
    wait_until(lambda: "Stopped early; queued again." in job.output(), 60, job.output)
    job.cluster.wait_for_end(other, "COMPLETED", job.output)


def assert_same_end(run_dir: Path, undisturbed: Path) -> None:
    assert differing_tensors(run_dir, undisturbed, ITERATIONS) == []
    assert metrics(run_dir) == metrics(undisturbed)


def test_two_nodes_warned_and_requeued(cluster: Cluster, config: Path, undisturbed: Path) -> None:
    """The time limit's warning, then `scontrol requeue`: two stops, and the end of the undisturbed run."""
    job = submit(cluster, config.parent / "preempted", config, "--nodes=2")

    # SLURM's warning, as --signal=B:USR2@300 gives it: to the batch shell alone
    job.wait_for_lines(2)
    cluster.run("scancel", "--signal=USR2", "--batch", job.number)
    wait_until(lambda: "Stopped early; queued again." in job.output(), 60, job.output)
    assert read_json(job.run_dir / "stopped-early.json")["reason"] == "stop-request"
    stopped_at = read_json(job.run_dir / "stopped-early.json")["step"]
    assert stopped_at < ITERATIONS

    # An administrator's requeue, and PreemptMode=REQUEUE: SIGTERM to all processes, then SIGKILL
    job.wait_for_lines(stopped_at // 2 + 3)
    cluster.run("scontrol", "requeue", job.number)

    job.wait_for_end("COMPLETED")
    assert cluster.job(job.number)["Restarts"] == "2"
    assert job.output().count("Training with 2 processes") == 3
    assert job.output().count("Resumed") == 2
    assert_same_end(job.run_dir, undisturbed)
    assert not (job.run_dir / "stopped-early.json").exists()


def test_one_node_preempted_then_cancelled(cluster: Cluster, config: Path) -> None:
    """A job of higher priority: SIGTERM and a grace time. Then scancel, which is final. Both save."""
    # A process for each GPU that SLURM counts; none is there, so the trainer takes the CPU
    options = ("--nodes=1", "--gpus-per-node=2", "--cpus-per-task=2")
    job = submit(cluster, config.parent / "cancelled", config, *options, CUDA_VISIBLE_DEVICES="")
    record = job.run_dir / "stopped-early.json"

    job.wait_for_lines(1)
    preempt(job)
    first = read_json(record)
    assert first["reason"] == "SIGTERM"

    job.wait_for_lines(first["step"] // 2 + 1)
    cluster.run("scancel", job.number)
    job.wait_for_end("CANCELLED")
    second = read_json(record)
    assert second["reason"] == "SIGTERM"
    assert first["step"] < second["step"] < ITERATIONS
    assert (job.run_dir / f"checkpoints/step-{second['step']:08d}").is_dir()
    assert cluster.job(job.number)["Restarts"] == "1"
    assert job.output().count("Training with 2 processes") == 2


def test_preempted_while_it_starts(cluster: Cluster, config: Path, tmp_path: Path) -> None:
    """Before the run heeds signals: there is nothing to save, and all of it comes again."""
    run_dir = config.parent / "starting"
    with serving(REPOSITORY / "shards/fashion-mnist-mini") as server:
        # The start waits for its data for as long as it takes to be preempted
        server.tell("manifest.json", "slow", times=1, seconds=120)
        tree = read_json(config)
        tree["data"] |= {"train": server.url, "cache_dir": str(tmp_path / "cache"), "test": None}
        job = submit(cluster, run_dir, write_config(tmp_path / "c.json", **tree), "--nodes=1")
        wait_until(lambda: server.requests()["manifest.json"] == 1, 90, job.output)
        preempt(job)
        assert (run_dir / "lock.json").exists()
        assert metric_lines(run_dir) == 0
        job.wait_for_end("COMPLETED")
    assert metric_lines(run_dir) == ITERATIONS // 2
    assert cluster.job(job.number)["Restarts"] == "1"


def test_zero_on_two_nodes(cluster: Cluster, config: Path, tmp_path: Path) -> None:
    """Each node's launcher starts its own processes, where DeepSpeed would log in to the others."""
    tree = read_json(config)
    tree["train"] |= {"epochs": epochs_of(4)}
    # One process for the GPU that SLURM counts on each; none is there, so ZeRO trains on the CPUs
    options = ("--nodes=2", "--gpus-per-node=1", "--cpus-per-task=1")
    variables = {
        "LAUNCH_ARGUMENTS": "--config_file configs/accelerate/zero2.yaml",
        "CUDA_VISIBLE_DEVICES": "",
    }
    job = submit(cluster, tmp_path / "zero", write_config(tmp_path / "c.json", **tree), *options, **variables)
    job.wait_for_end("COMPLETED", 400)  # its first start on a machine compiles an operator
    assert "Training with 2 processes" in job.output()
    assert "ZeRO stage 2" in job.output()
    assert metric_lines(job.run_dir) == 2


def test_seeds(cluster: Cluster, config: Path, tmp_path: Path) -> None:
    """An element that is warned comes back, and it alone."""
    script = str(REPOSITORY / "launch/slurm/seeds.sbatch")
    shorter = ("--set", f"train.epochs={epochs_of(40)}")
    command = ("--array=3,5", script, str(config), *shorter)
    number = Job(cluster, tmp_path / "%a.log", tmp_path, *command, RUNS_FOLDER=str(tmp_path)).number
    elements = {seed: f"{number}_{seed}" for seed in (3, 5)}
    run_dirs = {seed: tmp_path / f"c-seed-{seed}" for seed in elements}
    logs = {seed: tmp_path / f"{seed}.log" for seed in elements}

    # SLURM gives one element the number of the whole array
    same = [seed for seed, element in elements.items() if cluster.job(element)["JobId"] == number]
    warned = same[0] if same else 5
    wait_until(lambda: metric_lines(run_dirs[warned]) >= 1, 90, cluster.logs)
    cluster.run("scancel", "--signal=USR2", "--batch", elements[warned])

    for seed, element in elements.items():
        cluster.wait_for_end(element, "COMPLETED", logs[seed].read_text)
        assert cluster.job(element)["Restarts"] == str(int(seed == warned))
        assert "Training with 1 process on CPU" in logs[seed].read_text()
        assert read_json(run_dirs[seed] / "config.json")["seed"] == seed
        assert metric_lines(run_dirs[seed]) == 20
    assert metrics(run_dirs[3]) != metrics(run_dirs[5])


def test_evaluating_a_run(cluster: Cluster, undisturbed: Path, tmp_path: Path) -> None:
    """Two processes on one node, preempted once; the run was trained on data with a test split."""
    script = str(REPOSITORY / "launch/slurm/evaluate.sbatch")
    arguments = (script, str(undisturbed), "--step", str(ITERATIONS))
    begun, container = tmp_path / "begun", tmp_path / "container.sh"
    container.write_text(
        f'mkdir {begun} && exec sleep 300\nexec "$@"\n'
    )  # the first start does not end by itself
    variables = {"PROCESSES_PER_NODE": "2", "CONTAINER_COMMAND": f"bash {container}"}
    job = Job(cluster, tmp_path / "evaluate.log", undisturbed, *arguments, **variables)
    wait_until(begun.exists, 60, job.output)
    preempt(job)
    job.wait_for_end("COMPLETED")
    assert cluster.job(job.number)["Restarts"] == "1"
    result = read_json(undisturbed / "evaluation/scores.json")
    assert (result["checkpoint"], result["processes"]) == (Path(LAST).name, 2)
    assert 0 <= result["figures"]["zs_accuracy"] <= 1

    missing = Job(cluster, tmp_path / "missing.log", tmp_path, script, str(tmp_path / "nowhere"))
    missing.wait_for_end("FAILED")
    assert "There is no run directory" in missing.output()


def test_python_is_needed_inside_the_step_alone(cluster: Cluster, config: Path, tmp_path: Path) -> None:
    """As with containers, started by srun's arguments or a command of their own: outside is no Python."""
    outside = "/usr/bin:/bin"
    inside = f"{Path(sys.executable).parent}:{outside}"
    prolog = tmp_path / "prolog.sh"
    prolog.write_text(f"#!/bin/sh\necho export PATH={inside}\n")
    prolog.chmod(0o755)
    run_dir = tmp_path / "inside"
    script = str(REPOSITORY / "launch/slurm/train.sbatch")
    shorter = ("--run-dir", str(run_dir), "--set", f"train.epochs={epochs_of(4)}")
    variables = {"PATH": outside, "SRUN_ARGUMENTS": f"--task-prolog={prolog}"}
    command = ("--nodes=2", script, str(config), *shorter)
    training = Job(cluster, tmp_path / "inside.log", run_dir, *command, **variables)
    training.wait_for_end("COMPLETED")
    assert "Training with 2 processes" in training.output()
    assert metric_lines(run_dir) == 2

    script = str(REPOSITORY / "launch/slurm/evaluate.sbatch")
    variables = {"PATH": outside, "CONTAINER_COMMAND": f"env PATH={inside}"}
    scoring = Job(cluster, tmp_path / "scoring.log", run_dir, script, str(run_dir), **variables)
    scoring.wait_for_end("COMPLETED")
    assert (run_dir / "evaluation/scores.json").is_file()


def test_a_container_without_the_repository(cluster: Cluster, config: Path, tmp_path: Path) -> None:
    """The checks cannot even begin: srun says so, and the script what to mount."""
    script = str(REPOSITORY / "launch/slurm/train.sbatch")
    variables = {"SRUN_ARGUMENTS": f"--chdir={tmp_path}"}
    job = Job(cluster, tmp_path / "elsewhere.log", tmp_path, script, str(config), **variables)
    job.wait_for_end("FAILED")
    assert "0 of 1 nodes are ready." in job.output()
    assert f"--container-mounts {REPOSITORY}:{REPOSITORY}" in job.output()


def test_mistakes_get_a_sentence(cluster: Cluster, config: Path, tmp_path: Path) -> None:
    """Before any launcher is started."""
    known = (str(config),)
    mistakes: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
        "There is no config file nowhere.json": (("nowhere.json",), {}),
        "Name an experiment": ((), {}),
        "/nowhere has no bin/activate": (known, {"VIRTUAL_ENVIRONMENT": "/nowhere"}),
        "Set VIRTUAL_ENVIRONMENT, or activate one": (known, {"PATH": "/usr/bin:/bin"}),
        "PROCESSES_PER_NODE=two is not a positive number": (known, {"PROCESSES_PER_NODE": "two"}),
        "Unknown key 'trian'": ((*known, "--set", "trian.epochs=1"), {}),
    }
    script = str(REPOSITORY / "launch/slurm/train.sbatch")
    jobs = {
        sentence: Job(cluster, tmp_path / f"{index}.log", tmp_path, script, *arguments, **variables)
        for index, (sentence, (arguments, variables)) in enumerate(mistakes.items())
    }
    for sentence, job in jobs.items():
        job.wait_for_end("FAILED")
        assert sentence in job.output()
        assert "srun" not in job.output()
