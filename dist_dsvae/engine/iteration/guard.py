"""Guard: remembers on the device whether a loss became non-finite, and where, without a host sync.

Updates are conditional on ``tripped``: the fused optimiser skips them on the device once it is 1.
The weights thus stay those from before the bad loss until the host looks, at the next log tick.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dist_dsvae.core import distributed
from dist_dsvae.methods.update import Update, constants

_LEAST_LOSS_SCALE = 2.0**-24  # float16's smallest number; GradScaler starts at 2**16, and halves


class NonFiniteLossError(RuntimeError):
    """A loss term became infinite or not a number; the message says which and where."""


class Guard:
    """One flag for all updates, and for each its terms at the last time before the flag, or at that time.

    All of it lives in tensors that are written in place, as a captured graph needs it.

    synchronize: waits for the device before the host reads (``Fence.synchronize``).
    loss_scale: of fp16, live.
    tripped: float32 scalar on the device, 0 or 1; it never returns to 0.
    """

    def __init__(
        self,
        updates: Sequence[Update],
        device: torch.device,
        synchronize: Callable[[], None] = lambda: None,
        loss_scale: Tensor | None = None,
    ) -> None:
        self._synchronize, self._loss_scale = synchronize, loss_scale
        self.tripped = torch.zeros((), dtype=torch.float32, device=device)
        self._stopped = torch.zeros((), dtype=torch.bool, device=device)  # the same, as a condition
        self._last_position = torch.full((), -1, dtype=torch.int64, device=device)
        self._term_names = {update.name: update.terms for update in updates}
        self._last_terms = {
            update.name: torch.zeros(len(update.terms), dtype=torch.float64, device=device)
            for update in updates
        }

    def inspect(self, update: str, values: Tensor, position: Tensor) -> Tensor:
        """A scalar: NaN if one of this rank's terms is not finite, else 0. NaN survives a sum over the ranks.

        Remembers the terms, unless tripped. values: the terms in the update's order, [number of terms].
        position: int64 scalar, of the batch's first sample.
        """
        last = self._last_terms[update]
        torch.where(self._stopped, last, values, out=last)
        torch.where(self._stopped, self._last_position, position, out=self._last_position)
        # 0 x infinity is NaN
        return torch.dot(values, constants((0.0,) * len(values), values.dtype, values.device))

    def record(self, bad_anywhere: Tensor) -> None:
        """Trip if any rank's terms were bad. bad_anywhere: from ``inspect``, summed over the ranks."""
        self.tripped.copy_(self._stopped.logical_or_(bad_anywhere))  # NaN is true, 0 is not

    def state(self) -> list[Tensor]:
        """The live tensors."""
        return [self.tripped, self._stopped, self._last_position, *self._last_terms.values()]

    def raise_if_tripped(self) -> None:
        """Raise NonFiniteLossError on every rank if any tripped. Reads the flag: a host sync.

        So it does if fp16's loss scale fell, with the last of very many updates that were left out, below
        what keeps a gradient: at 0 the next one that is finite would be divided by it. A tripped guard lets
        it fall as well, so the flag is looked at first.
        """
        self._synchronize()
        if self.tripped.item() == 0:
            if self._loss_scale is not None and self._loss_scale.item() < _LEAST_LOSS_SCALE:
                raise NonFiniteLossError(
                    "Gradients became infinite or NaN again and again, although every loss was finite, so no "
                    "update was applied. The last checkpoint is intact: go on from it with --mixed_precision "
                    "no or bf16, or start a new run with a lower optimizer.learning_rate."
                )
            return
        named = [
            f"{update}/{name}"
            for update, last in self._last_terms.items()
            for name, is_finite in zip(
                self._term_names[update],
                torch.isfinite(distributed.all_gather(last).sum(0)).tolist(),
                strict=True,
            )
            if not is_finite
        ]
        position = int(distributed.all_gather(self._last_position).min())
        raise NonFiniteLossError(
            f"Loss term {', '.join(named)} became infinite or NaN at sample position {position}. The update "
            "was not applied and the last checkpoint is intact. Resume from it with --mixed_precision no "
            "if this was fp16 or bf16; else start a new run with a lower optimizer.learning_rate or with "
            "optimizer.clip_gradient_norm set."
        )


def raise_if_weights_are_bad(
    method: nn.Module, samples_seen: int, synchronize: Callable[[], None] = lambda: None
) -> None:
    """Raise NonFiniteLossError if a weight or a statistic is not finite: such a state must not be saved.

    Statistics count, because a mixture that follows moments, and batch norms, move without an optimiser; each
    rank may have its own of them, so all ranks agree and raise alike. Called by all ranks. One host sync.

    synchronize: waits for the device before the host reads (``Fence.synchronize``).
    """
    named = {
        name: tensor.detach() for name, tensor in method.state_dict().items() if tensor.is_floating_point()
    }
    finite = torch.isfinite(
        torch.stack([norm.double() for norm in torch._foreach_norm(list(named.values()))])
    )
    num_bad = distributed.all_reduce_sum((~finite).sum().double())
    synchronize()
    if num_bad.item() > 0:
        bad = [name for name, is_finite in zip(named, finite.tolist(), strict=True) if not is_finite]
        names = ", ".join(bad[:3]) or "of another process"
        raise NonFiniteLossError(
            f"The weights {names} became infinite or NaN before sample {samples_seen}, "
            "although every loss was finite. Nothing was saved; the last checkpoint is intact. Start a new "
            "run with optimizer.clip_gradient_norm set, or with --mixed_precision no."
        )
