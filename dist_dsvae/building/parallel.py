"""Run one function over many tasks in worker processes that never outlive their parent."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import TypeVar

from dist_dsvae.core.errors import DataError

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_tasks(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    num_workers: int,
    done: Callable[[Task], None] = lambda task: None,
) -> list[Result]:
    """``function`` of every task, in their order.

    num_workers: processes; with 1 the tasks run in this process. done: told each task when it is finished.
    Workers are spawned, so ``function`` and the tasks are pickled and the main module guarded.
    An exception of a task is raised here and cancels the tasks that have not begun.
    """
    if num_workers < 1:
        raise DataError(f"The number of workers is {num_workers}; it must be at least 1.")
    num_workers = min(num_workers, len(tasks))
    if num_workers <= 1:
        results = []
        for task in tasks:
            results.append(function(task))
            done(task)
        return results
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, mp_context=spawn, initializer=_die_with_parent) as pool:
        futures = {pool.submit(function, task): task for task in tasks}
        try:
            for future in as_completed(futures):
                future.result()  # raises what the task did
                done(futures[future])
            return [future.result() for future in futures]
        except BrokenProcessPool as error:
            raise DataError(
                "A worker process was killed, most likely because the memory ran out. "
                f"Try fewer workers than {num_workers}."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _die_with_parent() -> None:
    """End this worker when its parent is gone; a killed parent cannot tell it to."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a worker process has a parent to watch"
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
