"""What the launcher promised against what trains; precision's order of precedence."""

from __future__ import annotations

import pytest
import torch

from dist_dsvae.config import TrainConfig
from dist_dsvae.engine import runtime
from dist_dsvae.engine.runtime import LaunchError


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
    assert runtime._resolve_precision(config, argument, use_cpu=True) == expected


@pytest.mark.parametrize("native", [True, False])
def test_auto_precision_is_bf16_where_it_is_native(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: native)
    config = TrainConfig(mixed_precision="auto")
    assert runtime._resolve_precision(config, None, use_cpu=True) == ("bf16" if native else "no")


def test_precision_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    with pytest.raises(LaunchError, match="fp16 needs a GPU"):
        runtime._resolve_precision(TrainConfig(), "fp16", use_cpu=True)
    with pytest.raises(LaunchError, match="fp8' is not supported"):
        runtime._resolve_precision(TrainConfig(), "fp8", use_cpu=True)
    with pytest.raises(LaunchError, match="double_precision is set"):
        runtime._resolve_precision(TrainConfig(double_precision=True), "bf16", use_cpu=True)


def test_launcher_and_accelerate_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(LaunchError, match=r"started 2 processes .* sees 1: each would train"):
        runtime._check_launcher(1)
    runtime._check_launcher(2)
    monkeypatch.delenv("WORLD_SIZE")
    runtime._check_launcher(1)
