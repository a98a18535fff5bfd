"""The disk that runs are written to: room, speed, and how long it takes until bytes are safe."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from dist_dsvae.engine.doctor.finding import Finding, failed, ok, warning

_MIB = 2**20
_PIECE = 4 * _MIB
_AT_MOST_BYTES, _AT_MOST_SECONDS = 64 * _MIB, 4.0
_NUM_SYNCS = 8
_LITTLE_ROOM_BYTES = 5 * 2**30
_SLOW_MIB_PER_SECOND = 30
_SLOW_SYNC_SECONDS = 0.1


def disk(directory: Path) -> Finding:
    """Writes up to 64 MiB below ``directory``, for some seconds at most, and removes them again."""
    if not directory.is_dir():
        remedy = f"mkdir -p {directory}, or give the folder of your runs as --disk."
        return failed("disk", f"{directory} is no folder", remedy)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".doctor-") as folder:
        speed = _speed(Path(folder) / "pieces")
        sync = _seconds_to_sync(Path(folder) / "small")
    free = shutil.disk_usage(directory).free
    return judged(directory, free, speed, sync)


def judged(directory: Path, free: int, speed: float, sync: float) -> Finding:
    """free: bytes. speed: MiB/s of writing, with the last byte safe. sync: seconds of a small file."""
    text = (
        f"{directory.absolute()}: {free / 2**30:.1f} GiB free, writes {speed:.0f} MiB/s, "
        f"a small file is safe after {1000 * sync:.1f} ms"
    )
    figures = {
        "free_gib": round(free / 2**30, 1),
        "write_mib_per_second": round(speed, 1),
        "fsync_ms": round(1000 * sync, 4),
    }
    if free < _LITTLE_ROOM_BYTES:
        remedy = "Make room, or write elsewhere (--run-dir); train.keep_checkpoints bounds what is kept."
        return warning("disk", text, remedy, **figures)
    if speed < _SLOW_MIB_PER_SECOND or sync > _SLOW_SYNC_SECONDS:
        remedy = "Write to a faster disk (--run-dir), or save less often (train.checkpoint_every_steps)."
        return warning("disk", text, remedy, **figures)
    return ok("disk", text, **figures)


def _speed(path: Path) -> float:
    """MiB per second, including the wait until the last byte is on the disk."""
    piece = os.urandom(_PIECE)  # a file system may leave zeros out
    written = 0
    begin = time.perf_counter()
    with path.open("wb", buffering=0) as stream:
        while written < _AT_MOST_BYTES and time.perf_counter() - begin < _AT_MOST_SECONDS:
            written += stream.write(piece)
            os.fsync(stream.fileno())  # piece by piece: a cache would swallow all, and stall at the end
    return written / _MIB / (time.perf_counter() - begin)


def _seconds_to_sync(path: Path) -> float:
    """Median time of writing 4 KiB safely."""
    spent = []
    with path.open("wb", buffering=0) as stream:
        for _ in range(_NUM_SYNCS):
            begin = time.perf_counter()
            stream.write(b"x" * 4096)
            os.fsync(stream.fileno())
            spent.append(time.perf_counter() - begin)
    return statistics.median(spent)
