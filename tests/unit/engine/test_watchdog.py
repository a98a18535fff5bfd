"""Who is missing is told by beats that stand still, never by comparing the clocks of two hosts."""

from __future__ import annotations

import itertools
import time

import pytest
import torch.distributed as dist

from dist_dsvae.core import distributed
from dist_dsvae.core.errors import DataError
from dist_dsvae.engine.stopping import watchdog
from dist_dsvae.engine.stopping.watchdog import MissingRankError, Watchdog, explained


class Store:
    """The job's key-value store."""

    def __init__(self) -> None:
        self.lines: dict[str, bytes] = {}

    def set(self, key: str, value: str) -> None:
        self.lines[key] = value.encode()

    def get(self, key: str) -> bytes:
        return self.lines[key]

    def check(self, keys: list[str]) -> bool:
        return all(key in self.lines for key in keys)


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> list[Watchdog]:
    """Three ranks on hosts whose clocks agree on nothing: each look at one is an hour away from the last."""
    store, hours = Store(), itertools.cycle([0.0, 7200.0, -7200.0, 3600.0])
    wall_clock = time.time
    monkeypatch.setattr(time, "time", lambda: wall_clock() + next(hours))
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    monkeypatch.setattr(dist.distributed_c10d, "_get_default_store", lambda: store)
    monkeypatch.setattr(watchdog, "SECONDS_BETWEEN_LINES", 0.02)
    monkeypatch.setattr(watchdog, "OLD_AFTER_SECONDS", 0.3)
    made = []
    for rank in (2, 1, 0):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        made.insert(0, Watchdog())
        made[0].at(7)
    return made


def said(ranks: list[Watchdog]) -> str:
    return str(ranks[0].explain(RuntimeError("Timed out waiting 1000ms")))


def test_all_are_alive_whatever_their_clocks_say(ranks: list[Watchdog]) -> None:
    assert "all ranks are alive, so the network between them failed" in said(ranks)


def test_the_rank_that_fell_silent_is_named(ranks: list[Watchdog]) -> None:
    ranks[1].close()
    time.sleep(1.0)
    text = said(ranks)
    assert "rank 1 (process" in text
    assert "was last heard of" in text
    assert "rank 2" not in text


def test_the_rank_that_does_something_else_is_named(ranks: list[Watchdog]) -> None:
    with ranks[2].doing("waiting for data"):
        assert said(ranks).count("is waiting for data in iteration 7") == 1
    for one in ranks:
        one.close()


def test_a_rank_that_is_missing_while_a_run_starts_is_named(ranks: list[Watchdog]) -> None:
    ranks[1].close()
    with pytest.raises(MissingRankError, match=r"waited in vain .* rank 1 \(process"), explained():
        raise RuntimeError("[gloo] Connection reset by peer")
    with pytest.raises(RuntimeError, match=r"^CUDA error$"), explained():
        raise RuntimeError("CUDA error")


def test_a_worker_that_dies_while_the_trainer_computes_gets_a_sentence() -> None:
    """torch raises it in the main thread at any moment, not only where that waits for data."""
    killed = RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. ")
    explained = Watchdog().explain(killed)
    assert isinstance(explained, DataError)
    assert str(explained).startswith("A data worker of rank 0 died (DataLoader worker (pid 12) is killed")
