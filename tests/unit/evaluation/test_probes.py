"""Probes on codes whose answer is known."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.optimize
import torch
from torch.overrides import TorchFunctionMode

from dist_dsvae.evaluation import probes
from dist_dsvae.evaluation.probes import Share, linear_probe_accuracy, mlp_probe_accuracy


def codes(count: int, seed: int, signal: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (count,), generator=generator)
    noise = torch.randn(count, 6, generator=generator)
    noise[:, :4] += signal * torch.nn.functional.one_hot(labels, 4)
    return noise * torch.tensor([1.0, 10, 0.1, 1, 1, 1]) + 5, labels


@pytest.mark.parametrize(("signal", "low", "high"), [(0.0, 0.2, 0.3), (20.0, 0.999, 1.0), (2.0, 0.7, 0.9)])
def test_probe_finds_what_is_there(signal: float, low: float, high: float) -> None:
    train, test = codes(4000, 0, signal), codes(4000, 1, signal)
    assert low <= linear_probe_accuracy(*train, *test, num_classes=4) <= high


def test_a_probe_is_the_plain_logistic_regression() -> None:
    """Against scipy's, on the same objective."""
    (train, labels), (test, test_labels) = codes(600, 0, 2.0), codes(2000, 1, 2.0)
    mean, std = train.double().mean(0), train.double().std(0)
    x, y = ((part.double() - mean) / std for part in (train, test))

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight = torch.tensor(flat).view(4, 7).requires_grad_()
        loss = torch.nn.functional.cross_entropy(x @ weight[:, :6].T + weight[:, 6], labels)
        loss = loss + 1e-4 * weight[:, :6].square().sum()
        loss.backward()
        return loss.item(), weight.grad.numpy().ravel()

    found = scipy.optimize.minimize(objective, np.zeros(28), jac=True, method="L-BFGS-B", tol=1e-12).x
    weight = torch.tensor(found).view(4, 7)
    expected = ((y @ weight[:, :6].T + weight[:, 6]).argmax(1) == test_labels).double().mean().item()
    got = linear_probe_accuracy(train, labels, test, test_labels, num_classes=4)
    assert got == pytest.approx(expected, abs=0.002)


@pytest.mark.parametrize("difference", [0.0, 1e-3])
def test_ranks_share_a_fit(difference: float) -> None:
    """Three ranks as threads that add up together, exactly or each a little otherwise."""
    train, test = codes(500, 0, 2.0), codes(500, 1, 2.0)
    alone = linear_probe_accuracy(*train, *test, num_classes=4)
    barrier, given = threading.Barrier(3), dict[int, torch.Tensor]()
    noise = [torch.Generator().manual_seed(rank) for rank in range(3)]

    def probe(rank: int) -> float:
        def add(tensor: torch.Tensor) -> torch.Tensor:
            given[rank] = tensor.clone()
            barrier.wait(30)
            total = given[0] + given[1] + given[2]
            total[:-1] += difference * rank * torch.randn(len(total) - 1, generator=noise[rank])
            barrier.wait(30)
            return total

        return linear_probe_accuracy(*train, *test, num_classes=4, share=Share(rank, 3, add))

    with ThreadPoolExecutor(3) as pool:
        shared = list(pool.map(probe, range(3)))
    assert shared == pytest.approx([alone] * 3, abs=0.002)
    if not difference:
        assert len(set(shared)) == 1


def test_many_classes_take_bounded_memory() -> None:
    """Scores of all 4,000 samples at once would be 64 MB."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(4000) % 2000
    centres = torch.randn(2000, 12, generator=generator)
    train, test = (centres[labels] + 0.1 * torch.randn(4000, 12, generator=generator) for _ in range(2))
    largest = 0

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.numel())
            return result

    with Watch():
        assert linear_probe_accuracy(train, labels, test, labels, num_classes=2000) > 0.8
    assert largest <= 2**22


def test_a_perceptron_takes_a_part_of_the_codes_to_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "MLP_EPOCHS", 1)
    train, test = codes(40_000, 0, 20.0), codes(40_000, 1, 20.0)
    largest = 0

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.dtype == torch.float64:
                largest = max(largest, result.numel())
            return result

    with Watch():
        assert mlp_probe_accuracy(*train, *test, num_classes=1024) > 0.9
    assert 0 < largest < train[0].numel() / 2


def test_probe_is_deterministic() -> None:
    train, test = codes(500, 0, 2.0), codes(500, 1, 2.0)
    first = linear_probe_accuracy(*train, *test, num_classes=4)
    assert first == linear_probe_accuracy(*train, *test, num_classes=4)


def test_a_constant_dimension_is_harmless() -> None:
    train, test = codes(500, 0, 20.0), codes(500, 1, 20.0)
    train[0][:, 5] = test[0][:, 5] = 3.0
    assert linear_probe_accuracy(*train, *test, num_classes=4) > 0.99


def products(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """XOR: the label is whether two of the code's dimensions have the same sign, off a shared mean."""
    generator = torch.Generator().manual_seed(seed)
    signs = 2 * torch.randint(2, (count, 8), generator=generator) - 1
    values = 5 + 3 * (signs + 0.3 * torch.randn(count, 8, generator=generator))
    return values, (signs[:, 0] == signs[:, 1]).long()


def test_a_perceptron_finds_a_product_and_a_linear_probe_does_not() -> None:
    train, test = products(4000, 0), products(4000, 1)
    assert linear_probe_accuracy(*train, *test, num_classes=2) < 0.55
    assert mlp_probe_accuracy(*train, *test, num_classes=2) > 0.98


@pytest.mark.parametrize(("signal", "low", "high"), [(0.0, 0.2, 0.3), (20.0, 0.999, 1.0)])
def test_a_perceptron_finds_what_is_there(signal: float, low: float, high: float) -> None:
    train, test = codes(4000, 0, signal), codes(4000, 1, signal)
    assert low <= mlp_probe_accuracy(*train, *test, num_classes=4) <= high


def test_a_perceptron_depends_on_its_seed_alone() -> None:
    train, test = codes(500, 0, 2.0), codes(2000, 1, 2.0)
    before = torch.get_rng_state()
    with torch.no_grad():
        figures = [mlp_probe_accuracy(*train, *test, num_classes=4, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    assert figures[0] == figures[1] != figures[2]


def test_many_dimensions_of_noise_are_not_learned_by_heart() -> None:
    """Where a linear rule is the best one, a perceptron loses little to it, though it could fit the noise."""
    (train, train_labels), (test, test_labels) = codes(4000, 0, 2.0), codes(4000, 1, 2.0)
    noise = torch.randn(2, 4000, 64, generator=torch.Generator().manual_seed(2))
    wide = [torch.cat(parts, dim=1) for parts in zip((train, test), noise, strict=True)]
    linear = linear_probe_accuracy(wide[0], train_labels, wide[1], test_labels, num_classes=4)
    assert mlp_probe_accuracy(wide[0], train_labels, wide[1], test_labels, num_classes=4) > linear - 0.02
