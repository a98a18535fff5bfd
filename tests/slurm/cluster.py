"""A real SLURM cluster of two nodes on this machine: munged, slurmctld and two slurmd, in one folder."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

NODES = ("alpha", "beta")
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "setpriv")


def why_not() -> str | None:
    """Why no cluster can be started here; None if one can."""
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"needs {', '.join(missing)}: apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "needs root: slurmd refuses to run without"
    return None


class Cluster:
    """Daemons and their folder, from ``start`` until ``stop``."""

    def __init__(self) -> None:
        # Short, because the path of a Unix socket may have 107 bytes
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        self._daemons: list[subprocess.Popen[bytes]] = []
        # No configuration or options of a surrounding cluster
        outer = ("SLURM_", "SBATCH_", "SRUN_", "SQUEUE_")
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(outer)}
        self.environment["SLURM_CONF"] = str(self.folder / "slurm.conf")

    def start(self) -> None:
        key, munge_socket = self.folder / "munge.key", self.folder / "munge.socket"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        self._write_configuration(munge_socket)
        self._daemon(
            *("munged", "--foreground", "--force", f"--socket={munge_socket}", f"--key-file={key}"),
            *(f"--pid-file={self.folder}/munge.pid", f"--seed-file={self.folder}/munge.seed"),
            f"--log-file={self.folder}/munge.log",
        )
        wait_until(munge_socket.exists, 10, self.logs)
        self._daemon("slurmctld", "-D", "-i")
        for node in NODES:
            self._daemon("slurmd", "-D", "-N", node)
        wait_until(lambda: self.run("sinfo", "-h", "-o", "%T %D").split() == ["idle", "2"], 30, self.logs)

    def _write_configuration(self, munge_socket: Path) -> None:
        host = socket.gethostname().partition(".")[0]
        cpus = os.cpu_count() or 1
        controller, first, second = _free_ports(3)
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        lines = [
            "ClusterName=test",
            f"SlurmctldHost={host}(127.0.0.1)",
            f"SlurmctldPort={controller}",
            "SlurmUser=root",
            "AuthType=auth/munge",
            # A requeued job waits until its credential has expired: 120 s by default, 5 at least
            f"AuthInfo=socket={munge_socket},cred_expire=5",
            "CredType=cred/munge",
            "MpiDefault=none",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "JobAcctGatherType=jobacct_gather/none",
            "SchedulerType=sched/builtin",
            "SchedulerParameters=batch_sched_delay=0,sched_interval=1",
            "SelectType=select/cons_tres",
            "GresTypes=gpu",  # two device files that are none
            "ReturnToService=2",
            "KillWait=30",
            f"StateSaveLocation={self.folder}/state",
            f"SlurmdSpoolDir={self.folder}/spool/%n",
            f"SlurmctldPidFile={self.folder}/slurmctld.pid",
            f"SlurmdPidFile={self.folder}/slurmd-%n.pid",
            f"SlurmctldLogFile={self.folder}/slurmctld.log",
            f"SlurmdLogFile={self.folder}/slurmd-%n.log",
            *(
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} Gres=gpu:2"
                for node, port in zip(NODES, (first, second), strict=True)
            ),
            "PreemptType=preempt/partition_prio",
            "PreemptMode=REQUEUE",
            f"PartitionName=main Nodes={','.join(NODES)} Default=YES PriorityTier=1 GraceTime=30",
            f"PartitionName=urgent Nodes={','.join(NODES)} PriorityTier=2",
        ]
        (self.folder / "slurm.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (self.folder / "gres.conf").write_text(
            "AutoDetect=off\nName=gpu File=/dev/full,/dev/zero\n", encoding="utf-8"
        )

    def _daemon(self, *command: str) -> None:
        log = (self.folder / f"{command[0]}-{len(self._daemons)}.out").open("wb")
        with log:
            self._daemons.append(
                subprocess.Popen(
                    # not to outlive this process, even if it is killed
                    ["setpriv", "--pdeathsig", "KILL", str(shutil.which(command[0])), *command[1:]],
                    env=self.environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    def run(self, *command: str, check: bool = True) -> str:
        """A SLURM command's standard output."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}\n{self.logs()}"
        return done.stdout

    def submit(self, directory: Path, *command: str, **variables: str) -> str:
        """``sbatch command`` in ``directory`` with environment variables added; the job's number."""
        done = subprocess.run(
            ["sbatch", "--parsable", *command],
            cwd=directory,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}\n{self.logs()}"
        return done.stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """What ``scontrol show job`` says."""
        text = self.run("scontrol", "--oneliner", "show", "job", number)
        return dict(field.split("=", 1) for field in text.splitlines()[0].split() if "=" in field)

    def state(self, number: str) -> str:
        return self.job(number)["JobState"]

    def wait_for_end(self, number: str, state: str, output: Callable[[], str], seconds: float = 150) -> None:
        """Until the job has ended for good, which must be in ``state``; ``output`` explains another."""
        ends = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        wait_until(lambda: self.state(number) in ends, seconds, lambda: output() + self.logs())
        assert self.state(number) == state, output() + self.logs()

    def logs(self) -> str:
        """The last lines of every daemon's log."""
        logs = sorted([*self.folder.glob("*.log"), *self.folder.glob("*.out")])
        return "\n".join(f"--- {p.name}\n" + "\n".join(p.read_text().splitlines()[-15:]) for p in logs)

    def stop(self) -> None:
        """End all jobs, daemons and whatever they started, and remove the folder."""
        try:
            wait_until(lambda: not self._kill_all(), 20, lambda: "the cluster's processes cannot be killed")
        finally:
            for daemon in self._daemons:
                daemon.wait(timeout=10)
            shutil.rmtree(self.folder, ignore_errors=True)

    def _kill_all(self) -> int:
        """Kill whatever belongs to this cluster, orphans included; how many processes there were."""
        killed = 0
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and self._owns(process):
                    process.kill()
                    killed += 1
            except (psutil.Error, OSError):  # gone, or a zombie
                continue
        return killed

    def _owns(self, process: psutil.Process) -> bool:
        """It knows the configuration file; slurmstepd has an empty environment, but writes to a log."""
        if process.environ().get("SLURM_CONF") == self.environment["SLURM_CONF"]:
            return True
        if not process.name().startswith("slurmstepd"):
            return False
        return any(Path(file.path).is_relative_to(self.folder) for file in process.open_files())


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def wait_until(condition: Callable[[], Any], seconds: float, otherwise: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.1)


def metric_lines(run_dir: Path) -> int:
    """How many complete lines a run has logged."""
    path = run_dir / "metrics.jsonl"
    return path.read_text().count("\n") if path.is_file() else 0


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
