"""Batch norm over ranks, and replicated parameters, on 2 and 3 gloo ranks."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint import state_dict_saver

from dist_dsvae.config import DataConfig
from dist_dsvae.core import distributed
from dist_dsvae.core.errors import DataError
from dist_dsvae.core.types import Batch
from dist_dsvae.data.open_splits import open_splits
from dist_dsvae.engine.iteration.batch_norm import convert_sync_batch_norm
from dist_dsvae.engine.iteration.guard import Guard, NonFiniteLossError
from dist_dsvae.methods.global_batch import aggregate_divergence, mean_feature
from dist_dsvae.methods.update import Reduction, Update
from dist_dsvae.runs import checkpoint, checkpoint_folder, run_lock
from dist_dsvae.runs.marker import CheckpointError
from tests.forking import REPOSITORY, on_ranks
from tests.unit.engine.test_host_syncs import NoHostReads
from tests.unit.methods.making import SHAPES, make_batch, make_method, noise_for, summed


def network(convolutional: bool) -> nn.Sequential:
    torch.manual_seed(3)
    first = [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)] if convolutional else [nn.Linear(4, 3), nn.BatchNorm1d(3)]
    net = nn.Sequential(*first, nn.Tanh(), nn.Flatten(), nn.LazyLinear(1)).double()
    net(inputs(convolutional, 6))
    net[1].reset_running_stats()
    return net


def inputs(convolutional: bool, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    dims = (count, 2, 5, 5) if convolutional else (count, 4)
    return torch.randn(dims, generator=generator, dtype=torch.float64) * 3 + 1


def batch_norm_equals_that_of_one_process(rank: int, world_size: int, convolutional: bool) -> None:
    alone, together = network(convolutional), convert_sync_batch_norm(network(convolutional))
    x = inputs(convolutional, 12)
    mine = x.chunk(world_size)[rank].clone().requires_grad_()
    x.requires_grad_()
    for _ in range(2):
        alone.zero_grad()
        together.zero_grad()
        x.grad = mine.grad = None
        expected, got = alone(x), together(mine)
        torch.testing.assert_close(got, expected.chunk(world_size)[rank], rtol=1e-10, atol=1e-12)
        (expected**2).sum().backward()
        (got**2).sum().backward()
        torch.testing.assert_close(mine.grad, x.grad.chunk(world_size)[rank], rtol=1e-9, atol=1e-11)
        for p, q in zip(together.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(distributed.all_reduce_sum(p.grad), q.grad, rtol=1e-9, atol=1e-11)
    assert together.state_dict().keys() == alone.state_dict().keys()
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(together.state_dict()[name], value, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("convolutional", [True, False])
def test_batch_norm_over_ranks(world_size: int, convolutional: bool) -> None:
    on_ranks(world_size, batch_norm_equals_that_of_one_process, convolutional)


def collectives_do_what_they_say(rank: int, world_size: int) -> None:
    a, b = torch.full((2, 3), float(rank)), torch.tensor(10.0 * rank)
    mean_a, mean_b = distributed.all_reduce_flat([a, b])
    assert mean_a.shape == (2, 3)
    assert float(mean_a[0, 0]) == (world_size - 1) / 2
    assert float(mean_b) == 10 * (world_size - 1) / 2
    last = (torch.arange(24.0) + rank).view(1, 2, 3, 4).to(memory_format=torch.channels_last)
    (mean_last,) = distributed.all_reduce_flat([last])
    assert mean_last.stride() == last.stride()
    torch.testing.assert_close(mean_last, last - rank + (world_size - 1) / 2)
    rows = distributed.gather_rows(torch.full((rank, 2), rank))  # 0, 1, 2 ... rows
    assert rows[:, 0].tolist() == [r for r in range(world_size) for _ in range(r)]
    assert distributed.broadcast_object(f"from {rank}") == "from 0"
    assert distributed.gather_objects(rank) == list(range(world_size))
    assert distributed.from_main(lambda: f"found by {rank}") == "found by 0"
    with pytest.raises(PermissionError, match="not for you: '/root'"):
        distributed.from_main(lambda: refuse(rank))


def refuse(rank: int) -> None:
    assert rank == 0
    raise PermissionError(13, "not for you", "/root")


@pytest.mark.parametrize("world_size", [2, 3])
def test_collectives(world_size: int) -> None:
    on_ranks(world_size, collectives_do_what_they_say)


def synchronised_forward_and_backward_do_not_read(rank: int, world_size: int) -> None:
    method = convert_sync_batch_norm(make_method("small32"))
    batch = make_batch(SHAPES["small32"], first=6 * rank)
    with NoHostReads():
        for step in method.updates:
            summed(method, method(batch, noise_for(batch), step.name)).backward()


def test_synchronised_batch_norm_does_not_read_on_the_host() -> None:
    on_ranks(2, synchronised_forward_and_backward_do_not_read)


def mean_features_are_those_of_the_global_batch(rank: int, world_size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(6 * world_size, 5, generator=generator).double() for _ in range(2))
    whole = fake.clone().requires_grad_()
    expected = (real.mean(0) - whole.mean(0)).square().mean()
    expected.backward()
    own = fake.chunk(world_size)[rank].clone().requires_grad_()
    value = mean_feature(real.chunk(world_size)[rank], own)
    value.backward()
    # what DistributedDataParallel averages over the ranks
    torch.testing.assert_close(
        distributed.all_reduce_sum(value.detach().clone()) / world_size, expected.detach()
    )
    torch.testing.assert_close(own.grad / world_size, whole.grad.chunk(world_size)[rank])


def test_mean_features_over_ranks() -> None:
    on_ranks(3, mean_features_are_those_of_the_global_batch)


def aggregates_are_those_of_the_global_batch(rank: int, world_size: int) -> None:
    """Ranks with means and variances of their own: the divergence of all rows together, and its gradient."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(6 * world_size, 5, generator=generator).double()
    codes *= torch.linspace(0.3, 2.0, 6 * world_size)[:, None]
    codes += torch.linspace(-1.0, 3.0, 6 * world_size)[:, None]
    whole = codes.clone().requires_grad_()
    variance = whole.var(0, correction=0)
    expected = (0.5 * (whole.mean(0) ** 2 + variance - 1 - variance.log())).mean()
    expected.backward()
    own = codes.chunk(world_size)[rank].clone().requires_grad_()
    value = aggregate_divergence(own)
    value.backward()
    torch.testing.assert_close(value.detach(), expected.detach())
    # what DistributedDataParallel averages over the ranks
    torch.testing.assert_close(own.grad / world_size, whole.grad.chunk(world_size)[rank])


