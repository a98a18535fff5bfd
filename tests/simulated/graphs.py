"""CUDA graphs of the simulation: a tape of operators, on the memory that they had while it was recorded.

capture   every operator runs, is taped with its tensors, and is undone: a capture computes nothing
replay    the tape's operators run again on the same memory, without any Python of what was captured
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from tests.simulated.memory import DeviceError, key_of, leaves, replaced, tensors_in, unobserved

if TYPE_CHECKING:
    from tests.simulated.device import Device


@dataclass(frozen=True, slots=True)
class _Outside:
    """A tensor from before the capture: a graph knows its address, and does not keep it alive."""

    memory: StorageWeakRef
    layout: tuple[int, torch.Size, tuple[int, ...]]
    dtype: torch.dtype

    def tensor(self) -> Tensor:
        """Raises DeviceError if the memory was freed meanwhile."""
        if self.memory.expired():
            raise DeviceError(f"the graph uses memory that was freed: {self.dtype} {list(self.layout[1])}")
        storage = torch.UntypedStorage._new_with_weak_ptr(self.memory.cdata)
        return torch.empty(0, dtype=self.dtype).set_(storage, *self.layout)


class _Taped(NamedTuple):
    function: Any
    args: Any
    kwargs: Any
    new: list[Tensor | None]  # the outputs with memory of their own


def writes_of(function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors that an operator changes in place."""
    return tensors_in(
        [args[n] if n < len(args) else kwargs.get(name) for n, name in _written_arguments(function)]
    )


@functools.cache
def _written_arguments(function: Any) -> list[tuple[int, str]]:
    return [
        (number, argument.name)
        for number, argument in enumerate(function._schema.arguments)
        # batch norm changes its running statistics, although no schema says so
        if argument.name in ("running_mean", "running_var")
        or (argument.alias_info is not None and argument.alias_info.is_write)
    ]


class Graph:
    """In the place of ``torch.cuda.CUDAGraph``."""

    device: Device

    def __init__(self, keep_graph: bool = False) -> None:
        self.tape: list[_Taped] = []
        self._before: dict[int, tuple[Tensor, Tensor]] = {}
        self._own: set[int] = set()
        self._outside: set[int] = set()

    def before(self, changed: list[Tensor]) -> None:
        """Keep what an operator is about to change, to undo it at the end of the capture."""
        for tensor in changed:
            key = key_of(tensor)
            if key not in self._own and key not in self._before:
                with unobserved():
                    whole = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
                    self._before[key] = (whole, whole.clone())

    def record(self, function: Any, args: Any, kwargs: Any, outputs: list[Tensor], new: list[bool]) -> None:
        args = replaced(args, self._held)
        kwargs = {name: replaced(value, self._held) for name, value in kwargs.items()}
        own = [output if is_new else None for output, is_new in zip(outputs, new, strict=True)]
        self.tape.append(_Taped(function, args, kwargs, own))
        self._own |= {key_of(output) for output in own if output is not None}

    def _held(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or key_of(leaf) in self._own:
            return leaf
        storage = leaf.untyped_storage()
        self._outside.add(storage._cdata)
        layout = (leaf.storage_offset(), leaf.size(), leaf.stride())
        return _Outside(StorageWeakRef(storage), layout, leaf.dtype)

    def end(self) -> None:
        with unobserved():
            for tensor, value in self._before.values():
                tensor.copy_(value)
        self._before = {}

    def replay(self) -> None:
        device = self.device
        if device.is_stuck:
            return  # it stays behind what never ends
        device.copies.finish(device.stream.number)
        for memory in self._outside:
            device.copies.access(memory, device.stream.number, writes=True, what="a graph")
        with unobserved():
            for taped in self.tape:
                self._run(taped)
        device.num_replays += 1
        device.replayed = [str(taped.function) for taped in self.tape]

    @staticmethod
    def _run(taped: _Taped) -> None:
        args = replaced(taped.args, _found)
        kwargs = {name: replaced(value, _found) for name, value in taped.kwargs.items()}
        result = taped.function(*args, **kwargs)
        for leaf in leaves(result):
            if type(leaf).__name__ == "ScriptObject" and leaf._type().name() == "Work":
                torch._C._distributed_c10d.Work.unbox(leaf).wait()
        for captured, now in zip(taped.new, tensors_in(result), strict=True):
            if captured is not None:
                captured.copy_(now)

    def reset(self) -> None:
        self.tape = []


def _found(leaf: Any) -> Any:
    return leaf.tensor() if isinstance(leaf, _Outside) else leaf


class Capture:
    """In the place of ``torch.cuda.graph``."""

    device: Device

    def __init__(self, graph: Graph, pool: Any = None, stream: Any = None, **_: Any) -> None:
        self._graph = graph
        self._stream = stream or self.device.new_stream()

    def __enter__(self) -> None:
        if self._stream == self.device.default_stream:
            raise DeviceError("CUDA graphs must be captured on a non-default stream.")
        self._outer, self.device.stream = self.device.stream, self._stream
        self.device.capturing = self._graph

    def __exit__(self, *_: object) -> None:
        self.device.capturing = None
        self.device.stream = self._outer
        self._graph.end()
