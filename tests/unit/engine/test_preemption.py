"""Requests to stop in a single process; what the watchdog makes of errors."""

from __future__ import annotations

import errno
import json
import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dist_dsvae.config import TrainConfig
from dist_dsvae.core import distributed
from dist_dsvae.engine.processes.fence import Patience
from dist_dsvae.engine.stopping.clock import Clock, Due
from dist_dsvae.engine.stopping.preemption import Preempted, StopRequests, forget_the_start_before
from dist_dsvae.engine.stopping.watchdog import Watchdog


@pytest.fixture
def requests(tmp_path: Path) -> Iterator[StopRequests]:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    found = StopRequests(tmp_path, Patience(timedelta(seconds=5)))
    yield found
    found.close()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)] == before


def test_nothing_asked(requests: StopRequests) -> None:
    assert requests.agreed() is None


@pytest.mark.parametrize(
    ("number", "name"),
    [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C"), (signal.SIGHUP, "the end of its terminal")],
)
def test_a_signal_is_a_request(requests: StopRequests, number: signal.Signals, name: str) -> None:
    signal.raise_signal(number)
    assert requests.agreed() == name


def test_under_nohup_a_run_outlives_its_terminal(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        found = StopRequests(tmp_path, Patience(timedelta(seconds=5)))
        signal.raise_signal(signal.SIGHUP)
        assert found.agreed() is None
        found.close()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_asked_twice_from_the_keyboard_it_ends_at_once(requests: StopRequests) -> None:
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_the_file_is_a_request_and_goes_with_the_record(requests: StopRequests, tmp_path: Path) -> None:
    (tmp_path / "stop-request").touch()
    assert requests.agreed() == "stop-request"
    requests.record("stop-request", step=7, samples_seen=70)
    assert not (tmp_path / "stop-request").exists()
    record = json.loads((tmp_path / "stopped-early.json").read_text())
    assert record == {"reason": "stop-request", "step": 7, "samples_seen": 70}


def test_a_disk_that_stumbles_is_no_request(
    requests: StopRequests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stop-request").touch()

    def stumble(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "exists", stumble)
        assert requests.agreed() is None
    time.sleep(1.1)  # it looks once a second
    assert requests.agreed() == "stop-request"


def test_a_signal_while_a_slow_disk_answers_is_kept(
    requests: StopRequests, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: object, **__: object) -> bool:
        signal.raise_signal(signal.SIGTERM)
        return False

    monkeypatch.setattr(Path, "exists", slow)
    assert requests.agreed() == "SIGTERM"


def test_many_ranks_tell_each_other_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 40 ranks every third call exchanges; nothing that was asked for in between is lost."""
    sent: list[list[int]] = []

    class Done:
        is_completed = wait = staticmethod(lambda: True)

    def all_reduce(numbers: torch.Tensor, **_: object) -> Done:
        sent.append(numbers[0].tolist())
        return Done()

    monkeypatch.setattr(distributed, "world_size", lambda: 40)
    monkeypatch.setattr(distributed, "new_cpu_group", lambda _: object())
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    requests = StopRequests(tmp_path, Patience(timedelta(seconds=5)))
    state = SimpleNamespace(train_seconds=0.0)
    clock = Clock(state, TrainConfig(checkpoint_every_minutes=1), 1e9, iter(range(0, 10_000, 61)).__next__)
    heard = []
    for call in range(1, 13):
        if call == 5:
            signal.raise_signal(signal.SIGTERM)
        heard.append((requests.agreed(clock), Due.CHECKPOINT in clock.due))
    requests.close()
    assert sent == [[0, Due.CHECKPOINT], *[[signal.SIGTERM, Due.CHECKPOINT]] * 3]
    assert [call for call, (reason, _) in enumerate(heard, 1) if reason] == [9, 12]
    assert [call for call, (_, due) in enumerate(heard, 1) if due] == [6, 9, 12]


def test_a_new_start_forgets_both(tmp_path: Path) -> None:
    for name in ("stop-request", "stopped-early.json"):
        (tmp_path / name).touch()
    forget_the_start_before(tmp_path)
    assert list(tmp_path.iterdir()) == []
    forget_the_start_before(tmp_path / "not-yet-there")


def test_asked_by_file_while_it_starts(tmp_path: Path) -> None:
    forget_the_start_before(tmp_path)
    (tmp_path / "stop-request").touch()  # while networks are made and a checkpoint is read
    requests = StopRequests(tmp_path, Patience(timedelta(seconds=5)))
    assert requests.agreed() == "stop-request"
    requests.close()


def test_with_all_on_disk_a_signal_leaves_at_once_and_says_so(tmp_path: Path, requests: StopRequests) -> None:
    requests.leave_at_once(7, 700)
    assert not (tmp_path / "stopped-early.json").exists()
    with pytest.raises(Preempted, match="SIGTERM"):
        signal.raise_signal(signal.SIGTERM)
    record = json.loads((tmp_path / "stopped-early.json").read_text())  # a batch script queues the job again
    assert record == {"reason": "SIGTERM", "step": 7, "samples_seen": 700}


def test_a_signal_during_the_last_save_counts(tmp_path: Path, requests: StopRequests) -> None:
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Preempted, match="SIGTERM"):
        requests.leave_at_once(7, 700)
    assert (tmp_path / "stopped-early.json").is_file()


def test_exit_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert Preempted().exit_code == 75
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert Preempted().exit_code == 0


def test_errors_of_a_single_process_are_nobody_s_absence() -> None:
    error = RuntimeError("CUDA error: the launch timed out")
    assert Watchdog().explain(error) is error
