"""Where a tensor's memory is, and what still travels between host and device."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import _disable_current_modes

CUDA, HOST, PINNED = "cuda", "cpu", "pinned"
_LABELS_BETWEEN_CLEANINGS = 20_000


class DeviceError(RuntimeError):
    """What a real device would refuse, or would do wrongly without a word."""


@contextmanager
def unobserved() -> Iterator[None]:
    """What happens inside is the simulation's own work: no mode sees it, and autograd does not either."""
    with torch._C.DisableTorchFunction(), _disable_current_modes(), torch.no_grad():
        yield


def leaves(tree: Any) -> Iterator[Any]:
    """What an operator is given, or gives: its lists and tuples laid open."""
    if isinstance(tree, (list, tuple)):
        for branch in tree:
            yield from leaves(branch)
    else:
        yield tree


def replaced(tree: Any, exchange: Callable[[Any], Any]) -> Any:
    """The same tree with every leaf exchanged."""
    if isinstance(tree, (list, tuple)):
        return type(tree)([replaced(branch, exchange) for branch in tree])
    return exchange(tree)


def tensors_in(*trees: Any) -> list[Tensor]:
    return [leaf for leaf in leaves(trees) if isinstance(leaf, Tensor)]


def key_of(tensor: Tensor) -> int:
    """Of the tensor's memory: alike for all views of it."""
    with torch._C.DisableTorchFunction():
        return int(tensor.untyped_storage()._cdata)


class Labels:
    """The side on which memory lies: CUDA, HOST, PINNED (host), or None: made of numbers, fits any side."""

    def __init__(self) -> None:
        self._labels: dict[int, tuple[StorageWeakRef, str]] = {}
        self._next_cleaning = _LABELS_BETWEEN_CLEANINGS

    def __getitem__(self, tensor: Tensor) -> str | None:
        found = self._labels.get(key_of(tensor))
        return None if found is None or found[0].expired() else found[1]

    def __setitem__(self, tensor: Tensor, label: str) -> None:
        with torch._C.DisableTorchFunction():
            storage = tensor.untyped_storage()
            self._labels[storage._cdata] = (StorageWeakRef(storage), label)
        if len(self._labels) > self._next_cleaning:
            self._labels = {k: v for k, v in self._labels.items() if not v[0].expired()}
            self._next_cleaning = len(self._labels) + _LABELS_BETWEEN_CLEANINGS


class _Copy(NamedTuple):
    number: int
    stream: int
    source: Tensor
    destination: Tensor


class Copies:
    """Copies for which the host does not wait. Each happens as late as it may, so that haste shows.

    Streams are numbers here; None stands for the host.
    """

    def __init__(self) -> None:
        self._pending: list[_Copy] = []
        self._numbers = itertools.count(1)

    def start(self, stream: int, source: Tensor, destination: Tensor) -> None:
        with unobserved():
            destination.fill_(torch.nan if destination.is_floating_point() else 90)  # until the copy comes
            self._pending.append(_Copy(next(self._numbers), stream, source.detach(), destination.detach()))

    def now(self) -> int:
        """The number below which an event that is recorded now lies."""
        return next(self._numbers)

    def finish(self, stream: int, before: float = float("inf")) -> None:
        """Carry out those of a stream that started before a number."""
        self._carry_out(lambda copy: copy.stream == stream and copy.number < before)

    def finish_all(self) -> None:
        self._carry_out(lambda copy: True)

    def access(self, memory: int, by: int | None, *, writes: bool, what: str) -> None:
        """An operator works on memory. Raises DeviceError if a copy elsewhere may still be at work there."""
        for copy in list(self._pending):
            filled, read = memory == key_of(copy.destination), memory == key_of(copy.source) and writes
            if not filled and not read:
                continue
            if by != copy.stream:
                verb = "reads what a copy has yet to bring" if filled else "changes what a copy still reads"
                raise DeviceError(f"{what} {verb}: nothing waited for stream {copy.stream}")
            self.finish(copy.stream, copy.number + 1)

    def _carry_out(self, is_due: Callable[[_Copy], bool]) -> None:
        due = [copy for copy in self._pending if is_due(copy)]
        self._pending = [copy for copy in self._pending if not is_due(copy)]
        with unobserved():
            for copy in due:
                copy.destination.copy_(copy.source)
