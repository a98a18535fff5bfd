"""A roofline: how long a device should take for an iteration, and how much memory, from its operators alone.

    iteration --Trace--> Work: operators (pace, bytes, flops), memory --predict, on a Device--> Prediction

    seconds of an operator = launch gap + max(bytes / (share of bandwidth), flops / (share of the peak))

This is a model. Every operator reads its inputs and writes its outputs once (batch norm reads them twice);
bytes that stay in a cache count as if they came from memory. Flops are those of matrix products and
convolutions, by torch's own formulas. An operator counts as one launch; a convolution's backward pass as one
per gradient.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from dist_dsvae.engine.measuring.devices import Arithmetic, Device, Efficiency, Pace, assumed_efficiency
from dist_dsvae.engine.measuring.operators import launches_nothing

# of a table they read the rows that they give
_LOOK_UP = {"embedding", "index_select", "index", "gather"}
_GRADIENTS: tuple[Pace, Pace] = ("input gradient", "weight gradient")


@dataclass(frozen=True, slots=True)
class Operator:
    """One call, or one gradient of a convolution.

    num_bytes: read and written. flops: 0 unless it multiplies matrices or convolves.
    size: what the share of the arithmetic depends on: of products the smallest side; of convolutions the
        height of the images that go in or come out, whichever is smaller.
    """

    kind: str
    pace: Pace
    num_bytes: int
    flops: int
    size: int
    arithmetic: Arithmetic

    def peak_seconds(self, device: Device) -> float:
        """Of its flops, at the peak of matrix products."""
        return self.flops / device.flops_per_second(self.arithmetic)

    def limits(self, device: Device, efficiency: Efficiency) -> dict[str, float]:
        """Seconds by what could hold it up, beside its launch."""
        moving: Pace = "elementwise" if self.flops else self.pace
        limits = {"memory": self.num_bytes / device.bytes_per_second / efficiency(moving, self.num_bytes)}
        if self.flops:
            limits["arithmetic"] = self.peak_seconds(device) / efficiency(self.pace, self.size)
        return limits


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What one iteration asks of a device.

    held_bytes: of what exists before and after it: weights, moments, average, inputs.
    peak_bytes: the most at any time, ``held_bytes`` included; without what libraries take for themselves.
    """

    operators: tuple[Operator, ...]
    held_bytes: int
    peak_bytes: int

    @property
    def flops(self) -> int:
        return sum(operator.flops for operator in self.operators)


@dataclass(frozen=True, kw_only=True, slots=True)
class KindOfOperator:
    """Operators of one kind: how many, and their predicted seconds."""

    count: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """Of one iteration on a device.

    ceiling_seconds: its flops at the device's peaks, and nothing else.
    kinds: costliest first. limited_by: seconds of the operators that each limit holds up.
    """

    seconds: float
    ceiling_seconds: float
    kinds: dict[str, KindOfOperator]
    limited_by: dict[str, float]

    @property
    def share_of_ceiling(self) -> float:
        return self.ceiling_seconds / self.seconds


def predict(work: Work, device: Device, efficiency: Efficiency = assumed_efficiency) -> Prediction:
    """Model, not measurement: an iteration's seconds on ``device``."""
    kinds: defaultdict[str, list[float]] = defaultdict(list)
    limited_by = {"memory": 0.0, "arithmetic": 0.0, "launches": 0.0}
    for operator in work.operators:
        limits = operator.limits(device, efficiency)
        slowest = max(limits, key=limits.__getitem__)
        kinds[operator.kind].append(limits[slowest] + device.launch_gap_seconds)
        limited_by[slowest] += limits[slowest]
        limited_by["launches"] += device.launch_gap_seconds
    return Prediction(
        seconds=sum(limited_by.values()),
        ceiling_seconds=sum(operator.peak_seconds(device) for operator in work.operators),
        kinds={
            kind: KindOfOperator(count=len(seconds), seconds=sum(seconds))
            for kind, seconds in sorted(kinds.items(), key=lambda item: -sum(item[1]))
        },
        limited_by=limited_by,
    )


