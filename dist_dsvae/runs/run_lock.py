"""One job at a time trains in a run directory.

    <run>/lock.json    who trains here: host, pid, job; a token, and a count that grows every ten seconds

The file is made by ``O_EXCL``, which holds on NFS too. Whether its holder still lives is asked of this
machine, if it is the holder's; else the count tells: if it stands still for as long as several beats, by
the clock of the one who waits, the holder is gone and the lock is taken over: replaced by one rename, and
held if it is still there after a moment, so of several who take it over the last one has it. Clocks of two
machines are never compared.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from dist_dsvae.core import distributed
from dist_dsvae.core.text import read_json
from dist_dsvae.runs.marker import CheckpointError

logger = logging.getLogger(__name__)

LOCK_FILE = "lock.json"
SECONDS_UNTIL_SEEN = 60.0
_DIGITS = 12


class LockPace(NamedTuple):
    """Seconds. beat: between two counts of a holder. stale: of standing still, after which it is gone.

    grace: for a holder on this machine that may be about to end. settle: after taking a lock over, for others
    who do so at the same time.
    """

    beat: float = 10.0
    stale: float = 45.0
    grace: float = 5.0
    settle: float = 1.0


def _end(sentence: str) -> None:
    """At once: whatever this process still wrote would be mixed with the other's."""
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    os._exit(1)


@contextmanager
def holding(run_dir: Path, pace: LockPace = LockPace()) -> Iterator[None]:  # noqa: B008 - immutable
    """The run directory is this job's inside the block. Called by all ranks; rank 0 holds.

    Raises, on all ranks, CheckpointError if another job trains there or hosts do not share it, and OSError
    if it cannot be written.
    """
    with ExitStack() as held:

        def hold() -> str:
            lock = RunLock(run_dir, pace)
            held.callback(lock.release)
            return lock.token

        _check_shared(run_dir, distributed.from_main(hold))
        yield


def _check_shared(run_dir: Path, token: str) -> None:
    """Raise CheckpointError on all ranks if one of them sees another folder under the name."""
    host = socket.gethostname()
    begin = time.monotonic()
    # a network file system may remember for a while that a file was not there
    while not (seen := (_read(run_dir / LOCK_FILE) or {}).get("token") == token):
        if time.monotonic() - begin > SECONDS_UNTIL_SEEN:
            break
        time.sleep(0.2)
    problem = None if seen else f"rank {distributed.rank()} on {host}"
    if blind := [found for found in distributed.gather_objects(problem) if found]:
        raise CheckpointError(
            f"{run_dir}, in which rank 0 has begun a run, is another folder for {blind[0]}. All hosts must "
            "share the run directory: name one on a file system that they share with --run-dir."
        )


