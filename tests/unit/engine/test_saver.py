"""Checkpoints in the background: what is saved is the state at the call, and failures are not lost."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint import state_dict_saver

from dist_dsvae.core import distributed
from dist_dsvae.engine.saver import CheckpointSaver
from dist_dsvae.runs import checkpoint, checkpoint_folder
from dist_dsvae.runs.checkpoint import load
from dist_dsvae.runs.checkpoint_folder import complete_checkpoints
from dist_dsvae.runs.marker import CheckpointError


def test_training_goes_on_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    write = state_dict_saver.save
    monkeypatch.setattr(state_dict_saver, "save", lambda *args, **how: go_on.wait(20) and write(*args, **how))
    weight = torch.full((4,), 1.0)
    saver = CheckpointSaver(tmp_path, keep=3)
    saver.save(1, {"w": weight}, {})
    weight.fill_(2.0)  # the next iteration
    assert complete_checkpoints(tmp_path) == []
    assert saver.take_finished() == []
    go_on.set()
    saver.save(2, {"w": weight}, {})  # waits for the first
    assert [path.name for path in saver.take_finished()][:1] == ["step-00000001"]
    saver.wait()
    saver.close()
    for step in (1, 2):
        into = {"w": torch.zeros(4)}
        load(tmp_path / checkpoint_folder.checkpoint_name(step), into)
        assert torch.equal(into["w"], torch.full((4,), float(step)))


def test_host_memory_is_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All checkpoints are written from the same copies in host memory."""
    places: list[tuple[int, int]] = []

    def note(folder: Path, step: int, copies: dict[str, Any], *_: object, **__: object) -> Path:
        places.append((copies["a"].data_ptr(), copies["nested"]["b"].data_ptr()))
        return folder

    monkeypatch.setattr(checkpoint, "save", note)
    saver = CheckpointSaver(tmp_path, keep=1)
    state = {
        "a": torch.zeros(3),
        "nested": {"b": torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last)},
    }
    saver.save(1, state, {})
    saver.save(2, state, {})
    saver.close()
    assert len(places) == 2
    assert places[0] == places[1]
    assert places[0][0] != state["a"].data_ptr()


def test_each_tensor_is_held_by_one_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Host memory is for a rank's share; under ZeRO a rank has moments of its own alone."""
    weights = {f"w{n}": torch.full((n,), float(n)) for n in range(1, 40)}
    states = [
        {"method": weights, "ema": {"w": torch.ones(300)}, "moments": {f"of {rank}": torch.ones(50)}}
        for rank in range(3)
    ]
    held: list[Any] = []
    saved: list[dict[str, dict[str, Tensor]]] = []

    def gather(value: Any, group: object = None) -> list[Any]:
        held.append(value)
        return held[:3]

    def note(folder: Path, step: int, copies: dict[str, Any], *_: object, **__: object) -> Path:
        saved.append(copies)
        return folder

    monkeypatch.setattr(distributed, "gather_objects", gather)
    monkeypatch.setattr(checkpoint, "save", note)
    for rank in (0, 1, 2, 0, 1, 2):  # when all have told what they hold
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        saver = CheckpointSaver(tmp_path, keep=1)
        saver.save(1, states[rank], {})
        saver.close()
    shares = [{(part, name): t for part in own for name, t in own[part].items()} for own in saved[3:]]
    everything = {(part, name): t for state in states for part in state for name, t in state[part].items()}
    assert sum(map(len, shares)) == len(everything)
    for share in shares:
        assert all(torch.equal(tensor, everything[place]) for place, tensor in share.items())
    loads = [sum(tensor.nbytes for tensor in share.values()) for share in shares]
    assert max(loads) - min(loads) < 0.1 * min(loads)


def test_a_failure_is_raised_at_the_next_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saver = CheckpointSaver(tmp_path, keep=3)
    saver.save(1, {"w": torch.zeros(3)}, {})
    saver.wait()

    def fail(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system", str(tmp_path))

    monkeypatch.setattr(state_dict_saver, "save", fail)
    saver.save(2, {"w": torch.zeros(3)}, {})
    with pytest.raises(CheckpointError, match=r"could not be written: Read-only file system"):
        saver.save(3, {"w": torch.zeros(3)}, {})
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["step-00000001"]
    saver.close()


def test_after_a_failure_the_last_save_is_tried_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    saver = CheckpointSaver(tmp_path, keep=3)
    assert saver.went_well()

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path))

    with monkeypatch.context() as patched:
        patched.setattr(state_dict_saver, "save", fail)
        saver.save(1, {"w": torch.zeros(3)}, {})
        assert not saver.went_well()
    assert "Step 1: The checkpoint could not be written: the disk is full" in caplog.text
    saver.save(2, {"w": torch.zeros(3)}, {})
    assert saver.went_well()
    assert [path.name for path in saver.take_finished()] == ["step-00000002"]
    saver.close()


def test_closing_lets_a_checkpoint_become_complete(tmp_path: Path) -> None:
    saver = CheckpointSaver(tmp_path, keep=3)
    saver.save(5, {"w": torch.zeros(100_000)}, {})
    saver.close()
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["step-00000005"]


def test_checkpoints_that_are_to_stay_do(tmp_path: Path) -> None:
    saver = CheckpointSaver(tmp_path, keep=1, keep_every=2)
    for step in range(1, 6):
        saver.save(step, {"w": torch.zeros(3)}, {})
    saver.close()
    assert [path.name[-1] for path in complete_checkpoints(tmp_path)] == ["2", "4", "5"]
