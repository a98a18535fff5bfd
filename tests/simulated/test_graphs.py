"""A replayed graph is the eager iteration bit for bit, whatever the method, and nothing in it waits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from dist_dsvae.config import (
    CGANConfig,
    ClassifierConfig,
    CVAEConfig,
    CVAEGANConfig,
    MethodConfig,
    OptimizerConfig,
    TrainConfig,
)
from dist_dsvae.engine.iteration.cuda_graph import CaptureError, Graphed
from dist_dsvae.engine.iteration.iteration import Iteration
from tests.simulated.comparing import compare
from tests.simulated.cuda import simulated_cuda
from tests.unit.engine.making import make_inputs, make_iteration
from tests.unit.methods.making import BEYOND, make_any

# clipping, and rates that move: the variances' own schedule, and a decay over the tests' three epochs
MOVING = OptimizerConfig(clip_gradient_norm=1.0, variance_schedule="paper", decay_epochs=4.0)

OTHERS: dict[str, tuple[MethodConfig, str]] = {
    "cvae": (CVAEConfig(), "small32"),
    "cgan": (CGANConfig(adversarial="hinge", augmentation="on"), "small"),
    "cvae_gan": (CVAEGANConfig(augmentation="off"), "mlp2d"),
    "classifier": (ClassifierConfig(width=4, shift_pixels=2, dropout=0.1), "resnet32"),
}


def making(precision: str, architecture: str, **settings: object) -> Callable[[], Iteration]:
    train = TrainConfig(mixed_precision=precision)
    return lambda: make_iteration(MOVING, train=train, architecture=architecture, **settings)


def check(make: Callable[[], Iteration], architecture: str) -> None:
    with simulated_cuda() as device:
        outcome = compare(device, make, architecture)
    assert outcome.waits == []
    assert outcome.num_replays == 3
    assert outcome.differing == []


@pytest.mark.parametrize(
    ("precision", "architecture", "settings"),
    [
        ("no", "small32", {"unlabelled_updates": 1}),
        ("bf16", "small32", {"unlabelled_updates": 1}),
        ("bf16", "small", BEYOND | {"augmentation": "on"}),
        ("no", "mlp2d", {"unlabelled_updates": 2}),
        ("bf16", "mlp2d", BEYOND),
        ("fp16", "mlp2d", {"unlabelled_updates": 1}),
        ("bf16", "mlp2d", {"sampled_classes": 2}),
    ],
)
def test_graph_equals_eager(precision: str, architecture: str, settings: dict[str, object]) -> None:
    check(making(precision, architecture, **settings), architecture)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_other_methods(name: str, precision: str) -> None:
    config, architecture = OTHERS[name]

    def make() -> Iteration:
        method = make_any(config, architecture)
        return make_iteration(
            MOVING, train=TrainConfig(mixed_precision=precision), method=method, averaged=method.averaged
        )

    check(make, architecture if architecture == "mlp2d" else "small32")


def test_the_loss_scale_of_fp16_is_part_of_the_graph() -> None:
    """Gradients beyond fp16 halve the scale and skip the update, at each of a replay's four steps."""
    with simulated_cuda() as device:
        iteration = making("fp16", "mlp2d")()
        graphed = Graphed(iteration, iteration.state)
        inputs = make_inputs(iteration, first=0, architecture="mlp2d")
        graphed(*inputs)
        scale, _ = iteration.runtime.scale_state()
        before = [parameter.detach().clone() for parameter in iteration.method.parameters()]
        scale.fill_(2.0**127)
        device.log.clear()
        graphed(*inputs)
        assert device.log == []
        assert scale.item() == 2.0**123
        assert all(map(torch.equal, iteration.method.parameters(), before))


def test_preparing_leaves_no_trace() -> None:
    """Networks, batch-norm statistics, spectral vectors, moments, sums, average and generator state."""
    with simulated_cuda():
        iteration = making("no", "small32")()
        before, random_state = [t.detach().clone() for t in iteration.state()], torch.get_rng_state()
        names = [name for name, _ in iteration.method.named_buffers()]
        assert any("running_mean" in name for name in names)
        assert any(name.endswith("._u") for name in names)
        moved: list[bool] = []

        def synchronize() -> None:
            moved.append(not all(map(torch.equal, iteration.state(), before)))

        graphed = Graphed(iteration, iteration.state, synchronize=synchronize)
        graphed.prepare(*make_inputs(iteration, first=0))
        assert moved == [True]  # it is waited for missing ranks before the host is in the copies back
        for now, then in zip(iteration.state(), before, strict=True):
            assert torch.equal(now, then)
        assert torch.equal(torch.get_rng_state(), random_state)


def test_other_shapes_are_refused() -> None:
    with simulated_cuda():
        iteration = making("no", "mlp2d")()
        graphed = Graphed(iteration, iteration.state)
        inputs = make_inputs(iteration, first=0, architecture="mlp2d")
        graphed(*inputs)
        fewer = make_inputs(iteration, first=0, size=4, architecture="mlp2d")
        with pytest.raises(
            ValueError, match=r"captured with \[6, 2\] torch.float32 as input 0, but got \[4, 2\]"
        ):
            graphed(*fewer)
        with pytest.raises(ValueError, match="12 inputs, but got 3"):
            graphed(*inputs[:3])


def test_a_failed_capture_ends_with_a_sentence() -> None:
    def reads(*inputs: torch.Tensor) -> None:
        inputs[0].sum().item()

    with simulated_cuda() as device:
        torch.cuda.set_stream(torch.cuda.Stream())
        graphed = Graphed(reads, lambda: [])
        with pytest.raises(CaptureError, match=r"not permitted when stream is capturing: .*cuda_graph=off"):
            graphed(torch.ones(3, device="cuda"))
        assert device.num_replays == 0
