"""Whole iterations against the literal transcription of Algorithm 1, in float64.

float64, because Adam with beta1 = 0 turns the rounding of a tiny gradient into a sign flip.
"""

from __future__ import annotations

import copy

import pytest
import torch

from dist_dsvae.config import OptimizerConfig, TrainConfig
from dist_dsvae.engine.iteration.guard import Guard
from dist_dsvae.engine.iteration.optimizer import UpdateOptimizer
from dist_dsvae.engine.iteration.updates import FlatUpdate, OverlappedUpdate
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.methods.dsvae import DSVAE
from dist_dsvae.methods.update import parameter_groups
from tests.algorithm1 import PlainTrainer
from tests.unit.methods.making import (
    BEYOND,
    SHAPES,
    drawn_for,
    make_batch,
    make_method,
    noise_for,
    normal_for,
    summed,
)

TOLERANCE = {"rtol": 1e-8, "atol": 1e-8}


def engine_steps(method: DSVAE):  # type: ignore[no-untyped-def]
    runtime = Runtime(TrainConfig(double_precision=True))
    guard = Guard(method.updates, runtime.device)
    gm, joint = method.updates
    optimizers = [UpdateOptimizer(OptimizerConfig(), parameter_groups(method, step)) for step in (gm, joint)]
    return (
        FlatUpdate(method, gm, optimizers[0], guard, runtime),
        OverlappedUpdate(method, joint, optimizers[1], guard, runtime, method),
    )


@pytest.mark.parametrize(
    ("architecture", "memory_format", "settings"),
    [
        ("small32", torch.contiguous_format, {}),
        ("small32", torch.channels_last, {}),
        ("mlp2d", torch.contiguous_format, {}),
        ("small", torch.channels_last, {}),
        ("small", torch.channels_last, BEYOND),
        ("small", torch.channels_last, BEYOND | {"mixture_variance": "unit"}),
        ("mlp2d", torch.contiguous_format, BEYOND),
        ("mlp2d", torch.contiguous_format, {"code_weight": 0.5, "mixture_fit": "moments"}),
        ("mlp2d", torch.contiguous_format, {"sampled_classes": 2}),
        ("mlp2d", torch.contiguous_format, {"gm_margin": 0.5}),
        ("mlp2d", torch.contiguous_format, BEYOND | {"gm_margin": 0.5}),
        ("mlp2d", torch.contiguous_format, {"sampled_classes": 2, "gm_margin": 0.5}),
    ],
)
def test_iterations_equal_the_transcription(
    architecture: str, memory_format: torch.memory_format, settings: dict[str, object]
) -> None:
    """Three iterations of 3 GM updates and a joint update: losses, weights and batch-norm buffers."""
    method = make_method(architecture, **settings)
    plain = PlainTrainer(copy.deepcopy(method), drawn=drawn_for)
    method.to(memory_format=memory_format)
    gm, joint = engine_steps(method)
    position = 0
    for _ in range(3):
        for _ in range(3):
            batch = make_batch(SHAPES[architecture], first=position)
            position += 6
            expected_gm = plain.gm_step(batch, normal_for(batch))
            torch.testing.assert_close(gm(batch, noise_for(batch))[0], expected_gm, **TOLERANCE)
        batch = make_batch(SHAPES[architecture], first=position)
        position += 6
        got = dict(zip(joint.update.terms, joint(batch, noise_for(batch)), strict=True))
        expected = plain.joint_step(batch, normal_for(batch))
        assert set(got) == set(expected)
        for term, value in expected.items():
            torch.testing.assert_close(got[term], value, **TOLERANCE)
    for (name, ours), theirs in zip(method.state_dict().items(), plain.m.state_dict().values(), strict=True):
        if "num_batches_tracked" in name:
            continue  # the transcription runs the encoder once per line that names it
        torch.testing.assert_close(ours, theirs, msg=f"{name} differs", **TOLERANCE)


def test_gradients_of_one_joint_step() -> None:
    method = make_method("conv32")
    plain = PlainTrainer(copy.deepcopy(method))
    batch = make_batch(SHAPES["conv32"], size=4)
    summed(method, method(batch, noise_for(batch), "joint")).backward()
    plain.joint_step(batch, normal_for(batch))
    for network in method.updates[1].trains:
        ours = [p.grad for p in method.get_submodule(network).parameters()]
        for got, expected in zip(ours, plain.last_gradients[network], strict=True):
            torch.testing.assert_close(got, expected, **TOLERANCE)
