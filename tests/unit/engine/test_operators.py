"""Operators of an iteration: each is a kernel on a GPU, so they are counted.

The ceilings are in tests/unit/test_benchmark.py."""

from __future__ import annotations

import torch
from torch import Tensor

from dist_dsvae.engine.measuring.operators import operators_of
from tests.unit.engine.making import make_inputs, make_iteration


def test_views_and_allocations_are_left_out() -> None:
    weight = torch.ones(3, 4, requires_grad=True)

    def function() -> Tensor:
        (gradient,) = torch.autograd.grad((weight.view(4, 3) * 2.0).sum(), weight)
        torch._foreach_add_([torch.empty(2), torch.empty(2)], 1.0)
        return gradient.view(-1)

    # sum's gradient begins with ones and expands, a view
    assert dict(operators_of(function)) == {"mul": 2, "sum": 1, "ones_like": 1, "_foreach_add_": 1}


def test_the_noise_is_hashed_once() -> None:
    """A second hash would be as many shifts more; the moving average is a handful of operators over lists."""
    iteration = make_iteration()
    inputs = make_inputs(iteration, first=0)
    kinds = operators_of(lambda: iteration(*inputs))
    assert kinds["__rshift__"] == 10
    assert kinds["_foreach_sub"] == 1
