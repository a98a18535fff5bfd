"""The graph wrapper with a stand-in graph: warm-up leaves no trace, replays are the eager iterations.

What a stand-in cannot show, that a captured graph launches the right kernels, tests/gpu shows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dist_dsvae.config import OptimizerConfig, TrainConfig
from dist_dsvae.engine.cuda_graph import Graphed, graphed_where_possible
from dist_dsvae.engine.iteration import Iteration
from dist_dsvae.engine.runtime import Runtime
from dist_dsvae.methods.step import objective
from dist_dsvae.noise import Noise
from tests.unit.engine.making import make_inputs, make_iteration
from tests.unit.methods.making import BEYOND


class StandIn:
    """Capturing runs the function in Python but changes no tensor; replaying runs it again.

    Like the real thing, it is deaf to what the caller passes later: only the captured inputs count.
    """

    def __init__(self, iteration: Iteration) -> None:
        self.iteration = iteration
        self.num_captures = self.num_replays = 0

    def __call__(self, function: Callable[[], None]) -> Callable[[], None]:
        self.num_captures += 1
        before = [tensor.detach().clone() for tensor in self.iteration.state()]
        function()
        with torch.no_grad():
            for tensor, value in zip(self.iteration.state(), before, strict=True):
                tensor.copy_(value)

        def replay() -> None:
            self.num_replays += 1
            function()

        return replay


def everything(iteration: Iteration) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in iteration.state()]


@pytest.mark.parametrize(
    ("architecture", "settings"), [("small32", {}), ("small", BEYOND | {"augmentation": "on"}), ("mlp2d", {})]
)
def test_graphed_equals_eager(architecture: str, settings: dict[str, object]) -> None:
    """Bit for bit over iterations with clipping, moving learning rates, average, and a log tick between."""
    config = OptimizerConfig(clip_gradient_norm=1.0, variance_schedule="paper")
    eager, captured = (make_iteration(config, architecture=architecture, **settings) for _ in range(2))
    stand_in = StandIn(captured)
    graphed = Graphed(captured, captured.state, stand_in)
    for number in range(5):
        inputs = make_inputs(eager, first=24 * number, architecture=architecture)
        for iteration, run in ((eager, eager), (captured, graphed)):
            iteration.set_rates(float(number), number)
            run(*(tensor.clone() for tensor in inputs))
            iteration.meter.num_iterations += 1
        if number == 2:
            assert eager.meter.read() == captured.meter.read()
    for ours, theirs in zip(everything(captured), everything(eager), strict=True):
        assert torch.equal(ours, theirs)
    assert (stand_in.num_captures, stand_in.num_replays) == (1, 5)


def test_preparing_leaves_no_trace() -> None:
    """Networks, batch-norm statistics, spectral vectors, moments, sums, average and generator state."""
    iteration = make_iteration()
    before, random_state = everything(iteration), torch.get_rng_state()
    graphed = Graphed(iteration, iteration.state, lambda function: lambda: None)
    graphed(*make_inputs(iteration, first=0))
    names = [name for name, _ in iteration.method.named_buffers()]
    assert any("running_mean" in name for name in names)
    assert any(name.endswith("._u") for name in names)
    for now, then in zip(everything(iteration), before, strict=True):
        assert torch.equal(now, then)
    assert torch.equal(torch.get_rng_state(), random_state)


def test_other_shapes_are_refused() -> None:
    iteration = make_iteration()
    graphed = Graphed(iteration, iteration.state, StandIn(iteration))
    graphed(*make_inputs(iteration, first=0))
    with pytest.raises(
        ValueError, match=r"captured with \[6, 32, 32, 1\] torch.uint8 as input 0, but got \[4,"
    ):
        graphed(*make_inputs(iteration, first=0, size=4))
    with pytest.raises(ValueError, match="12 inputs, but got 3"):
        graphed(*make_inputs(iteration, first=0)[:3])


def test_a_failed_capture_goes_on_eagerly_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    eager, iteration = make_iteration(), make_iteration()

    def fail(function: Callable[[], None]) -> Callable[[], None]:
        inputs = make_inputs(iteration, first=0)
        noise = Noise(0, inputs[2])
        batch = iteration.to_batch["train"](inputs[:3], noise)
        objective(iteration.method, iteration.method(batch, noise, "joint")).backward()
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might ...")

    graphed = Graphed(iteration, iteration.state, fail)
    before = [buffer.clone() for buffer in iteration.method.buffers()]
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            inputs = make_inputs(eager, first=24 * number)
            eager(*inputs)
            if number == 0:
                graphed._prepare(tuple(inputs))
                for buffer, value in zip(iteration.method.buffers(), before, strict=True):
                    buffer.copy_(value)  # what a real capture would not have computed
            graphed(*inputs)
    assert [record.getMessage() for record in caplog.records] == [
        "training without CUDA graphs, which is slower: operation not permitted when stream is capturing"
    ]
    for ours, theirs in zip(everything(iteration), everything(eager), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.skipif(torch.cuda.is_available(), reason="here a graph is possible")
@pytest.mark.parametrize(("setting", "num_warnings"), [("auto", 0), ("on", 1), ("off", 0)])
def test_without_a_gpu_the_function_itself_runs(
    setting: str, num_warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    iteration = make_iteration()
    with caplog.at_level(logging.WARNING):
        run = graphed_where_possible(iteration, iteration.state, setting, Runtime(TrainConfig()))
    assert run is iteration
    assert len(caplog.records) == num_warnings


def test_state_names_every_tensor_that_changes() -> None:
    """Whatever else hangs on the method or its optimisers stays as it was."""
    iteration = make_iteration()
    known = {tensor.data_ptr() for tensor in iteration.state()}
    for optimizer in iteration.optimizers.values():
        for moments in optimizer.adam.state.values():
            assert {t.data_ptr() for t in moments.values() if isinstance(t, Tensor)} <= known
    assert {t.data_ptr() for t in iteration.method.state_dict().values()} <= known
