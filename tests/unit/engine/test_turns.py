"""Which update of an iteration gets which batch."""

from __future__ import annotations

import pytest

from dist_dsvae.core.noise import Noise
from dist_dsvae.core.types import Batch
from tests.unit.engine.making import make_inputs, make_iteration


@pytest.mark.parametrize(("joint_batch", "third"), [("fresh", range(12, 18)), ("last", range(6, 12))])
def test_the_joint_update_has_its_own_batch_or_the_last_of_stage_1(joint_batch: str, third: range) -> None:
    iteration = make_iteration(architecture="mlp2d", gm_updates=2, joint_batch=joint_batch)
    seen: list[tuple[str, list[int]]] = []
    for name, update in iteration.run_update.items():

        def noted(batch: Batch, noise: Noise, name=name, update=update):  # type: ignore[no-untyped-def]
            assert noise.positions.tolist() == batch.positions.tolist()
            seen.append((name, batch.positions.tolist()))
            return update(batch, noise)

        iteration.run_update[name] = noted  # type: ignore[assignment]
    iteration(*make_inputs(iteration, first=0, architecture="mlp2d"))
    assert seen == [("gm", list(range(6))), ("gm", list(range(6, 12))), ("joint", list(third))]
