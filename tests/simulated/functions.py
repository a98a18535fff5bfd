"""What Python says of devices - ``.device``, ``.to``, factories, reads - answered for the simulation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tests.simulated.device import Device
from tests.simulated.memory import CUDA, HOST, PINNED

# The dispatcher sees .item() and its kin as an operator, but not these.
_READS = {"tolist", "numpy", "__array__", "__repr__", "__format__"}
# Their numbers come from the host: on a GPU they are copied there.
_FROM_NUMBERS = {"tensor", "as_tensor", "from_numpy", "frombuffer"}
_FACTORIES = _FROM_NUMBERS | {
    *("arange", "complex", "empty", "empty_strided", "eye", "full", "linspace", "logspace", "normal", "ones"),
    *("rand", "randint", "randn", "randperm", "scalar_tensor", "tril_indices", "triu_indices", "zeros"),
}


def is_cuda(device: Any) -> bool:
    """Whether a device argument names a GPU, by number, by name or as torch.device."""
    return isinstance(device, int) or (device is not None and torch.device(device).type == "cuda")


def _one_hot(labels: Tensor, num_classes: int) -> Tensor:
    return labels.new_zeros((*labels.shape, num_classes)).scatter_(-1, labels[..., None], 1)


class Functions(TorchFunctionMode):
    """Answers for the device, and sends the rest on to the CPU."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(function, "__name__", str(function))
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if name == "__get__" and first is not None:
            return self._attribute(function, first, args, kwargs)
        if first is not None and name in _READS and self.device.labels[first] == CUDA:
            self.device.waited("sync", name)
            self.device.copies.finish(self.device.stream.number)
            if name in ("numpy", "__array__"):
                raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")
            with self.device.quiet():
                return function(*args, **kwargs)
        match name, first:
            case "to", Tensor():
                return self._to(function, args, kwargs)
            case "cuda" | "cpu", Tensor():
                return self.device.moved(first, CUDA if name == "cuda" else HOST)
            case "pin_memory", Tensor():
                return self.device.pinned(first)
            case "is_pinned", Tensor():
                return self.device.labels[first] == PINNED
            case "get_device", Tensor():
                return self.device.cuda.index if self.device.labels[first] == CUDA else -1
            case "one_hot", Tensor() if self.device.labels[first] == CUDA:
                # the GPU's kernel asserts what the CPU's reads on the host
                return _one_hot(*args, **kwargs)
        return self._made(function, name, first, args, kwargs)

    def _attribute(self, function: Any, tensor: Tensor, args: Sequence[Any], kwargs: Any) -> Any:
        on_device = self.device.labels[tensor] == CUDA
        match getattr(getattr(function, "__self__", None), "__name__", ""):
            case "device":
                return self.device.cuda if on_device else torch.device("cpu")
            case "is_cuda":
                return on_device
            case "is_cpu":
                return not on_device
        return function(*args, **kwargs)

    def _to(self, function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        tensor, *rest = args
        if rest and isinstance(rest[0], Tensor):
            rest[:1] = [self.device.cuda if self.device.labels[rest[0]] == CUDA else "cpu", rest[0].dtype]
        leading = ("dtype",) if rest and isinstance(rest[0], torch.dtype) else ("device", "dtype")
        given = dict(zip((*leading, "non_blocking", "copy"), rest, strict=False)) | kwargs
        device, non_blocking = given.pop("device", None), bool(given.pop("non_blocking", False))
        given = {key: value for key, value in given.items() if value is not None and value is not False}
        out = function(tensor, **given) if given else tensor
        if device is None:
            return out
        return self.device.moved(out, CUDA if is_cuda(device) else HOST, non_blocking=non_blocking)

    def _made(self, function: Any, name: str, first: Tensor | None, args: Any, kwargs: dict[str, Any]) -> Any:
        """A function that may make a tensor, on the device that it names or that its kin is on."""
        like = name.endswith("_like") or name.startswith("new_")
        pinned, device = kwargs.pop("pin_memory", False), kwargs.get("device")
        if device is not None:
            kwargs["device"] = torch.device("cpu") if is_cuda(device) else device
        if not like and name not in _FACTORIES and device is None:
            return function(*args, **kwargs)
        if device is None and first is not None:
            side = self.device.labels[first]
        else:
            side = CUDA if is_cuda(device) else HOST
        if name in _FROM_NUMBERS and side == CUDA and (first is None or self.device.labels[first] != CUDA):
            self.device.waited("transfer", name)
        out = function(*args, **kwargs)
        if isinstance(out, Tensor) and side is not None:
            self.device.labels[out] = PINNED if pinned else side
        return out
