"""One fused Adam per update, its learning rates as functions of the samples seen.

``UpdateOptimizer`` holds all of its state on every rank; ``zero`` divides it over the ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from dist_dsvae.config import OptimizerConfig
from dist_dsvae.methods.update import Update

NamedParameters = Sequence[tuple[str, nn.Parameter]]


def variance_rate(config: OptimizerConfig, epoch: float) -> float:
    """Learning rate of the mixture's variances after ``epoch`` passes over the data (appendix B.4)."""
    factor = {
        "paper": 0.01 if epoch >= 2 else 1.0,
        "reference": 0.1 ** int(epoch // 10),
        "constant": 1.0,
    }[config.variance_schedule]
    return config.variance_learning_rate * factor


def learning_rate(config: OptimizerConfig, epoch: float, *, variances: bool) -> float:
    """Of the mixture's variances, or of all other weights; along half a cosine, to 0 at ``decay_epochs``."""
    rate = variance_rate(config, epoch) if variances else config.learning_rate
    if not config.decay_epochs:
        return rate
    return rate * (0.5 * (1.0 + math.cos(math.pi * min(epoch / config.decay_epochs, 1.0))))


def learning_rates(config: OptimizerConfig, epoch: float, updates: Iterable[Update]) -> dict[str, float]:
    """All that there are, by the group of weights that has it: "weights", "variances"."""
    kinds = [False, *([True] if any(update.variances for update in updates) else [])]
    return {
        ("variances" if kind else "weights"): learning_rate(config, epoch, variances=kind) for kind in kinds
    }


class UpdateOptimizer:
    """Adam for what one update trains.

    groups: named parameters by group; the group "variances" follows ``variance_rate``.
    gradient_norm: of the last step, before it was clipped; None where gradients are not.
    """

    def __init__(self, config: OptimizerConfig, groups: Mapping[str, NamedParameters]) -> None:
        self.config = config
        self.named_parameters = {name: p for parameters in groups.values() for name, p in parameters}
        self.parameters = list(self.named_parameters.values())
        self.adam = torch.optim.Adam(
            [
                {"params": [p for _, p in parameters], "name": group, "lr": self._rate_tensor()}
                for group, parameters in groups.items()
            ],
            betas=(config.beta1, config.beta2),
            eps=config.epsilon,
            fused=True,
            capturable=True,
        )
        self._rates: dict[str, float] = {}
        self.set_rates(0.0)
        self.gradient_norm = (
            torch.zeros((), device=self.parameters[0].device) if config.clip_gradient_norm > 0 else None
        )
        self._allocate_state()

    def _rate_tensor(self) -> Tensor:
        """A learning rate that a captured graph reads anew at every replay.

        The CUDA kernel wants float32; elsewhere nothing need be rounded.
        """
        device = self.parameters[0].device
        return torch.zeros((), dtype=torch.float32 if device.type == "cuda" else torch.float64, device=device)

    def _allocate_state(self) -> None:
        """Adam's moments exist from the start, so that a checkpoint can be loaded in place."""
        for p in self.parameters:
            self.adam.state[p] = {
                "step": torch.zeros((), dtype=torch.float32, device=p.device),
                "exp_avg": torch.zeros_like(p, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(p, memory_format=torch.preserve_format),
            }

    def set_rates(self, epoch: float) -> None:
        """Move the learning rates to where they are after ``epoch`` passes over the data."""
        for group in self.adam.param_groups:
            name = group["name"]
            rate = learning_rate(self.config, epoch, variances=name == "variances")
            if self._rates.get(name) != rate:  # else not even a launch
                self._rates[name] = rate
                group["lr"].fill_(rate)

    def step(self, tripped: Tensor, scaler: torch.amp.GradScaler | None) -> None:
        """Apply the gradients in ``.grad`` and drop them; nothing moves where ``tripped`` is 1."""
        if scaler is not None:
            # the scaler skips updates with non-finite gradients: hand it such, if the guard tripped
            poison = torch.where(tripped > 0, torch.nan, 1.0)
            torch._foreach_mul_([p.grad for p in self.parameters if p.grad is not None], poison)
            scaler.unscale_(self.adam)
        if self.gradient_norm is not None:
            norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip_gradient_norm)
            self.gradient_norm.copy_(norm)
        if scaler is not None:
            scaler.step(self.adam)  # skips the update by itself where a gradient is not finite
            scaler.update()
        else:
            self._update(tripped)
        self.adam.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _update(self, tripped: Tensor) -> None:
        """``self.adam.step``, but for the counts of all groups, which move together."""
        counts = [state["step"] for state in self.adam.state.values()]
        torch._foreach_add_(counts, 1.0)
        for group in self.adam.param_groups:
            parameters = group["params"]
            states = [self.adam.state[p] for p in parameters]
            torch._fused_adam_(
                parameters,
                [p.grad for p in parameters],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                lr=group["lr"],
                beta1=self.config.beta1,
                beta2=self.config.beta2,
                eps=self.config.epsilon,
                weight_decay=0.0,
                amsgrad=False,
                maximize=False,
                found_inf=tripped,
            )
        torch._foreach_sub_(counts, [tripped] * len(counts))

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Adam's state by parameter name: the live tensors, for saving and for loading in place."""
        return {name: dict(self.adam.state[p]) for name, p in self.named_parameters.items()}

    def restore(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Take over what a checkpoint was loaded into: nothing to do, as these are the live tensors."""

    def num_bytes(self) -> int:
        """Bytes of state on this rank."""
        return sum(t.nbytes for moments in self.state().values() for t in moments.values())
