"""Probes: how much of the label can be read from a code."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Share of rows of ``scores`` [N, C] whose largest entry is at ``labels`` [N]."""
    return (scores.argmax(dim=1) == labels).double().mean().item()


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
    mean, std = train_codes.double().mean(0), train_codes.double().std(0).clamp(min=1e-8)
    train, test = ((codes.double() - mean) / std for codes in (train_codes, test_codes))
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
