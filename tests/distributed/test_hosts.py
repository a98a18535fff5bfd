"""Two hosts: network namespaces with addresses of their own, joined by a cable that can be cut."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.distributed.launching import (
    REPOSITORY,
    differing_tensors,
    environment,
    epochs_of,
    metrics,
    train,
    write_config,
)

ITERATIONS = 40
TIMEOUT_SECONDS = 10
FIRST, SECOND = "10.213.7.1", "10.213.7.2"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=20)


def why_not() -> str | None:
    """Why two hosts cannot be made here; None if they can."""
    if shutil.which("ip") is None:
        return "needs ip (apt-get install iproute2)"
    probe = f"probe-{os.getpid()}"
    try:
        ip("netns", "add", probe)
        ip("-n", probe, "link", "add", "one", "type", "veth", "peer", "name", "other")
    except subprocess.CalledProcessError as error:
        return f"needs the right to make network namespaces and links (root): {error.stderr.strip()}"
    finally:
        subprocess.run(["ip", "netns", "del", probe], check=False, capture_output=True)
    return None


pytestmark = pytest.mark.skipif((reason := why_not()) is not None, reason=str(reason))


class Hosts:
    """Two namespaces on one cable, and the processes started in them."""

    def __init__(self) -> None:
        self.names = [f"host-{os.getpid()}-{index}" for index in range(2)]
        self._started: list[subprocess.Popen[str]] = []

    def make(self) -> None:
        first, second = self.names
        ip("netns", "add", first)
        ip("netns", "add", second)
        ip("-n", first, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", second)
        for name, address in zip(self.names, (FIRST, SECOND), strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
            ip("-n", name, "link", "set", "lo", "up")

    def cut(self) -> None:
        ip("-n", self.names[0], "link", "set", "cable", "down")

    def start(self, run_dir: Path, config: Path, *arguments: str) -> list[subprocess.Popen[str]]:
        """`accelerate launch` in both, one process each."""
        port = "29511"  # nobody else is in these namespaces
        both = []
        for rank, name in enumerate(self.names):
            launcher = [
                *("ip", "netns", "exec", name, sys.executable, "-m", "accelerate.commands.launch"),
                *("--config_file", str(REPOSITORY / "configs/accelerate/multi_node.yaml")),
                *("--num_machines", "2", "--num_processes", "2", "--machine_rank", str(rank)),
                *("--main_process_ip", FIRST, "--main_process_port", port),
                *("--rdzv_conf", f"is_host={int(rank == 0)}"),
            ]
            script = [str(REPOSITORY / "launch/train.py"), "--config", str(config), "--run-dir", str(run_dir)]
            output = (run_dir.parent / f"{run_dir.name}-{rank}.log").open("w")
            with output:
                both.append(
                    subprocess.Popen(
                        [*launcher, *script, *arguments],
                        cwd=REPOSITORY,
                        # both hosts have this machine's name, which resolves to no address of theirs
                        env=environment() | {"GLOO_SOCKET_IFNAME": "cable", "ACCELERATE_USE_CPU": "true"},
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        text=True,
                    )
                )
        self._started += both
        return both

    def processes(self) -> list[int]:
        """Whatever still runs on the two hosts."""
        found = []
        for name in self.names:
            done = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)
            found += [int(line) for line in done.stdout.split()]
        return found

    def remove(self) -> None:
        for process in self.processes():
            subprocess.run(["kill", "-KILL", str(process)], check=False, capture_output=True)
        for process in self._started:
            process.wait(timeout=20)
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    hosts = Hosts()
    try:
        hosts.make()
        yield hosts
    finally:
        hosts.remove()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hosts")
    return write_config(
        folder / "c.json",
        train={"epochs": epochs_of(ITERATIONS), "checkpoint_every_steps": 10, "log_every_steps": 2},
    )


@pytest.fixture(scope="module")
def undisturbed(config: Path) -> Path:
    """Two processes on one host."""
    run_dir = config.parent / "undisturbed"
    train(2, run_dir, config)
    return run_dir


def test_two_hosts_train_as_one(hosts: Hosts, config: Path, undisturbed: Path) -> None:
    run_dir = config.parent / "two-hosts"
    both = hosts.start(run_dir, config)
    logs = [config.parent / f"two-hosts-{rank}.log" for rank in range(2)]
    assert [process.wait(timeout=200) for process in both] == [0, 0], [log.read_text() for log in logs]
    assert "Training with 2 processes" in logs[0].read_text()
    assert metrics(run_dir) == metrics(undisturbed)
    assert differing_tensors(run_dir, undisturbed, ITERATIONS) == []
    assert hosts.processes() == []


def test_a_cut_cable_ends_both_sides(hosts: Hosts, config: Path, undisturbed: Path) -> None:
    """Both say so in a sentence and leave within the timeout; one host goes on alone."""
    run_dir = config.parent / "cut"
    both = hosts.start(run_dir, config, "--set", f"train.collective_timeout_seconds={TIMEOUT_SECONDS}")
    deadline = time.monotonic() + 120
    while not (run_dir / "checkpoints/step-00000010").is_dir():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    hosts.cut()
    # the timeout, the watchdog's 11 s, and the launchers' own end; 22 s on an idle machine
    deadline = time.monotonic() + TIMEOUT_SECONDS + 50
    codes = [process.wait(timeout=deadline - time.monotonic()) for process in both]
    outputs = [(config.parent / f"cut-{rank}.log").read_text() for rank in range(2)]
    assert codes == [1, 1], outputs
    for rank, output in enumerate(outputs):
        assert f"error: Rank {rank} waited in vain for the others in iteration" in output, output
    assert "rank 1" in outputs[0]  # the list of ranks is on this side
    assert "last heard of" in outputs[0]
    assert "the host that kept the list of ranks (rank 0's, as a rule) cannot be reached" in outputs[1]
    assert hosts.processes() == []

    output = train(2, run_dir, config)
    assert "Resumed" in output
    assert metrics(run_dir) == metrics(undisturbed)
    assert differing_tensors(run_dir, undisturbed, ITERATIONS) == []
