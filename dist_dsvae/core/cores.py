"""The processor cores of this machine that this process may use."""

from __future__ import annotations

import os


def available_cores() -> int:
    """Those that a scheduler or ``taskset`` has left to this process, where the system can say; else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
