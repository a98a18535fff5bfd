"""Probes: how much of the label can be read from a code."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

PROBE_NOISE = "per split"  # of drawn codes, in evaluations; splits had the same where nothing is said
ITERATIONS, FEWEST_ITERATIONS = 200, 30
_WORK = 1e9  # N C d of a fit that may take all its iterations
_REMEMBERED_VALUES, _FEWEST_REMEMBERED = 10_000_000, 10  # by L-BFGS, twice, in float64
_SCORES_AT_ONCE = 2**22
_ROWS_AT_ONCE = 2**14  # for their moments
_DECAY = 1e-4  # of the weights of a linear probe
MLP_EPOCHS = 20
_HIDDEN, _BATCH = 256, 256  # of a perceptron


class _Standard:
    """Codes [B, d] by the mean and the deviation of the training set's [N, d], in float64."""

    def __init__(self, train: Tensor) -> None:
        parts = torch.split(train, _ROWS_AT_ONCE)
        self.mean = torch.stack([part.double().sum(0) for part in parts]).sum(0) / len(train)
        squares = torch.stack([(part.double() - self.mean).square().sum(0) for part in parts]).sum(0)
        self.std = (squares / (len(train) - 1)).sqrt().clamp(min=1e-8)

    def __call__(self, codes: Tensor) -> Tensor:
        return (codes.double() - self.mean) / self.std


@dataclass(frozen=True, slots=True)
class Share:
    """A rank's part of the work of a fit: every ``count``-th row from ``number`` on.

    add: sums a tensor over all ranks, in place, and returns it; called by all of them alike.
    """

    number: int = 0
    count: int = 1
    add: Callable[[Tensor], Tensor] = lambda tensor: tensor


ALONE = Share()


