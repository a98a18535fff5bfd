"""Probes: how much of the label can be read from a code."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Share of rows of ``scores`` [N, C] whose largest entry is at ``labels`` [N]."""
    return (scores.argmax(dim=1) == labels).double().mean().item()


def _standardised(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets of codes [N, d] by the training set's mean and deviation."""
    mean, std = train.mean(0), train.std(0).clamp(min=1e-8)
    return (train - mean) / std, (test - mean) / std


def linear_probe_accuracy(
    train_codes: Tensor,
    train_labels: Tensor,
    test_codes: Tensor,
    test_labels: Tensor,
    num_classes: int,
    *,
    weight_decay: float = 1e-4,
    max_iterations: int = 200,
) -> float:
    """Test accuracy of a multinomial logistic regression from codes [N, d] to labels [N].

    Codes are standardised by the training set's moments. The fit is convex and starts from zero
    (full-batch L-BFGS in float64), so the figure does not depend on a seed.
    """
    train, test = _standardised(train_codes.double(), test_codes.double())
    weight = torch.zeros(num_classes, train.shape[1], dtype=torch.float64, device=train.device)
    bias = torch.zeros(num_classes, dtype=torch.float64, device=train.device)
    parameters = [weight.requires_grad_(), bias.requires_grad_()]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=max_iterations, line_search_fn="strong_wolfe", tolerance_grad=1e-6
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(train @ weight.T + bias, train_labels)
        value = value + weight_decay * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return accuracy(test @ weight.T + bias, test_labels)


def mlp_probe_accuracy(
    train_codes: Tensor,
    train_labels: Tensor,
    test_codes: Tensor,
    test_labels: Tensor,
    num_classes: int,
    *,
    seed: int = 0,
    hidden: int = 256,
    epochs: int = 20,
    batch_size: int = 256,
    learning_rate: float = 2e-3,
    weight_decay: float = 3.0,
) -> float:
    """Test accuracy of a perceptron with one hidden layer of ReLUs, from codes [N, d] to labels [N].

    It finds what a linear probe cannot: labels in products or distances of a code's dimensions. Codes are
    standardised by the training set's moments, the fit is in float32, and Adam's learning rate falls
    linearly to zero. Its decoupled weight decay is large on purpose: without, the perceptron learns the
    noise of 10,000 codes by heart. Initial weights and the order of samples come from ``seed`` alone.
    """
    train, test = (codes.float() for codes in _standardised(train_codes.double(), test_codes.double()))
    generator = torch.Generator().manual_seed(seed)
    parameters = _initial_layers((train.shape[1], hidden, num_classes), generator, train.device)
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
    num_batches = math.ceil(len(train) / batch_size)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, epochs * num_batches)
    with torch.enable_grad():
        for _ in range(epochs):
            order = torch.randperm(len(train), generator=generator).to(train.device)
            for rows in torch.split(order, batch_size):
                loss = F.cross_entropy(_perceptron(train[rows], parameters), train_labels[rows])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
    with torch.no_grad():
        return accuracy(_perceptron(test, parameters), test_labels)


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
