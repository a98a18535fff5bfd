"""What an iteration asks of the device, operator by operator, counted without one.

On a GPU every operator is a kernel of two microseconds or more, however small its tensors are: networks for
small images cost more in launches than in arithmetic. Left out is what launches nothing: views, allocations
that write nothing, and marks for the profiler. An operator over a list of tensors counts as one, as it is one
kernel (or a few) on a GPU; what a library does inside one operator, nobody sees here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

_LAUNCH_NOTHING = {
    "_unsafe_view",
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "_record_function_enter_new",
    "_record_function_exit",
}


def launches_nothing(func: Any) -> bool:
    """Whether an operator starts no kernel; those of prim only ask a fake tensor for its device."""
    return bool(func.is_view or func.namespace == "prim" or func.overloadpacket.__name__ in _LAUNCH_NOTHING)


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operators inside it, forward and backward, by kind: their name without the overload."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kinds: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind = func.overloadpacket.__name__
        if not launches_nothing(func):
            self.kinds[kind] += 1
        return func(*args, **(kwargs or {}))


def operators_of(function: Callable[[], object]) -> Counter[str]:
    """Operators of one call by kind, once those are steady: two calls before it learn and allocate."""
    for _ in range(2):
        function()
    operators = Operators()
    with operators:
        function()
    return operators.kinds
