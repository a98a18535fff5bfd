"""The signals that reader processes heed, however they are started."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection

import pytest

from dist_dsvae.data.workers import leave_signals_to_the_trainer


def work(connection: Connection) -> None:
    leave_signals_to_the_trainer(0)
    connection.send(os.getpid())
    while True:
        time.sleep(0.1)
        if connection.poll():
            connection.send(connection.recv())


@pytest.mark.parametrize("method", ["fork", "forkserver"])  # the second is Python's default from 3.14 on
def test_sigterm_of_the_trainer_alone(method: str) -> None:
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    worker = context.Process(target=work, args=(theirs,), daemon=True)
    worker.start()
    try:
        pid = ours.recv()
        stranger = multiprocessing.get_context("fork").Process(target=os.kill, args=(pid, signal.SIGTERM))
        stranger.start()
        stranger.join()
        time.sleep(0.5)
        ours.send("there?")
        assert ours.poll(30)
        assert ours.recv() == "there?"
        worker.terminate()
        worker.join(30)
        assert worker.exitcode == 0
    finally:
        worker.kill()
