"""The host waits for the others with a deadline, and never runs far ahead of its device."""

from __future__ import annotations

import math
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from dist_dsvae.core import distributed
from dist_dsvae.engine.processes import fence
from dist_dsvae.engine.processes.fence import Fence, Patience, WaitTimeoutError
from dist_dsvae.engine.stopping.preemption import StopRequests
from dist_dsvae.engine.stopping.watchdog import MissingRankError, Watchdog


@pytest.fixture
def _two_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 2)


class Device:
    """Counts the iterations that it was given and those that it has done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_launched = self.num_done = self.num_questions = 0
        self.questions_per_iteration: float = 3
        device = self

        class Event:
            def record(self, stream: object) -> None:
                device.num_launched += 1
                self.number = device.num_launched

            def query(self) -> bool:
                device.num_questions += 1
                if device.num_questions % device.questions_per_iteration == 0:
                    device.num_done += 1
                return device.num_done >= self.number

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)

    def fence(self, seconds: float = 60.0) -> Fence:
        return Fence(torch.device("cuda", 0), Patience(timedelta(seconds=seconds)))


def test_the_host_is_at_most_two_iterations_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch)
    waiting = device.fence()
    for number in range(1, 11):
        waiting.launched()
        assert device.num_launched == number
        assert device.num_done >= number - 2
    assert device.num_done == 8, "it waited for no more than it had to"


def test_nothing_is_read_before_the_device_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch)
    waiting = device.fence()
    waiting.launched()
    waiting.launched()
    assert device.num_done == 0
    waiting.synchronize()
    assert device.num_done == device.num_launched


@pytest.mark.usefixtures("_two_ranks")
@pytest.mark.parametrize("read", [False, True])
def test_a_device_that_is_never_done_ends_the_wait(monkeypatch: pytest.MonkeyPatch, read: bool) -> None:
    device = Device(monkeypatch)
    device.questions_per_iteration = math.inf
    waiting = device.fence(seconds=0.2)
    with pytest.raises(WaitTimeoutError, match=r"timed out after \d+\.\d s"):  # noqa: PT012
        for _ in range(3):
            waiting.launched()
            if read:
                waiting.synchronize()
    assert device.num_launched == (2 if read else 3)


def test_the_watchdog_takes_it_for_a_missing_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    watchdog = Watchdog()
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(WaitTimeoutError) as raised:
        Patience(timedelta(seconds=0.01)).wait_until(lambda: False)
    assert isinstance(watchdog.explain(raised.value), MissingRankError)


@pytest.mark.usefixtures("_two_ranks")
def test_a_signal_shortens_the_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fence, "SECONDS_LEFT_BY_A_SIGNAL", 0.1)
    monkeypatch.setattr(distributed, "new_cpu_group", lambda timeout: None)
    patience = Patience(timedelta(seconds=600))
    requests = StopRequests(tmp_path, patience)
    asked: list[float] = []

    def is_done() -> bool:
        if not asked:
            signal.raise_signal(signal.SIGTERM)
            asked.append(time.monotonic())
        return False

    with pytest.raises(WaitTimeoutError):
        patience.wait_until(is_done)
    assert time.monotonic() - asked[0] < 300
    requests.close()


def test_a_process_alone_waits_as_long_as_it_takes() -> None:
    answers = iter([False] * 50 + [True])
    Patience(timedelta(0)).wait_until(lambda: next(answers))


def test_on_a_cpu_there_is_nothing_to_wait_for() -> None:
    waiting = Fence(torch.device("cpu"), Patience(timedelta(0)))
    for _ in range(5):
        waiting.launched()
        waiting.synchronize()
