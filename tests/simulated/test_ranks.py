"""Two ranks, each on a simulated device of its own, joined by an NCCL that refuses CPU tensors."""

from __future__ import annotations

import collections
import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from dist_dsvae.config import OptimizerConfig, TrainConfig
from dist_dsvae.config.reading import load_config
from dist_dsvae.core import distributed
from dist_dsvae.engine.iteration import guard, updates
from dist_dsvae.engine.iteration.batch_norm import convert_sync_batch_norm
from dist_dsvae.engine.iteration.iteration import Iteration
from dist_dsvae.engine.processes import runtime as runtime_module
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.engine.stopping.watchdog import MissingRankError
from dist_dsvae.engine.trainer import Trainer
from tests.distributed.launching import REPOSITORY, epochs_of, write_config
from tests.forking import free_port, start_ranks
from tests.simulated.comparing import compare
from tests.simulated.cuda import simulated_cuda
from tests.simulated.device import Device
from tests.simulated.memory import DeviceError
from tests.unit.engine.making import make_iteration
from tests.unit.methods.making import make_method

OnRank = Callable[..., None]


def on_two_ranks(function: OnRank, *arguments: object) -> None:
    start_ranks(_enter, (free_port(), function, arguments), 2)


def _enter(rank: int, port: int, function: OnRank, arguments: tuple[object, ...]) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    os.chdir(REPOSITORY)
    torch.set_num_threads(1)
    with simulated_cuda() as device:
        function(device, rank, *arguments)
        dist.destroy_process_group()


def making(architecture: str, seconds: float = 60.0) -> Callable[[], Iteration]:
    config = OptimizerConfig(clip_gradient_norm=1.0, variance_schedule="paper")
    train = TrainConfig(collective_timeout_seconds=seconds)

    def make() -> Iteration:
        Runtime(train)  # the process group comes first: batch norm asks how many ranks there are
        return make_iteration(config, train=train, method=convert_sync_batch_norm(make_method(architecture)))

    return make


def graph_equals_eager(device: Device, rank: int) -> None:
    outcome = compare(device, making("small32"), "small32", rank=rank)
    assert distributed.backend() == "nccl"
    assert (outcome.waits, outcome.num_replays, outcome.differing) == ([], 3, [])
    taped = collections.Counter(device.replayed)
    # three flat all-reduces and the guard's, batch norm's backward, DistributedDataParallel's buckets
    assert taped["c10d.allreduce_.default"] > 5
    assert taped["c10d._allgather_base_.default"] > 5  # batch norm's forward
    weights = torch.cat([weight.detach().flatten() for weight in outcome.captured.method.parameters()])
    assert bool((distributed.all_gather(weights) == weights).all())


def test_graph_equals_eager_with_the_collectives_inside() -> None:
    on_two_ranks(graph_equals_eager)


def a_flag_of_the_host_is_refused(device: Device, rank: int) -> None:
    """The loss's flag, made on the CPU: gloo would have carried it."""
    inspect = guard.Guard.inspect
    guard.Guard.inspect = lambda self, *what: inspect(self, *what).cpu()
    with pytest.raises(DeviceError, match=r"copy to the host|No backend type|same device"):
        compare(device, making("mlp2d"), "mlp2d", rank=rank)
    with pytest.raises(DeviceError, match="No backend type associated with device type cpu"):
        distributed.all_reduce_sum(torch.ones(3))
    distributed.all_reduce_sum(torch.ones(3, device="cuda"))  # while this is none


def test_cpu_tensors_are_refused() -> None:
    on_two_ranks(a_flag_of_the_host_is_refused)


def a_skipped_collective_ends(device: Device, rank: int) -> None:
    """One rank leaves the first step's all-reduce out: it meets the other in one of another size, or not."""
    runtime_module.NCCL_WAITS_LONGER = timedelta(0)
    if rank == 1:
        updates.distributed.all_reduce_flat = list
    compare(device, making("mlp2d", seconds=3.0), "mlp2d", rank=rank)


def test_a_collective_that_one_rank_skips_is_found() -> None:
    # gloo gives up waiting, or aborts where messages of two sizes meet
    with pytest.raises((ProcessExitedException, ProcessRaisedException), match=r"SIGABRT|gloo|imed out"):
        on_two_ranks(a_skipped_collective_ends)


def ddp_takes_no_times(device: Device, rank: int) -> None:
    """DistributedDataParallel times its first ten forwards, and by default every hundredth after them."""
    runtime = Runtime(TrainConfig())
    timed = {}
    for name in ("wrapped", "by default"):
        torch.manual_seed(0)
        network = nn.Linear(2, 1).to(runtime.device)
        wrapped = runtime.wrap(network, [])
        if name == "by default":
            wrapped._set_ddp_runtime_logging_sample_rate(100)
        for _ in range(105):
            wrapped(torch.ones(3, 2, device=runtime.device)).sum().backward()
        timed[name] = wrapped._get_ddp_logging_data()["iteration"]
    assert timed["wrapped"] <= 11
    assert timed["by default"] >= 99


def test_ddp_never_times_a_replay() -> None:
    on_two_ranks(ddp_takes_no_times)


def one_rank_stays_away(device: Device, rank: int, folder: Path) -> None:
    """Rank 1 gets no data in iteration 3; rank 0's device waits for it, and its host says so."""
    config = load_config(
        write_config(
            folder / f"{rank}.json",
            model={"architecture": "small32", "zs_dim": 4, "zu_dim": 4},
            train={"epochs": epochs_of(9), "collective_timeout_seconds": 3.0, "evaluate_at_end": False},
        ),
        [],
    )
    trainer = Trainer(config, folder / "run", "never", Runtime(config.train))
    batches = trainer.streams.iterations

    def stopping(first: int):  # type: ignore[no-untyped-def]
        for number, inputs in enumerate(batches(first)):
            if number == 3 and rank == 1:
                trainer.stop_requests.close()
                while not (folder / "done").exists():
                    time.sleep(0.05)
                os._exit(0)
            device.is_stuck = number == 3
            yield inputs

    trainer.streams.iterations = stopping
    with pytest.raises(
        MissingRankError, match=r"Rank 0 waited in vain .*rank 1 \(process .*waiting for data in iteration 3"
    ):
        trainer.train()
    assert device.num_replays == 3
    (folder / "done").touch()
    os._exit(0)


def test_a_missing_rank_is_named_by_a_host_that_does_not_block(tmp_path: Path) -> None:
    on_two_ranks(one_rank_stays_away, tmp_path)
