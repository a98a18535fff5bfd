"""Before torch is imported, here and in the processes that tests start.

Two files of tests run at a time, and many of them start several processes: with a thread per core in
each, all of them would wait for one another.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Folders and files whose tests take minutes: whole commands, several processes and hosts, a simulated device
SLOW = (
    "browser",
    "distributed",
    "simulated",
    "slurm",
    "storm",
    "unit/building/test_casia.py",
    "unit/commands/test_reproduce.py",
    "unit/core/test_ownership.py",
    "unit/engine/test_clock.py",
    "unit/engine/test_generate.py",
    "unit/engine/test_profiling.py",
    "unit/engine/test_remote_training.py",
    "unit/engine/test_roofline.py",
    "unit/engine/test_semi_supervised.py",
    "unit/pretrained/test_programs.py",
    "unit/runs/test_auto_augmentation.py",
    "unit/test_benchmark.py",
    "unit/test_clone.py",
    "unit/test_configs.py",
    "unit/test_gpu_check.py",
)

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """A Runtime takes all cores for its process, and tests make Runtimes: those that follow get one."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent
    missing = [place for place in SLOW if not (tests / place).exists()]
    assert not missing, f"tests/conftest.py names what is not there: {missing}"
    for item in items:
        if any(item.path.is_relative_to(tests / place) for place in SLOW):
            item.add_marker("slow")
    # Files are handed out in this order: a long one at the end would leave one of two cores idle.
    slow = {item.path for item in items if "slow" in item.keywords}
    items.sort(key=lambda item: item.path not in slow)
