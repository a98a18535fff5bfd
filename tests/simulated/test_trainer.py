"""The trainer on the simulated device: with graphs as without, and nothing waits between two log ticks."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from dist_dsvae.commands.train import train
from dist_dsvae.config.reading import load_config
from dist_dsvae.core.types import ImageShape
from dist_dsvae.data import feed
from dist_dsvae.data.stream import Inputs
from dist_dsvae.engine.evaluating import test_codes
from dist_dsvae.engine.iteration.cuda_graph import Graphed
from dist_dsvae.engine.iteration.iteration import Iteration
from dist_dsvae.engine.processes.fence import Fence, Patience
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.engine.reporting import visuals
from dist_dsvae.engine.saver import CheckpointSaver
from dist_dsvae.engine.trainer import Trainer
from dist_dsvae.evaluation import probes
from dist_dsvae.runs import checkpoint, measure_statistics
from tests.distributed.launching import REPOSITORY, checkpoint_tensors, epochs_of, metrics, write_config
from tests.simulated.cuda import simulated_cuda
from tests.simulated.device import Device
from tests.simulated.graphs import Capture
from tests.simulated.memory import DeviceError
from tests.unit.engine.making import write_images

CLASSIFIER = "shards/fashion-mnist-mini/classifier"
DATA: dict[str, Any] = {"num_workers": 0}
LOG, SAMPLE, SAVE, EVALUATE = 3, 4, 5, 6
FIRST, LAST = 5, 8  # where the run with graphs stops, is resumed, and ends


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small splits of the classes that the judge knows."""
    folder = tmp_path_factory.mktemp("shards")
    classes = json.loads((REPOSITORY / CLASSIFIER / "config.json").read_text())["classes"]
    for split, per_class in (("train", 6), ("test", 3)):
        write_images(folder / split, classes, per_class, ImageShape(1, 32, 32))
    return folder


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch, shards: Path) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(test_codes, "PROBE_TRAIN_SAMPLES", 20)
    monkeypatch.setattr(probes, "ITERATIONS", 3)
    monkeypatch.setattr(probes, "FEWEST_ITERATIONS", 3)
    monkeypatch.setattr(probes, "MLP_EPOCHS", 1)
    monkeypatch.setattr(measure_statistics, "NUM_CODES", 16)
    monkeypatch.setattr(visuals, "FEW_CODES", 16)
    monkeypatch.setitem(DATA, "train", str(shards / "train"))
    monkeypatch.setitem(DATA, "test", str(shards / "test"))


class Ran(NamedTuple):
    """waits: of the host during each iteration, by its number: from its launch until the next one's."""

    state: list[Tensor]
    waits: dict[int, list[str]]
    num_replays: int


def run(device: Device, run_dir: Path, num_iterations: int, **sections: Any) -> Ran:
    train = {
        "checkpoint_every_steps": SAVE,
        "sample_every_steps": SAMPLE,
        "log_every_steps": LOG,
        "evaluate_at_end": False,
    }
    train |= {"ema_half_life_updates": 4.0, "ema_ramp_up": 0.5, "ema_networks": "all"}
    train |= {"epochs": epochs_of(num_iterations, num_samples=60)}
    evaluation = {"classifier": CLASSIFIER, "every_steps": EVALUATE, "samples_per_class": 2}
    evaluation |= {
        "real_samples": 20,
        "batch_size": 30,
        "diversity_samples": 2,
        "neighbour_samples": 20,
        "splits": 1,
    }
    data = DATA | {"cache_dir": str(run_dir.parent / "cache")}
    path = run_dir.parent / f"{run_dir.name}.json"
    config = write_config(
        path,
        data=data | sections.pop("data", {}),
        train=train | sections.pop("train", {}),
        evaluation=evaluation,
        optimizer={"clip_gradient_norm": 1.0, "decay_epochs": 200.0},
        **sections,
    )
    device.num_replays = 0
    trainer = Trainer(loaded := load_config(config, []), run_dir, "auto", Runtime(loaded.train))
    waits: dict[int, list[str]] = {}
    begin = trainer.iterate.set_rates

    def note(epoch: float, iteration: int) -> None:
        waits[iteration] = [f"{wait.what} at {wait.where}" for wait in device.log]
        device.log.clear()
        begin(epoch, iteration)

    trainer.iterate.set_rates = note
    trainer.train()
    assert trainer.iteration == num_iterations
    return Ran([tensor.detach().clone() for tensor in trainer.iterate.state()], waits, device.num_replays)


