"""Before torch is imported, here and in the processes that tests start.

Two files of tests run at a time, and many of them start several processes: with a thread per core in
each, all of them would wait for one another.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Work through whole commands, on several processes, hosts or machines of a kind: minutes, for CI
SLOW = ("browser", "distributed", "slurm", "storm")

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent
    for item in items:
        if item.path.relative_to(tests).parts[0] in SLOW:
            item.add_marker("slow")