def work_of(function: Callable[[], object], held: Iterable[Tensor] = ()) -> Work:
    """The work of one call, once it is steady: two calls before it learn and allocate.

    held: tensors that exist all the time, whether the call touches them or not.
    """
    for _ in range(2):
        function()
    trace = Trace(held)
    with trace:
        function()
    return Work(
        operators=tuple(trace.operators),
        held_bytes=trace.memory.held_bytes,
        peak_bytes=trace.memory.held_bytes + trace.memory.most_made_bytes,
    )


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down the operators inside it, forward and backward, and follows the memory."""

    def __init__(self, held: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators: list[Operator] = []
        self.memory = _Memory(held)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = _tensors((args, kwargs))
        self.memory.hold(given)
        out = func(*args, **kwargs)
        made = _tensors(out)
        self.memory.make(made)
        if not launches_nothing(func):
            self.operators += _operators(func, args, kwargs, out, given, made)
        return out


def _operators(
    func: Any, args: Any, kwargs: Any, out: Any, given: Sequence[Tensor], made: Sequence[Tensor]
) -> Iterator[Operator]:
    """One, or one per gradient of a convolution."""
    kind = func.overloadpacket.__name__
    pace: Pace
    written = sum(map(_num_bytes, made or _changed(func, args)))
    read = sum(map(_num_bytes, given))
    if kind in _LOOK_UP:
        read = written + sum(_num_bytes(t) for t in given if not t.is_floating_point())
    formula = flop_registry.get(func.overloadpacket)
    flops = int(formula(*args, **kwargs, out_val=out)) if formula else 0
    if any(t.dtype in (torch.bfloat16, torch.float16) for t in given):
        arithmetic: Arithmetic = "bf16"
    else:  # torch gives convolutions to TF32 unless it is told otherwise, and matrix products not
        arithmetic = "tf32" if kind.startswith("convolution") else "float32"
    moved, size, pace = read + written, 0, "elementwise"
    if kind == "convolution_backward":
        out_gradient, images, weight = args[:3]
        mask: list[bool] = args[-1]
        moved = sum(map(_num_bytes, (out_gradient, images, weight)))
        size, flops = min(images.shape[2], out_gradient.shape[2]), flops // sum(mask[:2])
        for pace in (gradient for gradient, wanted in zip(_GRADIENTS, mask, strict=False) if wanted):
            yield Operator(f"{kind}, {pace}", pace, moved, flops, size, arithmetic)
        return
    if kind == "convolution":
        size, pace = min(args[0].shape[2], out.shape[2]), "convolution"
    elif flops:
        size, pace = min(side for t in given if t.dim() > 1 for side in t.shape[-2:]), "product"
    elif kind.startswith("native_batch_norm"):
        moved, pace = 2 * read + written, "normalisation"  # first for the moments, then for the values
    yield Operator(kind, pace, moved, flops, size, arithmetic)


def _changed(func: Any, args: Sequence[Any]) -> list[Tensor]:
    """What an operator that returns nothing changes in place."""
    declared = zip(func._schema.arguments, args, strict=False)
    return _tensors([value for a, value in declared if a.alias_info is not None and a.alias_info.is_write])


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _num_bytes(tensor: Tensor) -> int:
    """Of a tensor's values; one that was expanded has fewer of its own."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


class _Memory:
    """Bytes of storages: of those that were there before, and of those made inside while they live."""

    def __init__(self, held: Iterable[Tensor]) -> None:
        self.held_bytes = 0
        self.most_made_bytes = 0
        self._made_bytes = 0
        self._known: set[int] = set()
        self.hold(held)

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """Note what is used and was not made inside: it exists all the time."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage._cdata not in self._known:
                self._known.add(storage._cdata)
                self.held_bytes += storage.nbytes()

    def make(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage._cdata not in self._known:
                self._known.add(storage._cdata)
                self._made_bytes += storage.nbytes()
                self.most_made_bytes = max(self.most_made_bytes, self._made_bytes)
                weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())

    def _free(self, key: int, num_bytes: int) -> None:
        self._known.discard(key)
        self._made_bytes -= num_bytes