def test_a_run_with_graphs_equals_one_without(tmp_path: Path) -> None:
    """Logs, pictures, checkpoints, evaluation, and a resume in one of them; bit for bit."""
    ran: dict[str, Ran] = {}
    for setting, num_iterations in (("auto", FIRST), ("auto", LAST), ("off", LAST)):
        with simulated_cuda() as device:
            ran[setting] = run(device, tmp_path / setting, num_iterations, train={"cuda_graph": setting})
    assert ran["auto"].num_replays == LAST - FIRST
    assert ran["off"].num_replays == 0
    assert all(map(torch.equal, ran["auto"].state, ran["off"].state))
    assert metrics(tmp_path / "auto") == metrics(tmp_path / "off")
    for name in ("evaluation/step-00000006.json", "samples/step-00000008.png"):
        assert (tmp_path / "auto" / name).is_file()
    saved, expected = (
        checkpoint_tensors(tmp_path / s / f"checkpoints/step-{LAST:08d}") for s in ("auto", "off")
    )
    assert [name for name in expected if not torch.equal(saved[name], expected[name])] == []
    for setting, first in (("auto", FIRST), ("off", 0)):
        waits = ran[setting].waits
        assert sorted(waits) == list(range(first, LAST))
        # after the first iteration there is a line, and pictures; without a graph's warm-up, constants of
        # the noise come to the device in the second
        begin = first + (1 if setting == "auto" else 2)
        cadences = (LOG, SAMPLE, SAVE, EVALUATE)
        quiet = [n for n in waits if n > begin and all(n % every for every in cadences)]
        assert quiet == [7]
        assert [waits[n] for n in quiet] == [[] for _ in quiet]
        assert waits[6], "a log tick reads"


def without_waiting(host: Any, device: torch.device, count: int) -> Any:
    """``feed.copied_ahead`` without its event."""
    copying = torch.cuda.Stream(device)
    for inputs in host:
        with torch.cuda.stream(copying):
            moved = tuple(tensor.pin_memory().to(device, non_blocking=True) for tensor in inputs.tensors)
        yield Inputs(moved, inputs.num_replaced)


def test_batches_that_have_not_arrived_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "copied_ahead", without_waiting)
    with simulated_cuda() as device, pytest.raises(DeviceError, match="has yet to bring"):
        run(device, tmp_path / "run", 1)


def test_a_read_between_ticks_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launched = Fence.launched

    def reading(self: Fence) -> None:
        torch.ones(3, device="cuda").sum().item()
        launched(self)

    monkeypatch.setattr(Fence, "launched", reading)
    with simulated_cuda() as device:
        waits = run(device, tmp_path / "run", 3).waits
    assert [what.split()[0] for what in waits[2]] == ["_local_scalar_dense"]


@pytest.mark.parametrize("waits", [True, False])
def test_a_checkpoint_of_what_has_not_arrived_is_found(tmp_path: Path, waits: bool) -> None:
    """A copy into pinned memory for which nobody waits is not there when the writing thread reads it."""
    with simulated_cuda() as device:
        torch.cuda.set_stream(torch.cuda.Stream())  # as the runtime does
        synchronize = Fence(device.cuda, Patience(timedelta(seconds=60))).synchronize
        saver = CheckpointSaver(tmp_path, keep=1, synchronize=synchronize if waits else lambda: None)
        saver.save(1, {"w": torch.ones(4, device="cuda")}, {})
        saver.wait()
        saver.close()
    (saved,) = checkpoint_tensors(tmp_path / "step-00000001").values()
    assert saved.tolist() == pytest.approx([1.0 if waits else math.nan] * 4, nan_ok=True)


def test_the_writing_thread_works_on_its_process_s_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new thread would start on device 0, for every rank."""
    devices: list[int] = []
    monkeypatch.setattr(checkpoint, "save", lambda *_, **__: devices.append(torch.cuda.current_device()))
    with simulated_cuda() as device:
        device.set_current(3)
        saver = CheckpointSaver(tmp_path, keep=1)
        saver.save(1, {}, {})
        saver.wait()
        saver.close()
    assert devices == [3]


def test_graphed_is_what_runs(tmp_path: Path) -> None:
    with simulated_cuda():
        path = write_config(tmp_path / "c.json", data=DATA, train={"epochs": epochs_of(1)})
        config = load_config(path, [])
        trainer = Trainer(config, tmp_path / "run", "auto", Runtime(config.train))
        assert isinstance(trainer.graphed, Graphed)
        trainer.stop_requests.close()


@pytest.mark.parametrize(
    "when", ["during the first iteration", "during capture", "during capture, which cannot end then", "later"]
)
def test_a_gpu_that_is_full_ends_in_a_sentence(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also during capture, where it is no reason to train without a graph."""
    iterate, calls = Iteration.__call__, 0
    due = {"during the first iteration": 1, "later": 2}.get(when, 4)
    end = Capture.__exit__

    def unjoined(self: Capture, kind: object = None, *rest: object) -> None:
        end(self)
        if kind is not None:  # DDP's collectives are on a stream of their own
            raise RuntimeError("CUDA error: capturing stream has unjoined work")

    if "cannot end" in when:
        monkeypatch.setattr(Capture, "__exit__", unjoined)

    def greedy(self: Iteration, *inputs: Tensor) -> None:
        nonlocal calls
        calls += 1
        if calls == due:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        iterate(self, *inputs)

    monkeypatch.setattr(Iteration, "__call__", greedy)
    settings = {"epochs": 1.0, "evaluate_at_end": False, "cuda_graph": "off" if when == "later" else "on"}
    config = load_config(write_config(tmp_path / "c.json", data=DATA, train=settings))
    with simulated_cuda():
        assert train(config, tmp_path / "run", "auto", None) == 1
    error = capsys.readouterr().err
    assert "Rank 0 ran out of memory with 12 samples of every batch of 12" in error
    assert "GiB of the 16.00 GiB of its GPU (CUDA out of memory. Tried to allocate 2.00 GiB.)" in error
    assert "cuda_graph" not in error
