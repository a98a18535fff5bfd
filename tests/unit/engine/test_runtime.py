"""What the launcher promised against what trains; precision's order of precedence."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType

from dist_dsvae.config import TrainConfig
from dist_dsvae.core import distributed
from dist_dsvae.engine.processes import launch_checks, runtime
from dist_dsvae.engine.processes.launch_checks import LaunchError, joining_explained
from dist_dsvae.engine.processes.runtime import Runtime


@pytest.mark.parametrize(
    ("argument", "launcher", "configured", "expected"),
    [
        (None, "no", "no", "no"),
        (None, "no", "bf16", "bf16"),
        (None, "bf16", "no", "bf16"),
        ("no", "bf16", "bf16", "no"),
        ("bf16", "no", "no", "bf16"),
    ],
)
def test_precision(
    monkeypatch: pytest.MonkeyPatch, argument: str | None, launcher: str, configured: str, expected: str
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launcher)
    config = TrainConfig(mixed_precision=configured)
    assert launch_checks.resolved_precision(config, argument, use_cpu=True) == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("avx512f", "avx512_bf16", "amx_tile", "amx_bf16"), "bf16"),  # Intel from Sapphire Rapids on
        (("avx512f", "avx512_bf16"), "bf16"),  # AMD from Zen 4 on, Intel Cooper Lake
        (("avx2", "avx512f"), "no"),
        ((), "no"),
    ],
)
def test_auto_precision_is_bf16_where_it_is_native(
    monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], expected: str
) -> None:
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    monkeypatch.setattr(launch_checks, "cpu_flags", lambda: flags)
    config = TrainConfig(mixed_precision="auto")
    assert launch_checks.resolved_precision(config, None, use_cpu=True) == expected


@pytest.mark.parametrize(("vectors", "tiles"), [(True, True), (True, False), (False, False)])
def test_flags_as_torch_tells_them(monkeypatch: pytest.MonkeyPatch, vectors: bool, tiles: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: vectors, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles, raising=False)
    expected = {"avx512_bf16"} if vectors else set()
    assert launch_checks.cpu_flags() == expected | ({"amx_bf16"} if tiles else set())


def test_flags_where_torch_does_not_tell_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert launch_checks.cpu_flags(tmp_path / "none") == set()
    (tmp_path / "cpuinfo").write_text("model name : AMD EPYC\nflags\t\t: fpu avx512f avx512_bf16 rdpid\n")
    assert launch_checks.cpu_flags(tmp_path / "cpuinfo") == {"avx512_bf16"}
    (tmp_path / "cpuinfo").write_text("flags\t\t: fpu avx512f amx_tile amx_bf16\n")
    assert launch_checks.cpu_flags(tmp_path / "cpuinfo") == {"amx_bf16"}


def test_precision_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    with pytest.raises(LaunchError, match="fp16 needs a GPU"):
        launch_checks.resolved_precision(TrainConfig(), "fp16", use_cpu=True)
    with pytest.raises(LaunchError, match="fp8' is not supported"):
        launch_checks.resolved_precision(TrainConfig(), "fp8", use_cpu=True)
    with pytest.raises(LaunchError, match="double_precision is set"):
        launch_checks.resolved_precision(TrainConfig(double_precision=True), "bf16", use_cpu=True)


def test_launcher_and_accelerate_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(LaunchError, match=r"started 2 processes .* sees 1: each would train"):
        launch_checks.check_launcher(1)
    launch_checks.check_launcher(2)
    monkeypatch.delenv("WORLD_SIZE")
    launch_checks.check_launcher(1)


def test_processes_that_cannot_be_joined_get_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib7")
    monkeypatch.delenv("NCCL_SOCKET_IFNAME", raising=False)
    said = r"cannot reach each other: gloo: no ib7\. Name the .* \(now GLOO_SOCKET_IFNAME=ib7\)"
    with pytest.raises(LaunchError, match=said), joining_explained():
        raise RuntimeError("gloo: no ib7\nat device.cc")
    with pytest.raises(RuntimeError, match=r"^CUDA error"), joining_explained():
        raise RuntimeError("CUDA error: invalid device ordinal")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(RuntimeError, match=r"^gloo"), joining_explained():
        raise RuntimeError("gloo: no ib7")


def test_nccl_connects_at_the_first_collective(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in Accelerator, as gloo does."""

    def refuse(_: object) -> None:
        raise RuntimeError("NCCL error in: Utils.hpp:40, unhandled system error")

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(runtime, "Accelerator", lambda **_: SimpleNamespace(num_processes=2))
    monkeypatch.setattr(distributed, "gather_objects", refuse)
    with pytest.raises(LaunchError, match=r"cannot reach each other: NCCL error .* NCCL_SOCKET_IFNAME"):
        Runtime(TrainConfig())


