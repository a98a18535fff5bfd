"""``simulated_cuda``: for its duration torch has a CUDA device, made of the CPU.

    device.py      streams, events, a log of every wait        memory.py   where memory is, copies under way
    functions.py   what Python says of devices                 graphs.py   capture and replay
    operators.py   checks and tapes every operator             this file   torch.cuda, NCCL and autocast

Values are real, computed by the CPU's kernels. Refused, as on a GPU: operators that mix sides, host reads and
copies during a capture, CPU tensors given to NCCL (gloo carries it underneath). A replay runs the taped
operators on the memory of the capture and none of its Python, so that a decision, a number or an address
which Python chose freezes as it would. A copy that nobody waited for has not happened.

What it cannot see: whether a real capture is legal in all that its libraries do (cuDNN, cuBLAS workspaces,
NCCL's channels); races between kernels on different streams; the caching allocator, record_stream and reuse
of freed memory; the numbers of GPU kernels; a fallen link; time. Only the calling thread is simulated, and
operators inside torch's C++ that never reach the dispatcher are not seen. tests/gpu and
docs/performance.md name what is left to a GPU.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import Tensor
from torch.distributed import distributed_c10d
from torch.utils import _foreach_utils

from tests.simulated.device import Device, Stream
from tests.simulated.functions import Functions
from tests.simulated.memory import CUDA
from tests.simulated.operators import Operators

_MEMORY_BYTES = 2**34


@contextmanager
def simulated_cuda() -> Iterator[Device]:
    """Inside, ``torch.cuda`` is the simulation, and Accelerate knows nothing from before."""
    device = Device()
    with ExitStack() as stack:
        stack.callback(_forget_accelerate)
        _forget_accelerate()
        for owner, name, value in [
            *((torch.cuda, name, value) for name, value in _torch_cuda(device).items()),
            *_distributed(),
            *_autocast(),
            *_grouping(device),
            (Tensor, "record_stream", lambda tensor, stream: None),
            (torch.accelerator, "is_available", lambda: True),
            (torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("cuda")),
            (torch.accelerator, "current_stream", lambda device_=None: device.stream),
        ]:
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.enter_context(Operators(device))
        stack.enter_context(Functions(device))
        yield device


def _forget_accelerate() -> None:
    for state in (AcceleratorState, PartialState, GradientState):
        state._reset_state()


def _torch_cuda(device: Device) -> dict[str, Any]:
    @contextmanager
    def use(stream: Stream | None) -> Iterator[None]:
        before, device.stream = device.stream, stream or device.stream
        try:
            yield
        finally:
            device.stream = before

    def synchronize(_: Any = None) -> None:
        device.waited("sync", "torch.cuda.synchronize")
        device.copies.finish_all()

    properties = SimpleNamespace(major=9, minor=0, name="simulated", total_memory=_MEMORY_BYTES)
    return {
        "is_available": lambda: True,
        "is_bf16_supported": lambda *_: True,
        "device_count": lambda: 8,
        "current_device": lambda: device.current,
        "set_device": device.set_current,
        "get_device_name": lambda _=None: properties.name,
        "get_device_properties": lambda _=None: properties,
        "get_device_capability": lambda _=None: (properties.major, properties.minor),
        "mem_get_info": lambda _=None: (_MEMORY_BYTES, _MEMORY_BYTES),
        "reset_peak_memory_stats": lambda _=None: None,
        "max_memory_allocated": lambda _=None: 0,
        "max_memory_reserved": lambda _=None: 0,
        "empty_cache": lambda: None,
        "synchronize": synchronize,
        "get_rng_state": lambda _=None: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda state, _=None: None,
        "Stream": device.Stream,
        "Event": device.Event,
        "CUDAGraph": device.Graph,
        "graph": device.Capture,
        "stream": use,
        "set_stream": lambda stream: setattr(device, "stream", stream),
        "current_stream": lambda _=None: device.stream,
        "default_stream": lambda _=None: device.default_stream,
        "is_current_stream_capturing": lambda: device.capturing is not None,
    }


def _distributed() -> list[tuple[Any, str, Any]]:
    """gloo that calls itself NCCL, in the group of all ranks."""
    start, backend_of = dist.init_process_group, dist.get_backend
    objects_on = distributed_c10d._get_object_coll_device

    def is_world(group: Any) -> bool:
        return group is None or group is dist.group.WORLD

    def start_gloo(backend: str | None = None, **options: Any) -> None:
        start(backend="gloo" if backend == "nccl" else backend, **options)

    return [
        (dist, "init_process_group", start_gloo),
        (dist, "get_backend", lambda group=None: "nccl" if is_world(group) else backend_of(group)),
        (
            distributed_c10d,
            "_get_object_coll_device",
            lambda group=None: "cuda" if is_world(group) else objects_on(group),
        ),
    ]


def _autocast() -> list[tuple[Any, str, Any]]:
    """The CPU's casts in the place of the GPU's."""
    begin = torch.amp.autocast_mode.autocast.__init__
    enabled, dtype = torch.is_autocast_enabled, torch.get_autocast_dtype

    def on_cpu(kind: str) -> str:
        return "cpu" if kind == "cuda" else kind

    def begin_on_cpu(self: Any, device_type: str, *args: Any, **options: Any) -> None:
        begin(self, on_cpu(device_type), *args, **options)

    return [
        (torch.amp.autocast_mode.autocast, "__init__", begin_on_cpu),
        (torch, "is_autocast_enabled", lambda kind="cuda": enabled(on_cpu(kind))),
        (torch, "get_autocast_dtype", lambda kind: dtype(on_cpu(kind))),
    ]


def _grouping(device: Device) -> list[tuple[Any, str, Any]]:
    """torch sorts tensors by device in C++, which sees the CPU's."""
    name = "_group_tensors_by_device_and_dtype"
    group = getattr(_foreach_utils, name)

    def grouped(lists: list[list[Tensor | None]], with_indices: bool = False) -> Any:
        first = next(tensor for tensors in lists for tensor in tensors if tensor is not None)
        side = device.cuda if device.labels[first] == CUDA else torch.device("cpu")
        return {(side, dtype): found for (_, dtype), found in group(lists, with_indices).items()}

    users = (_foreach_utils, sys.modules["torch.nn.utils.clip_grad"], sys.modules["torch.optim.optimizer"])
    return [
        *((user, name, grouped) for user in users if hasattr(user, name)),
        (torch.optim.Optimizer, name, staticmethod(grouped)),
    ]
