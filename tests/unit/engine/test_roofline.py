"""The roofline's arithmetic in closed form, and that fake tensors ask for the same work as real ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.nn import functional

from dist_dsvae.config import DataConfig, DSVAEConfig, ExperimentConfig, ModelConfig, TrainConfig
from dist_dsvae.core.types import ImageShape
from dist_dsvae.engine.measuring.devices import DEVICES, Device, DeviceError, Pace, device_called
from dist_dsvae.engine.measuring.planning import plan
from dist_dsvae.engine.measuring.roofline import Operator, Work, predict, work_of
from dist_dsvae.engine.processes.runtime import Runtime

GRADIENTS = ("input gradient", "weight gradient")
# 1 byte, and 1,000 operations (bf16: 10,000) per nanosecond; 2 microseconds between launches
DEVICE = Device(
    name="round numbers", gb_per_second=1, float32_tflops=1, tf32_tflops=2, bf16_tflops=10, launch_gap_us=2
)


@pytest.fixture(autouse=True)
def own_precision() -> Iterator[None]:
    """Accelerate remembers a process's precision."""
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


def of_kind(work: Work, kind: str) -> Operator:
    (operator,) = [operator for operator in work.operators if operator.kind == kind]
    return operator


def test_bytes_are_read_and_written_once() -> None:
    a, row, table = torch.ones(100, 8), torch.ones(8), torch.ones(1000, 4)
    lists = [torch.ones(10), torch.ones(20)]
    rows = torch.tensor([3, 5])

    def function() -> None:
        a + row.expand(100, 8)  # the row has 8 values, however often they are used
        torch._foreach_mul_(lists, 2.0)  # returns nothing, changes its inputs
        table.index_select(0, rows)

    work = work_of(function)
    assert of_kind(work, "add").num_bytes == 4 * (800 + 8 + 800)
    assert of_kind(work, "_foreach_mul_").num_bytes == 4 * (30 + 30)
    assert of_kind(work, "index_select").num_bytes == 4 * (8 + 8) + 8 * 2
    assert work.flops == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_convolution_in_closed_form(dtype: torch.dtype) -> None:
    images = torch.ones(2, 3, 8, 8, dtype=dtype, requires_grad=True)
    weight = torch.ones(5, 3, 3, 3, dtype=dtype, requires_grad=True)

    def function() -> tuple[Tensor, ...]:
        out = functional.conv2d(images, weight, padding=1)
        return torch.autograd.grad(out, (images, weight), torch.ones(2, 5, 8, 8, dtype=dtype))

    work = work_of(function)
    forward = of_kind(work, "convolution")
    sizes = {"images": 2 * 3 * 64, "weight": 5 * 3 * 9, "out": 2 * 5 * 64}
    for operator in (forward, *(of_kind(work, f"convolution_backward, {pace}") for pace in GRADIENTS)):
        assert operator.flops == 2 * (2 * 5 * 8 * 8) * (3 * 3 * 3)
        assert operator.num_bytes == dtype.itemsize * sum(sizes.values())
        assert operator.arithmetic == ("tf32" if dtype == torch.float32 else "bf16")
        assert operator.size == 8


def test_what_the_share_of_the_arithmetic_depends_on() -> None:
    images, weight = torch.ones(2, 3, 8, 8), torch.ones(3, 5, 4, 4)
    a, b, values = torch.ones(7, 20), torch.ones(20, 30), torch.ones(2, 3, 4, 4)
    moments = torch.zeros(3)

    def function() -> None:
        functional.conv_transpose2d(images, weight, stride=2, padding=1)  # to 16 x 16
        a @ b
        functional.batch_norm(values, moments, moments, training=True)

    work = work_of(function)
    assert (of_kind(work, "convolution").size, of_kind(work, "mm").size) == (8, 7)
    norm = of_kind(work, "native_batch_norm")
    assert norm.pace == "normalisation"
    # running moments are read and written besides, 4 bytes each; so are the batch's
    assert norm.num_bytes == pytest.approx(3 * 4 * values.numel(), abs=4 * 4 * 4 * 3)


def test_memory_in_closed_form() -> None:
    weight, kept = torch.ones(1000, requires_grad=True), torch.ones(500)

    def freed() -> Tensor:
        first = weight.detach() * 2
        second = first.add_(1).view(10, 100) * 3  # in place, a view: nothing new but the product
        del first
        return torch.cat([second, second])

    def saved() -> Tensor:
        return weight.exp().exp().neg()  # nobody names the first two, but the backward pass needs them

    for function, most in ((freed, 3000), (saved, 3000)):
        work = work_of(function, held=[weight, kept])
        assert work.held_bytes == 4 * 1500
        assert work.peak_bytes == 4 * (1500 + most)


