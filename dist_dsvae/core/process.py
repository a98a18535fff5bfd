"""What this process runs on, and the signals that ask it to stop."""

from __future__ import annotations

import os
import platform
import signal
from pathlib import Path


def available_cores() -> int:
    """Those that a scheduler or ``taskset`` has left to this process."""
    return len(os.sched_getaffinity(0))


def cpu_name() -> str:
    """The model's name, such as "AMD EPYC"; the architecture where the system does not say."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def stop_signals() -> list[signal.Signals]:
    """SIGTERM, and SIGHUP, which comes when the terminal ends, unless it is ignored: under nohup."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [signal.SIGTERM] if ignored else [signal.SIGTERM, signal.SIGHUP]