def test_aggregates_over_ranks() -> None:
    on_ranks(3, aggregates_are_those_of_the_global_batch)


def sampled_classes_are_those_of_the_global_batch(rank: int, world_size: int) -> None:
    """One draw for all ranks: loss, and gradients of encoder and mixture, are those of one process."""
    alone = make_method("mlp2d", sampled_classes=2)
    together = convert_sync_batch_norm(make_method("mlp2d", sampled_classes=2))
    whole = make_batch(SHAPES["mlp2d"], size=4 * world_size, first=24)
    mine = Batch(*(tensor.chunk(world_size)[rank] for tensor in whole))
    expected = alone(whole, noise_for(whole), "gm")["gm"]
    got = together(mine, noise_for(mine), "gm")["gm"]
    expected.backward()
    got.backward()
    mean = distributed.all_reduce_sum(got.detach().clone()) / world_size
    torch.testing.assert_close(mean, expected.detach(), rtol=1e-10, atol=0)
    for network in ("encoder_s", "mixture_prior"):
        pairs = zip(
            together.get_submodule(network).parameters(),
            alone.get_submodule(network).parameters(),
            strict=True,
        )
        for p, q in pairs:
            averaged = distributed.all_reduce_sum(p.grad) / world_size
            torch.testing.assert_close(averaged, q.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("world_size", [2, 3])
def test_sampled_classes_over_ranks(world_size: int) -> None:
    on_ranks(world_size, sampled_classes_are_those_of_the_global_batch)


def one_bad_rank_stops_all(rank: int, world_size: int) -> None:
    step = Update(
        name="joint", repeats=1, terms=("kl", "confusion"), trains=(), reduction=Reduction.OVERLAPPED
    )
    guard = Guard([step], torch.device("cpu"))
    for position in (0, 12, 24, 36):
        bad_here = rank == 1 and position >= 24
        values = torch.tensor([float("nan") if bad_here else 1.0, 2.0])
        bad = guard.inspect("joint", values, torch.tensor(position + rank))
        guard.record(distributed.all_reduce_sum(bad))
    assert guard.tripped == 1
    with pytest.raises(NonFiniteLossError, match=r"joint/kl became infinite or NaN at sample position 24"):
        guard.raise_if_tripped()


def test_non_finite_loss_on_one_rank_is_every_rank_s() -> None:
    on_ranks(2, one_bad_rank_stops_all)


def hosts_that_share_nothing(rank: int, world_size: int, disks: Path) -> None:
    """Each with a disk of its own under the same name."""
    host = disks / f"host{rank}"
    host.mkdir()
    os.chdir(host)
    run_lock.SECONDS_UNTIL_SEEN = 0.5
    refused = pytest.raises(CheckpointError, match=r"is another folder for rank 1 on .*All hosts must share")
    with refused, run_lock.holding(Path("runs/mine")):
        pass
    assert list(host.glob("runs/*")) == []
    folder, state = Path("checkpoints"), {"a": torch.arange(4.0) + rank}
    with pytest.raises(CheckpointError, match=r"is not there for rank 0\. All hosts must share"):
        checkpoint.save(folder, 1, state, {"samples_seen": 1}, keep=2)
    assert checkpoint_folder.complete_checkpoints(folder) == []


def test_hosts_that_do_not_share_the_run_directory_are_told(tmp_path: Path) -> None:
    on_ranks(2, hosts_that_share_nothing, tmp_path)


def shards_on_one_host_alone(rank: int, world_size: int) -> None:
    here, elsewhere = str(REPOSITORY / "shards/fashion-mnist-mini/test"), "shards/nowhere"
    config = DataConfig(train=elsewhere if rank == 1 else here, build_command="dsvae build mine")
    begin = time.monotonic()
    with pytest.raises(DataError if rank == 1 else distributed.ElsewhereError) as caught:
        open_splits(config)
    assert time.monotonic() - begin < 30
    assert "There are no shards in shards/nowhere. Build them with" in str(caught.value)
    assert str(caught.value).startswith("On ") == (rank != 1)


def test_what_one_host_lacks_ends_all_with_its_sentence() -> None:
    on_ranks(2, shards_on_one_host_alone)


def a_rank_that_cannot_write(rank: int, world_size: int, folder: Path) -> None:
    state = {"a": torch.arange(4.0) + rank}
    checkpoint.save(folder, 1, state, {"samples_seen": 1}, keep=2)

    if rank == 1:
        state_dict_saver.save = lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    else:
        state_dict_saver.save = lambda *_, **__: None
    with pytest.raises(CheckpointError, match="the disk is full"):
        checkpoint.save(folder, 2, state, {"samples_seen": 2}, keep=2)
    assert [path.name for path in checkpoint_folder.complete_checkpoints(folder)] == ["step-00000001"]


def test_a_failed_save_is_every_rank_s_and_keeps_the_last_good_one(tmp_path: Path) -> None:
    on_ranks(2, a_rank_that_cannot_write, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001"]
