"""The reader processes of ``stream``: which signals they heed, and what their failures mean."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading

from dist_dsvae.config import DataConfig
from dist_dsvae.core.errors import DataError


def leave_signals_to_the_trainer(worker: int) -> None:
    """A request to stop reaches every process of a job; workers are needed until the trainer has saved.

    So they heed SIGTERM from the trainer alone.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    # Not os.getppid(): a worker that a fork server started is the server's child
    trainer = multiprocessing.parent_process()
    assert trainer is not None

    def heed() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer.pid:
            pass
        os._exit(0)

    threading.Thread(target=heed, daemon=True).start()


def worker_failed(error: RuntimeError, worker: int, config: DataConfig, rank: int) -> Exception:
    """What a DataLoader's ``error`` means: a DataError that names the worker, or ``error`` itself."""
    if not config.num_workers or "DataLoader" not in str(error):
        return error
    name = f"Data worker {worker} of {config.num_workers} of rank {rank}"
    if "timed out" in str(error):
        return DataError(
            f"{name} brought no batch for {config.worker_timeout_seconds:g} s: it hangs, or its disk does. "
            "See what it waits for (py-spy dump), or allow more time with data.worker_timeout_seconds."
        )
    return DataError(
        f"{name} died ({str(error).strip().splitlines()[-1]}). If the machine ran out of memory, "
        "lower data.num_workers."
    )


def worker_died(error: RuntimeError, rank: int) -> DataError | None:
    """What torch's handler of dead children raised in the main thread, wherever that was; None for others."""
    if not str(error).startswith("DataLoader worker (pid"):
        return None
    return DataError(
        f"A data worker of rank {rank} died ({str(error).strip()}). If the machine ran out of memory, lower "
        "data.num_workers. The same command goes on from the newest checkpoint."
    )
