"""On a CUDA device: the same numbers as on the CPU, and training that goes on from its checkpoint."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dist_dsvae.core.noise import Draw, Noise, permutation
from dist_dsvae.core.types import Batch
from tests.distributed.launching import epochs_of, metrics, train_anew, write_config
from tests.unit.methods.making import SHAPES, make_batch, make_method, summed

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_noise_is_the_same_on_every_device() -> None:
    positions = torch.arange(1000)
    here = Noise(3, positions).normal(Draw.PRIOR_ZU, 64)
    there = Noise(3, positions.cuda()).normal(Draw.PRIOR_ZU, 64).cpu()
    torch.testing.assert_close(here, there, rtol=1e-5, atol=1e-6)
    assert torch.equal(
        Noise(3, positions).integers(Draw.PRIOR_LABEL, 530),
        Noise(3, positions.cuda()).integers(Draw.PRIOR_LABEL, 530).cpu(),
    )
    assert permutation(10, 1, 2).device.type == "cpu"


class NoiseOfTheCPU(Noise):
    """The CPU's normal numbers on any device: the GPU's erfinv differs from them by float32's last digit."""

    def normal(self, draw: Draw, size: int) -> Tensor:
        here = Noise(self.seed, self.positions.cpu(), self.dtype)
        return here.normal(draw, size).to(self.positions.device)


@pytest.mark.parametrize("architecture", ["small32", "mlp2d"])
def test_gradients_equal_those_of_the_cpu(architecture: str) -> None:
    """float64, every term and every network, from the same noise."""
    method = make_method(architecture)
    there = copy.deepcopy(method).cuda()
    batch = make_batch(SHAPES[architecture])
    remote = Batch(*(t.cuda() for t in batch))
    noise, remote_noise = (NoiseOfTheCPU(9, b.positions, torch.float64) for b in (batch, remote))
    for step in ("gm", "joint"):
        summed(method, method(batch, noise, step)).backward()
        summed(there, there(remote, remote_noise, step)).backward()
    for (name, p), q in zip(method.named_parameters(), there.parameters(), strict=True):
        torch.testing.assert_close(q.grad.cpu(), p.grad, rtol=1e-6, atol=1e-9, msg=name)


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_training_learns_and_resumes(tmp_path: Path, precision: str) -> None:
    config = write_config(tmp_path / "c.json", data={"num_workers": 2}, train={"checkpoint_every_steps": 20})
    arguments = ("--mixed_precision", precision)
    run_dir = tmp_path / "run"
    for iterations in (20, 60):
        epochs = ("--set", f"train.epochs={epochs_of(iterations)}")
        output = train_anew(run_dir, config, *arguments, *epochs)
    assert "Resumed" in output
    lines = metrics(run_dir)
    assert [line["step"] for line in lines] == list(range(1, 61))
    assert lines[-1]["gm"] < 0.7 * lines[0]["gm"]
    assert "without CUDA graphs" not in output
    start = json.loads((run_dir / "environment.json").read_text())[-1]
    assert start["mixed_precision"] == precision