def test_an_operator_takes_its_launch_and_its_tightest_limit() -> None:
    def share(pace: Pace, size: float) -> float:
        return {"normalisation": 0.25, "convolution": 0.5}.get(pace, 1.0) * (0.5 if size == 3 else 1.0)

    work = Work(
        operators=(
            Operator("add", "elementwise", 5_000, 0, 0, "float32"),  # 5 us of memory
            Operator("norm", "normalisation", 1_000, 0, 0, "float32"),  # 4 us, at a quarter of the bandwidth
            Operator("mm", "product", 1_000, 7_000_000, 64, "float32"),  # 7 us of arithmetic
            Operator("mm", "product", 1_000, 30_000_000, 3, "bf16"),  # 6 us, at half the peak
            Operator("conv", "convolution", 9_000, 10_000_000, 8, "bf16"),  # 9 us of memory, 2 of arithmetic
        ),
        held_bytes=0,
        peak_bytes=0,
    )
    prediction = predict(work, DEVICE, share)
    assert prediction.seconds == pytest.approx(41e-6)
    assert list(prediction.kinds) == ["mm", "conv", "add", "norm"]
    assert prediction.kinds["mm"].count == 2
    assert prediction.kinds["mm"].seconds == pytest.approx(17e-6)
    assert prediction.limited_by == pytest.approx({"memory": 18e-6, "arithmetic": 13e-6, "launches": 10e-6})
    assert prediction.share_of_ceiling == pytest.approx(11 / 41)


def config(batch_size: int) -> ExperimentConfig:
    return ExperimentConfig(
        data=DataConfig(train="", batch_size=batch_size),
        model=ModelConfig(architecture="small32", zs_dim=6, zu_dim=5),
        method=DSVAEConfig(augmentation="off"),
        train=TrainConfig(ema_half_life_updates=10),
    )


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_fake_tensors_ask_for_the_work_of_real_ones(precision: str) -> None:
    """Fakes first: nothing of them may be left for the real ones to meet."""
    runtime = Runtime(TrainConfig(), precision)
    fake, real = (
        plan(config(6), ImageShape(1, 32, 32), 4, runtime, fake=fake).work() for fake in (True, False)
    )
    assert len(fake.operators) > 300
    for one, other in zip(fake.operators, real.operators, strict=True):
        assert (one.kind, one.flops, one.arithmetic) == (other.kind, other.flops, other.arithmetic)
    # a fake batch norm saves its moments in half precision, a real one on a CPU in full
    totals = [sum(operator.num_bytes for operator in work.operators) for work in (fake, real)]
    assert totals[0] == pytest.approx(totals[1], rel=0.002)
    assert fake.held_bytes == real.held_bytes
    assert fake.peak_bytes == pytest.approx(real.peak_bytes, rel=0.01)  # a life may end one operator sooner


def test_a_larger_batch_takes_more() -> None:
    runtime = Runtime(TrainConfig(), "bf16")
    works = [plan(config(n), ImageShape(1, 32, 32), 4, runtime, fake=True).work() for n in (8, 512, 4096)]
    for device in DEVICES.values():
        seconds = [predict(work, device).seconds for work in works]
        assert seconds == sorted(seconds)
        assert seconds[0] < seconds[2]
    assert works[2].flops == pytest.approx(512 * works[0].flops, rel=0.1)  # networks, not weights' norms
    made = [work.peak_bytes - work.held_bytes for work in works]
    assert made[2] / made[1] == pytest.approx(8, rel=0.2)
    iteration = plan(config(8), ImageShape(1, 32, 32), 4, runtime, fake=True).iteration
    parameters = sum(p.numel() for p in iteration.method.parameters())
    assert works[0].held_bytes > 3 * 4 * parameters  # with Adam's two moments


def test_a_device_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    tree = {"name": "mine", "gb_per_second": 900, "float32_tflops": 10, "tf32_tflops": 20, "bf16_tflops": 40}
    path.write_text(json.dumps(tree))
    mine = device_called(str(path))
    assert (mine.bytes_per_second, mine.flops_per_second("bf16")) == (900e9, 40e12)
    assert mine.launch_gap_seconds == DEVICES["h100"].launch_gap_seconds == 2e-6


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("v100", None, "'v100' is no device that is known here. Choose one of a100, h100, h200, or give a"),
        ("none.json", None, "There is no file .*none.json"),
        ("a.json", "{", "a.json cannot be read as JSON"),
        (
            "a.json",
            '{"name": "mine"}',
            "does not say gb_per_second, float32_tflops, tf32_tflops, bf16_tflops",
        ),
        ("a.json", "[]", "must be an object of keys"),
        ("a.json", "SLOW", r"gb_per_second is 0; it must be between 0.001 and"),
        ("a.json", "MISSPELT", "Unknown key 'memory'. Did you mean 'memory_gb'"),
    ],
)
def test_devices_that_nobody_knows(tmp_path: Path, name: str, content: str | None, sentence: str) -> None:
    tree = {"name": "mine", "gb_per_second": 1, "float32_tflops": 1, "tf32_tflops": 1, "bf16_tflops": 1}
    content = {
        "SLOW": json.dumps(tree | {"gb_per_second": 0}),
        "MISSPELT": json.dumps(tree | {"memory": 80}),
    }.get(content or "", content)
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DeviceError, match=sentence):
        device_called(str(tmp_path / name) if name.endswith(".json") else name)