def test_every_process_needs_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    launch_checks.check_devices(4)
    with pytest.raises(LaunchError, match=r"Process 3 .* no GPU of its own: there are 2\. Start at most 2"):
        launch_checks.check_devices(2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # as where a scheduler hides the others
    monkeypatch.setattr(runtime, "resolved_precision", lambda *_, **__: "no")
    with pytest.raises(LaunchError, match="there are 1"):
        Runtime(TrainConfig())


def test_accumulation_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    launch_checks.check_accumulation()
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    with pytest.raises(LaunchError, match=r"asks for 4 steps .* Leave it out"):
        launch_checks.check_accumulation()


def test_the_compiler_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for left_out in ("no", "NO"):
        monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", left_out)
        launch_checks.check_compiler()
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    with pytest.raises(LaunchError, match=r"torch.compile with INDUCTOR .* Leave it out"):
        Runtime(TrainConfig())


def test_machines_that_would_choose_other_precisions() -> None:
    launch_checks.check_precisions(["bf16", "bf16"])
    with pytest.raises(LaunchError, match=r"process 0: bf16, process 1: no\), since"):
        launch_checks.check_precisions(["bf16", "no"])


def zero(stage: int = 1, **more: object) -> dict[str, object]:
    return {"zero_optimization": {"stage": stage, "offload_optimizer": {"device": "none"}}, **more}


def test_zero_stages() -> None:
    assert launch_checks.checked_stage(zero(1)) == 1
    assert launch_checks.checked_stage(zero(2, gradient_clipping="auto", gradient_accumulation_steps=1)) == 2


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (zero(3), "ZeRO stage 3; supported are 1"),
        (zero(0), "ZeRO stage 0; supported are 1"),
        (
            {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}},
            "offload_optimizer: cpu",
        ),
        (zero(gradient_accumulation_steps=4), "gradient_accumulation_steps to 4. Leave it out"),
        (zero(gradient_clipping=1.0), r"gradient_clipping to 1.0. .* optimizer.clip_gradient_norm"),
        (zero(bf16={"enabled": True}), "DeepSpeed's own bf16"),
    ],
)
def test_what_zero_cannot_do_gets_a_sentence(config: dict[str, object], sentence: str) -> None:
    with pytest.raises(LaunchError, match=sentence):
        launch_checks.checked_stage(config)


def test_deepspeed_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not launch_checks.deepspeed_is_asked_for(TrainConfig(), "no")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LaunchError, match=r'pip install "dist_dsvae\[deepspeed\]"'):
        launch_checks.deepspeed_is_asked_for(TrainConfig(), "no")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert launch_checks.deepspeed_is_asked_for(TrainConfig(), "bf16")
    with pytest.raises(LaunchError, match="fp16 is not supported together with DeepSpeed"):
        launch_checks.deepspeed_is_asked_for(TrainConfig(), "fp16")
    with pytest.raises(LaunchError, match="double_precision is not supported together with DeepSpeed"):
        launch_checks.deepspeed_is_asked_for(TrainConfig(double_precision=True), "no")


def test_other_kinds_are_refused() -> None:
    with pytest.raises(LaunchError, match="FSDP, which is not supported"):
        launch_checks.check_kind(DistributedType.FSDP, False)
    with pytest.raises(LaunchError, match="Accelerate left it out"):
        launch_checks.check_kind(DistributedType.MULTI_CPU, True)


def test_an_environment_that_asks_for_tf32_is_overruled() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        Runtime(TrainConfig())
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(before)