class RunLock:
    """Held from its making until ``release``. Raises CheckpointError if another job holds it.

    lost: called from a thread, with a sentence, once another job has taken it over; by default it ends the
    process.
    """

    def __init__(
        self,
        run_dir: Path,
        pace: LockPace = LockPace(),  # noqa: B008 - immutable
        lost: Callable[[str], None] = _end,
    ) -> None:
        self._run_dir, self._pace, self._lost = run_dir, pace, lost
        self._path = run_dir / LOCK_FILE
        self.token = uuid.uuid4().hex
        self._own: dict[str, Any] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "job": os.environ.get("SLURM_JOB_ID"),
            "started_at_tick": _ticks_at_start(os.getpid()),
            "machine": _machine(),
            "token": self.token,
            "beats": "0" * _DIGITS,
        }
        self._is_new = not run_dir.exists()
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise CheckpointError(
                f"{run_dir} is a file, or lies in one, so no run can live there. Choose another --run-dir."
            ) from None
        while not (self._made() or self._taken_over(self._wait_for_the_holder())):
            pass
        self._stop = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="run lock", daemon=True)
        self._beating.start()

    def release(self) -> None:
        self._stop.set()
        self._beating.join()
        os.close(self._descriptor)
        if (_read(self._path) or self._own)["token"] == self.token:  # or it cannot be read
            self._path.unlink(missing_ok=True)
        if self._is_new:
            with suppress(OSError):
                self._run_dir.rmdir()  # nothing came of the run

    def _made(self) -> bool:
        try:
            self._write_new(self._path)
        except FileExistsError:
            return False
        return True

    def _write_new(self, path: Path) -> None:
        """A file that was not there, kept open: whatever has its name later, beats go to no other."""
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
        try:
            self._write(descriptor)
        except OSError:
            path.unlink()  # half a lock would be nobody's, and in everybody's way
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def _write(self, descriptor: int) -> None:
        os.pwrite(descriptor, json.dumps(self._own).encode(), 0)  # as long as before: no disk is too full
        os.fsync(descriptor)

    def _wait_for_the_holder(self) -> dict[str, Any] | None:
        """What the lock says of a holder that is gone. Raises CheckpointError if it is not."""
        first = _read(self._path)
        if first is None and self._path.is_file() and self._path.stat().st_size:
            time.sleep(self._pace.beat / 4)  # it may be in the middle of a write
            first = _read(self._path)
            if first is None and self._path.is_file():
                raise CheckpointError(
                    f"{self._path} is no lock of this program's. Choose another --run-dir, or move it away."
                )
        local = first is not None and first.get("machine") == self._own["machine"]
        begin = time.monotonic()
        while time.monotonic() - begin < (self._pace.grace if local else self._pace.stale):
            if local and first is not None and not _lives(first):
                return first
            now = _read(self._path)
            if now is None and not self._path.exists():
                return None
            if now != first and not local:
                if first is not None:
                    break  # it counts
                first = now  # it was being written
            time.sleep(min(0.2, self._pace.beat / 4))
        else:
            if not local:
                return first
        holder = _read(self._path) or first or {}
        job = f", job {holder['job']}" if holder.get("job") else ""
        raise CheckpointError(
            f"{self._run_dir} is in use: process {holder.get('pid')} on {holder.get('host')}{job} trains "
            "there. Wait until it ends, stop it, or choose another --run-dir."
        )

    def _taken_over(self, holder: dict[str, Any] | None) -> bool:
        """Whether the lock is this job's now, and not another's that was quicker."""
        if not self._path.exists() or _read(self._path) != holder:
            return False
        written = self._path.with_name(f".{LOCK_FILE}.{self._own['token']}")
        self._write_new(written)
        try:
            written.replace(self._path)
        except OSError:
            written.unlink(missing_ok=True)
            os.close(self._descriptor)
            raise
        time.sleep(self._pace.settle)
        if (_read(self._path) or {}).get("token") != self.token:
            os.close(self._descriptor)
            return False
        if holder is not None:
            logger.warning(
                "%s is taken over: process %s on %s, which trained there, is gone.",
                self._run_dir,
                holder.get("pid"),
                holder.get("host"),
            )
        return True

    def _beat(self) -> None:
        told = False
        while not self._stop.wait(self._pace.beat):
            found = _read(self._path)
            if found is not None and found.get("token") != self.token:
                self._lost(
                    f"Process {found.get('pid')} on {found.get('host')} has taken over {self._run_dir}, "
                    "since this process stood still for too long. It ends without writing anything."
                )
                return
            if found is None and not told:
                told = True
                logger.error(
                    "%s was moved or removed, or its %s was, while a job trains there. Checkpoints go to the "
                    "old name; stop the job, move the directory back, and start the same command again.",
                    self._run_dir,
                    LOCK_FILE,
                )
            if found is not None:
                self._own["beats"] = f"{int(self._own['beats']) + 1:0{_DIGITS}d}"
                with suppress(OSError):
                    self._write(self._descriptor)


def _lives(holder: dict[str, Any]) -> bool:
    try:
        return _ticks_at_start(int(holder["pid"])) == int(holder["started_at_tick"])
    except (OSError, KeyError, TypeError, ValueError):
        return False


def _ticks_at_start(pid: int) -> int:
    """When a process started, in ticks of this boot: setting the clock does not move it.

    Raises OSError if there is none of this number, or only what is left of one that ended.
    """
    # proc(5): the name, in parentheses, may hold anything; then the state, and 19 fields later the start
    state, *fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    if state == "Z":
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    return int(fields[18])


def _machine() -> str:
    """Where process ids mean the same: a boot of a kernel, and a name space in it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode()}"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.keys() >= {"token", "beats"} else None
