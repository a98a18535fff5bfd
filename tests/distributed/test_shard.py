"""Slices of parameters over gloo ranks: taken apart, put together, updated as a whole would be."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dist_dsvae.config import OptimizerConfig
from dist_dsvae.core import distributed
from dist_dsvae.engine.iteration.guard import NonFiniteLossError
from dist_dsvae.engine.iteration.optimizer import UpdateOptimizer
from dist_dsvae.engine.iteration.zero import ApplySlice, ZeroOptimizer
from dist_dsvae.engine.iteration.zero_slice import ZeroSlice
from tests.forking import on_ranks

# on 3 ranks of 8: "long" lies on all three; of the second group ranks 1 and 2 hold only padding
GROUPS = {"weights": {"first": (3,), "long": (3, 5), "last": (2, 2)}, "variances": {"v": (2, 1)}}
PADDED = {"weights": 24, "variances": 6}


def networks() -> tuple[dict[str, nn.Parameter], dict[str, ZeroSlice]]:
    """Parameters by name, and the shards that they are views of."""
    torch.manual_seed(0)
    parameters: dict[str, nn.Parameter] = {}
    shards: dict[str, ZeroSlice] = {}
    for group, shapes in GROUPS.items():
        flat, first = torch.zeros(PADDED[group]), 0
        for name, shape in shapes.items():
            view = flat[first:][: torch.Size(shape).numel()].view(shape)
            parameters[name] = nn.Parameter(view.copy_(torch.randn(shape)))
            first += view.numel()
        shards[group] = ZeroSlice(flat, {name: parameters[name] for name in shapes})
    return parameters, shards


def named(parameters: dict[str, nn.Parameter]) -> dict[str, list[tuple[str, nn.Parameter]]]:
    return {group: [(name, parameters[name]) for name in shapes] for group, shapes in GROUPS.items()}


def updates_equal_those_of_whole_parameters(rank: int, world_size: int) -> None:
    config = OptimizerConfig(beta1=0.5, clip_gradient_norm=1.0, variance_learning_rate=0.01)
    parameters, shards = networks()
    divided = ZeroOptimizer(config, named(parameters), shards, None)
    copies = {name: nn.Parameter(p.detach().clone()) for name, p in parameters.items()}
    whole = UpdateOptimizer(config, named(copies))
    for step in range(6):
        for optimizer in (divided, whole):
            torch.manual_seed(step)
            optimizer.set_rates(float(step))
            for p in optimizer.parameters:
                p.grad = torch.randn(p.shape)
            tripped = torch.tensor(float(step == 4))  # the fifth update must not happen
            optimizer.step(tripped, None)
        for name, p in parameters.items():
            torch.testing.assert_close(p, copies[name], rtol=1e-6, atol=1e-7)
    assert divided.num_bytes() < 1.5 * whole.num_bytes() / world_size + 16

    # A checkpoint: what a rank gives is right, all of it comes from some rank, and it goes back in
    state, expected = divided.state(), whole.state()
    assert state.keys() == expected.keys()
    for name, moments in state.items():
        for moment, tensor in moments.items():
            torch.testing.assert_close(tensor, expected[name][moment], rtol=1e-6, atol=1e-7)
    given = {
        (name, moment) for held in distributed.gather_objects(state) for name in held for moment in held[name]
    }
    assert given == {(name, moment) for name in expected for moment in expected[name]}
    fresh = ZeroOptimizer(config, named(parameters), shards, None)
    fresh.restore(state)
    again = fresh.state()
    assert all(torch.equal(again[name][m], state[name][m]) for name in state for m in state[name])


@pytest.mark.parametrize("world_size", [2, 3])
def test_updates_equal_those_of_whole_parameters(world_size: int) -> None:
    on_ranks(world_size, updates_equal_those_of_whole_parameters)


def test_only_the_groups_of_the_step_move_through_the_engine() -> None:
    parameters, shards = networks()
    before = {name: p.detach().clone() for name, p in parameters.items()}

    def engine(update: ApplySlice) -> bool:
        for group, shard in shards.items():
            update(group, torch.ones_like(shard.own))
        return False

    only = {"weights": named(parameters)["weights"]}
    ZeroOptimizer(OptimizerConfig(), only, shards, engine).step(torch.zeros(()), None)
    assert {name for name, p in parameters.items() if not torch.equal(p, before[name])} == set(
        GROUPS["weights"]
    )


def test_an_update_that_deepspeed_left_out_is_not_passed_over() -> None:
    parameters, shards = networks()

    def engine(update: ApplySlice) -> bool:
        return True

    optimizer = ZeroOptimizer(OptimizerConfig(), named(parameters), shards, engine)
    with pytest.raises(NonFiniteLossError, match="A gradient became infinite or NaN"):
        optimizer.step(torch.zeros(()), None)
    optimizer.step(torch.ones(()), None)  # the guard tripped, and says so itself