def linear_probe_accuracy(
    train_codes: Tensor,
    train_labels: Tensor,
    test_codes: Tensor,
    test_labels: Tensor,
    num_classes: int,
    *,
    share: Share = ALONE,
) -> float:
    """Test accuracy of a multinomial logistic regression from codes [N, d] to labels [N].

    Codes are standardised by the training set's moments. The fit is convex and starts from zero
    (full-batch L-BFGS in float64), so the figure does not depend on a seed, and on the number of ranks
    by rounding alone. All ranks give the same rows; each computes its ``share``, and takes no more of them
    to float64. Memory is bounded: scores of at most 32 MiB at a time, and with many classes fewer
    gradients are remembered. Up to
    N C d = 1e9 there are 200 iterations, beyond fewer, at least 30: there accuracy is a lower bound.
    """
    standard = _Standard(train_codes)
    own = standard(train_codes[share.number :: share.count])
    own_labels = train_labels[share.number :: share.count]
    num_rows, dim = train_codes.shape
    weight = torch.zeros(num_classes, dim + 1, dtype=torch.float64, device=train_codes.device)
    weight.requires_grad_()
    work = max(num_rows * num_classes * dim, 1)
    optimizer = torch.optim.LBFGS(
        [weight],
        max_iter=max(FEWEST_ITERATIONS, min(ITERATIONS, int(ITERATIONS * _WORK / work))),
        history_size=max(_FEWEST_REMEMBERED, min(100, _REMEMBERED_VALUES // weight.numel())),
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-6,
    )
    rows_at_once = max(1, _SCORES_AT_ONCE // num_classes)

    def from_rank_0(goes_on: bool = False) -> bool:
        """Its weights on every rank, and whether its search goes on, which it alone says."""
        said = torch.cat([weight.detach().flatten(), weight.new_tensor([goes_on])])
        said = share.add(said if share.number == 0 else torch.zeros_like(said))
        with torch.no_grad():
            weight.copy_(said[:-1].view_as(weight))
        return bool(said[-1])

    def gradient_and_loss() -> Tensor:
        """[C (d + 1) + 1], of the rows of all ranks."""
        weight.grad = torch.zeros_like(weight)
        total = torch.zeros((), dtype=torch.float64, device=weight.device)
        for rows, labels in _chunks(own, own_labels, rows_at_once):
            value = F.cross_entropy(_linear(rows, weight), labels, reduction="sum") / num_rows
            value.backward()  # type: ignore[no-untyped-call]
            total += value.detach()
        return share.add(torch.cat([weight.grad.flatten(), total.view(1)]))

    def loss() -> Tensor:
        from_rank_0(goes_on=True)
        summed = gradient_and_loss()
        weight.grad = summed[:-1].view_as(weight)
        with torch.no_grad():
            weight.grad[:, :dim] += 2 * _DECAY * weight[:, :dim]
            return summed[-1] + _DECAY * weight[:, :dim].square().sum()

    with torch.enable_grad():
        # One rank searches: others, whose last digits may be another machine's, might end elsewhere
        if share.number == 0:
            optimizer.step(loss)  # type: ignore[no-untyped-call]
            from_rank_0(goes_on=False)
        else:
            while from_rank_0():
                gradient_and_loss()
    with torch.no_grad():
        return _accuracy(lambda rows: _linear(standard(rows), weight), test_codes, test_labels, rows_at_once)


def _accuracy(scores: Callable[[Tensor], Tensor], codes: Tensor, labels: Tensor, rows_at_once: int) -> float:
    """Share of codes [N, d] whose largest of ``scores`` [B, C] is at the label, a part of them at a time."""
    hits = [
        (scores(rows).argmax(dim=1) == of_rows).sum()
        for rows, of_rows in _chunks(codes, labels, rows_at_once)
    ]
    return torch.stack(hits).sum().item() / len(codes)


def _chunks(codes: Tensor, labels: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(torch.split(codes, size), torch.split(labels, size), strict=True)


def _linear(codes: Tensor, weight: Tensor) -> Tensor:
    """[B, d] -> scores [B, C]; the last column of ``weight`` [C, d + 1] is the bias."""
    return F.linear(codes, weight[:, :-1], weight[:, -1])


def mlp_probe_accuracy(
    train_codes: Tensor,
    train_labels: Tensor,
    test_codes: Tensor,
    test_labels: Tensor,
    num_classes: int,
    *,
    seed: int = 0,
) -> float:
    """Test accuracy of a perceptron with one hidden layer of ReLUs, from codes [N, d] to labels [N].

    It finds what a linear probe cannot: labels in products or distances of a code's dimensions. Codes are
    standardised by the training set's moments, the fit is in float32, and Adam's learning rate falls
    linearly to zero. Its decoupled weight decay is large on purpose: without, the perceptron learns the
    noise of 10,000 codes by heart. Initial weights and the order of samples come from ``seed`` alone.
    """
    standard, device = _Standard(train_codes), train_codes.device
    num_rows, dim = train_codes.shape
    generator = torch.Generator().manual_seed(seed)
    parameters = _initial_layers((dim, _HIDDEN, num_classes), generator, device)
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=3.0)
    num_batches = math.ceil(num_rows / _BATCH)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, MLP_EPOCHS * num_batches)
    with torch.enable_grad():
        for _ in range(MLP_EPOCHS):
            order = torch.randperm(num_rows, generator=generator).to(device)
            for rows in torch.split(order, _BATCH):
                codes = standard(train_codes[rows]).float()
                loss = F.cross_entropy(_perceptron(codes, parameters), train_labels[rows])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
    with torch.no_grad():
        return _accuracy(
            lambda rows: _perceptron(standard(rows).float(), parameters),
            test_codes,
            test_labels,
            max(1, _SCORES_AT_ONCE // num_classes),
        )


def _initial_layers(sizes: tuple[int, ...], generator: torch.Generator, device: torch.device) -> list[Tensor]:
    """Weight, bias, weight, bias, ...: weights of variance 2 / inputs (He et al., 2015), biases zero."""
    parameters = []
    for inputs, outputs in pairwise(sizes):
        weight = torch.randn(outputs, inputs, generator=generator) * math.sqrt(2 / inputs)
        parameters += [
            weight.to(device).requires_grad_(),
            torch.zeros(outputs, device=device).requires_grad_(),
        ]
    return parameters


def _perceptron(codes: Tensor, parameters: list[Tensor]) -> Tensor:
    """[B, d] -> scores [B, C]."""
    weight_in, bias_in, weight_out, bias_out = parameters
    return F.linear(F.linear(codes, weight_in, bias_in).relu(), weight_out, bias_out)
