"""Where graphs are made, and what the wrapper must know; tests/simulated has the graphs themselves."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor

from dist_dsvae.config import TrainConfig
from dist_dsvae.engine.iteration.cuda_graph import graphed_where_possible
from dist_dsvae.engine.processes.runtime import Runtime
from tests.unit.engine.making import make_iteration


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
