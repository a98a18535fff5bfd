"""Every operator of the simulation: on which side it runs, whether the host waits, what a graph tapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.simulated.device import Device
from tests.simulated.graphs import writes_of
from tests.simulated.memory import CUDA, HOST, PINNED, DeviceError, key_of, leaves, tensors_in

# Whose result's size or branch depends on values: on a GPU the host waits for them.
_WAITING = {
    "_local_scalar_dense",
    "is_nonzero",
    "equal",
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "bincount",
    "_linalg_check_errors",
    "repeat_interleave.Tensor",
}


class Operators(TorchDispatchMode):
    """Looks at each operator before and after it runs on the CPU."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with torch._C.DisableTorchFunction():
            return self._run(function, args, kwargs or {})

    def _run(self, function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        device, name = self.device, function._schema.name.partition("::")[2]
        inputs = tensors_in(args, list(kwargs.values()))
        sides = [device.labels[tensor] for tensor in inputs]
        side = CUDA if CUDA in sides else next((s for s in sides if s is not None), None)
        changed = writes_of(function, args, kwargs)
        if not device.is_quiet:
            if name == "copy_" and self._starts_late(inputs, sides, args, kwargs):
                return args[0]
            self._check_sides(function, name, args, inputs, sides)
            self._check_waits(function, name, args, side)
            self._check_order(function, name, inputs, side, changed)
        graph = device.capturing
        if graph is not None:
            graph.before(changed)
        result = function(*args, **kwargs)
        outputs = tensors_in(result)
        ours = {key_of(tensor) for tensor in inputs}
        new = [key_of(output) not in ours for output in outputs]
        if name == "copy_":
            side = sides[0] or sides[1]
        if side is not None:
            own = HOST if side == PINNED else side
            for tensor in [output for output, is_new in zip(outputs, new, strict=True) if is_new]:
                device.labels[tensor] = own
            for tensor in [t for t, known in zip(inputs, sides, strict=True) if known is None]:
                device.labels[tensor] = own  # what fits any side is now on this one
        if graph is not None:
            graph.record(function, args, kwargs, outputs, new)
        return result

    def _starts_late(self, inputs: Any, sides: Any, args: Any, kwargs: Any) -> bool:
        """A copy between the device and pinned memory that the host does not wait for: only noted."""
        non_blocking = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
        if not non_blocking or set(sides[:2]) != {CUDA, PINNED}:
            return False
        destination, source = inputs[:2]
        stream = self.device.stream.number
        self.device.copies.access(key_of(source), stream, writes=False, what="copy_")
        self.device.copies.access(key_of(destination), stream, writes=True, what="copy_")
        self.device.copies.start(stream, source, destination)
        return True

    def _check_sides(self, function: Any, name: str, args: Any, inputs: Any, sides: Any) -> None:
        hosts = [tensor for tensor, side in zip(inputs, sides, strict=True) if side in (HOST, PINNED)]
        if function.namespace == "c10d":
            if hosts and any(_is_nccl(argument) for argument in leaves(args)):
                raise DeviceError(f"No backend type associated with device type cpu: {name}")
        elif hosts and CUDA in sides:
            if name == "copy_":
                self.device.waited(*(("sync", "copy_") if sides[0] != CUDA else ("transfer", "copy_")))
            elif name in ("index", "index_put_", "_index_put_impl_") and sides[0] == CUDA:
                self.device.waited("transfer", f"indices of {name}")
            elif all(tensor.dim() == 0 for tensor in hosts):
                self.device.waited("transfer", f"a number of the host in {name}, the same at every replay")
            else:
                shapes = [(side, list(tensor.shape)) for tensor, side in zip(inputs, sides, strict=True)]
                raise DeviceError(f"Expected all tensors to be on the same device: {name} got {shapes}")

    def _check_waits(self, function: Any, name: str, args: Any, side: str | None) -> None:
        if side != CUDA:
            return
        if name in _WAITING or f"{name}.{function._overloadname}" in _WAITING:
            self.device.waited("sync", name)
            self.device.copies.finish(self.device.stream.number)
        elif name in ("index", "index_put_") and any(
            isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1] or ()
        ):
            self.device.waited("sync", f"{name} by a mask")

    def _check_order(
        self, function: Any, name: str, inputs: Any, side: str | None, changed: list[Tensor]
    ) -> None:
        if function.is_view:
            return
        written = {key_of(tensor) for tensor in changed}
        by = self.device.stream.number if side == CUDA else None
        for tensor in inputs:
            memory = key_of(tensor)
            self.device.copies.access(memory, by, writes=memory in written, what=name)


def _is_nccl(argument: Any) -> bool:
    """Whether it is the group of all ranks, which is NCCL's; groups beside it are gloo's."""
    if type(argument).__name__ != "ScriptObject" or argument._type().name() != "ProcessGroup":
        return False
    group, world = dist.ProcessGroup.unbox(argument), dist.group.WORLD
    return world is not None and group.group_name == world.group_name
