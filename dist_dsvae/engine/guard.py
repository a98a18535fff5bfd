"""Guard: remembers on the device whether a loss became non-finite, and where, without a host sync.

Updates are conditional on ``tripped``: the fused optimiser skips them on the device once it is 1.
The weights thus stay those from before the bad loss until the host looks, at the next log tick.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dist_dsvae import distributed


class NonFiniteLossError(RuntimeError):
    """A loss term became infinite or not a number; the message says which and where."""


class Guard:
    """One flag for all steps, and for each step which term tripped it at which position.

    tripped: float32 scalar on the device, 0 or 1; it never returns to 0.
    """

    def __init__(self, device: torch.device) -> None:
        self.tripped = torch.zeros((), dtype=torch.float32, device=device)
        self._first_position = torch.full((), -1, dtype=torch.int64, device=device)
        self._bad_terms: dict[str, Tensor] = {}
        self._term_names: dict[str, list[str]] = {}

    def bad(self, terms: Mapping[str, Tensor]) -> Tensor:
        """float32 scalar: 1 where one of this rank's terms is not finite."""
        return 1.0 - torch.isfinite(torch.stack(list(terms.values()))).all().float()

    def record(self, step: str, terms: Mapping[str, Tensor], position: Tensor, bad_anywhere: Tensor) -> None:
        """Trip if any rank's terms were bad; remember this rank's first bad terms and position.

        bad_anywhere: ``bad`` summed or averaged over the ranks.
        """
        fresh = (bad_anywhere > 0) & (self.tripped == 0)
        non_finite = ~torch.isfinite(torch.stack(list(terms.values())))
        before = self._bad_terms.get(step)
        self._bad_terms[step] = non_finite & fresh if before is None else before | (non_finite & fresh)
        self._term_names[step] = list(terms)
        self._first_position = torch.where(fresh, position, self._first_position)
        self.tripped = torch.maximum(self.tripped, (bad_anywhere > 0).float())

    def raise_if_tripped(self) -> None:
        """Raise NonFiniteLossError on every rank if any tripped. Reads the flag: a host sync."""
        if self.tripped.item() == 0:
            return
        named = [
            f"{step}/{name}"
            for step, bad in self._bad_terms.items()
            for name, is_bad in zip(
                self._term_names[step], distributed.all_gather(bad.int()).sum(0).tolist(), strict=True
            )
            if is_bad
        ]
        position = int(distributed.all_gather(self._first_position).min())
        raise NonFiniteLossError(
            f"Loss term {', '.join(named)} became infinite or NaN at sample position {position}. The update "
            "was not applied and the last checkpoint is intact. Resume from it with --mixed_precision no "
            "if this was fp16 or bf16; else start a new run with a lower optimizer.learning_rate or with "
            "optimizer.clip_gradient_norm set."
        )


def raise_if_weights_are_bad(method: nn.Module, samples_seen: int) -> None:
    """Raise NonFiniteLossError if a weight is not finite: such a state must not become a checkpoint.

    All ranks hold the same weights and raise alike. One host sync.
    """
    norms = torch._foreach_norm([p.detach() for p in method.parameters()])
    if not torch.isfinite(torch.stack(list(norms))).all().item():
        names = [
            name for (name, _), n in zip(method.named_parameters(), norms, strict=True) if not n.isfinite()
        ]
        raise NonFiniteLossError(
            f"The weights {', '.join(names[:3])} became infinite or NaN before sample {samples_seen}, "
            "although every loss was finite. Nothing was saved; the last checkpoint is intact. Start a new "
            "run with optimizer.clip_gradient_norm set, or with --mixed_precision no."
        )
