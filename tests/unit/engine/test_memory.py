"""Training with very many classes: its memory is told, and refused, before any of it is taken."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
from types import SimpleNamespace
from typing import Literal

import psutil
import pytest
import torch

from dist_dsvae.config import DSVAEConfig, ModelConfig
from dist_dsvae.core import distributed
from dist_dsvae.core.types import ImageShape
from dist_dsvae.engine.memory import TooLargeError, check_memory, needed_bytes

POINTS = ImageShape(2, 0, 0)
# prints the bytes that an iteration with many classes adds at its peak to one with ten
_ITERATION = """
import re, sys
from pathlib import Path
from dist_dsvae.config import DSVAEConfig, ModelConfig
from dist_dsvae.methods.dsvae import DSVAE
from dist_dsvae.core.types import ImageShape
from tests.unit.engine.making import make_inputs, make_iteration

def resident(what):
    return 1024 * int(re.search(what + r":\\s*(\\d+)", Path("/proc/self/status").read_text()).group(1))

def iterate(classes):
    model = ModelConfig(architecture="mlp2d", zs_dim=int(sys.argv[2]), zu_dim=2)
    config = DSVAEConfig(augmentation="off", sampled_classes=int(sys.argv[3]))
    method = DSVAE(config, model, ImageShape(2, 0, 0), classes)
    iteration = make_iteration(method=method)
    iteration(*make_inputs(iteration, 0, 6, "mlp2d"))

iterate(10)
Path("/proc/self/clear_refs").write_text("5")
before = resident("VmRSS")
iterate(int(sys.argv[1]))
print(resident("VmHWM") - before)
"""


def config_of(zs_dim: int, **method: int) -> tuple[DSVAEConfig, ModelConfig]:
    return DSVAEConfig(**method), ModelConfig(architecture="mlp2d", zs_dim=zs_dim, zu_dim=2)


def peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_a_million_classes_end_in_a_sentence_before_memory_is_taken() -> None:
    check_memory(*config_of(2), POINTS, 20_000, 32, torch.device("cpu"))  # fits
    free, before = psutil.virtual_memory().available, peak_kib()
    dim = -(-free // (1_000_000 * 4 * 12)) + 8  # the [C, d] matrices are more than there is
    with pytest.raises(TooLargeError) as caught:
        check_memory(*config_of(dim), POINTS, 1_000_000, 32, torch.device("cpu"))
    assert peak_kib() - before < 50_000
    assert "on 1,000,000 classes takes at least" in str(caught.value)
    assert "set method.sampled_classes to some thousands" in str(caught.value)
    assert "lower model.zs_dim" in str(caught.value)
    with pytest.raises(TooLargeError) as caught:  # beyond that
        check_memory(*config_of(4 * dim, sampled_classes=4096), POINTS, 1_000_000, 32, torch.device("cpu"))
    assert "sampled_classes" not in str(caught.value)


def test_a_million_classes_fit_by_sampling_where_all_of_them_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sampled, exact = config_of(512, sampled_classes=4096), config_of(512)
    between = needed_bytes(*sampled, POINTS, 1_000_000, 32) * 3 // 2
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=between))
    check_memory(*sampled, POINTS, 1_000_000, 32, torch.device("cpu"))
    with pytest.raises(TooLargeError, match="on 1,000,000 classes takes at least"):
        check_memory(*exact, POINTS, 1_000_000, 32, torch.device("cpu"))


def test_a_mixture_that_no_optimiser_trains_is_held_once() -> None:
    """Without a gradient and Adam's two moments: of each class's mean and log-variance 3 of 4 copies less."""
    dim, more_classes = 256, 10_000

    def more(fit: Literal["gradient", "moments"]) -> int:
        method, model = DSVAEConfig(mixture_fit=fit, sampled_classes=2), config_of(dim)[1]
        fewer = needed_bytes(method, model, POINTS, 20_000, 6)
        return needed_bytes(method, model, POINTS, 20_000 + more_classes, 6) - fewer

    assert more("gradient") - more("moments") == 3 * (2 * dim) * more_classes * 4


def test_what_is_divided_is_counted_once_for_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    sampled = (*config_of(512, sampled_classes=4096), POINTS, 1_000_000, 32)
    whole, one, two = (needed_bytes(*sampled, zero_stage=stage, world_size=8) for stage in (0, 1, 2))
    mixture = 2 * 512 * 1_000_000 * 4  # of what is trained, nearly all
    assert whole - one == pytest.approx(2 * mixture * 7 / 8, rel=0.1)
    assert one - two == pytest.approx((whole - one) / 2)
    monkeypatch.setattr(distributed, "world_size", lambda: 8)
    monkeypatch.setattr(distributed, "gather_objects", lambda value: [value])
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=one))
    check_memory(*sampled, torch.device("cpu"), zero_stage=1)
    with pytest.raises(TooLargeError, match=r"divide the state among processes \(configs/accelerate/zero2"):
        check_memory(*sampled, torch.device("cpu"))


def bytes_taken(classes: int, dim: int, sampled: int) -> int:
    """The median of three processes: beside other work a peak has a matrix [C, d] more or less."""
    words = [sys.executable, "-c", _ITERATION, str(classes), str(dim), str(sampled)]
    runs = [subprocess.run(words, capture_output=True, text=True, check=True) for _ in range(3)]
    return statistics.median(int(done.stdout.splitlines()[-1]) for done in runs)


def test_the_estimate_is_what_an_iteration_takes() -> None:
    classes, dim = 20_000, 256
    taken = {sampled: bytes_taken(classes, dim, sampled) for sampled in (0, 512)}
    for sampled, got in taken.items():
        needed = needed_bytes(*config_of(dim, sampled_classes=sampled), POINTS, classes, 6)
        assert 0.8 < got / needed < 1.25, sampled
    assert taken[512] < 0.65 * taken[0]
