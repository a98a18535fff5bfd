"""The processor cores of this machine that this process may use."""

from __future__ import annotations

import os


def available_cores() -> int:
    """Those that a scheduler or ``taskset`` has left to this process."""
    return len(os.sched_getaffinity(0))
